"""YouTube-VIS, COCO for videos: one annotation for each track, with run lengths or null for every frame."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from tam_backend.errors import BadInput
from tam_backend.export import manifest
from tam_backend.export.dataset import Dataset, MaskedFrame, Track, Video
from tam_backend.export.formats.coco import head
from tam_backend.export.formats.common import (
    checked,
    folder_pictures,
    fps_of,
    number,
    read_json,
    stem,
    tracks_by_category,
    walk,
)
from tam_backend.export.rle import decode, encode, uncompressed

PICTURES, INSTANCES = "JPEGImages", "instances.json"


def write(dataset: Dataset, out: Path) -> list[str]:
    """Frames without an object have null in all tracks. Returns notes for people."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / INSTANCES).open("w", encoding="utf-8") as file:
        file.writelines(_chunks(dataset, out))
    return []


def _chunks(dataset: Dataset, out: Path) -> Iterator[str]:
    yield head(dataset)
    videos = [
        {
            "id": place,
            "file_names": [f"{video.name}/{stem(frame)}.jpg" for frame in video.frames],
            "height": video.height,
            "width": video.width,
            "length": len(video.frames),
        }
        for place, video in enumerate(dataset.videos, 1)
    ]
    yield ',\n"videos": ' + json.dumps(videos, ensure_ascii=False) + ',\n"annotations": ['
    count = 0
    for video_id, video in enumerate(dataset.videos, 1):
        # A track of a long video takes some hundred kB as run lengths.
        segments: dict[int, dict[int, dict[str, Any]]] = {}
        for place, masked in enumerate(walk(video, out / PICTURES / video.name)):
            for track, mask in masked.masks.items():
                segments.setdefault(track, {})[place] = encode(mask)
        classes = {t.id: dataset.categories[t.category] for t in video.tracks}
        for track, by_place in sorted(segments.items()):
            count += 1
            shown = [by_place.get(place) for place in range(len(video.frames))]
            annotation = {
                "id": count,
                "video_id": video_id,
                "category_id": classes[track],
                "track_id": track,
                "height": video.height,
                "width": video.width,
                "length": len(video.frames),
                "iscrowd": 0,
                "bboxes": [None if s is None else [float(v) for v in coco_mask.toBbox(s)] for s in shown],
                "areas": [None if s is None else int(coco_mask.area(s)) for s in shown],
                "segmentations": [None if s is None else uncompressed(s) for s in shown],
            }
            yield ("\n" if count == 1 else ",\n") + json.dumps(annotation)
    yield "]}\n"


def read(root: Path) -> Dataset:
    """A folder that ``write`` made, or the JSON file of any YouTube-VIS data set. Raises BadInput."""
    path = root / INSTANCES if root.is_dir() else root
    base = root if root.is_dir() else root.parent
    known = manifest.load(base)
    content = read_json(path)
    try:
        names = {c["id"]: c["name"] for c in content["categories"]}
        of_video: dict[Any, list[dict[str, Any]]] = {}
        for annotation in content["annotations"]:
            of_video.setdefault(annotation["video_id"], []).append(annotation)
        # Without ids of ours, tracks are numbered within their video.
        ids = {
            a["id"]: int(a.get("track_id", place))
            for annotations in of_video.values()
            for place, a in enumerate(annotations, 1)
        }
        found = {ids[a["id"]]: names[a["category_id"]] for a in content["annotations"]}
        tracks = known.tracks if known else tracks_by_category(found)
        videos = [_video(v, of_video.get(v["id"], []), ids, tracks, base, known) for v in content["videos"]]
    except (KeyError, TypeError, AttributeError, IndexError) as e:
        raise BadInput(f"{path} is not a YouTube-VIS data set: {type(e).__name__} {e}") from e
    return checked(Dataset(tuple(videos), tracks, str(root)), root)


def _video(
    video: dict[str, Any],
    annotations: list[dict[str, Any]],
    ids: dict[Any, int],
    tracks: tuple[Track, ...],
    base: Path,
    known: manifest.Manifest | None,
) -> Video:
    files = video["file_names"]
    name, height, width = Path(files[0]).parent.name, video["height"], video["width"]
    frames = [number(Path(f).stem, f) for f in files]

    def read_frames() -> Iterator[MaskedFrame]:
        for place, frame in enumerate(frames):
            masks = {}
            for a in annotations:
                segment = a["segmentations"][place]
                if segment is not None:
                    masks[ids[a["id"]]] = decode(segment, height, width, f"annotation {a['id']}, frame {frame}")
            yield MaskedFrame(frame, {t: m for t, m in masks.items() if np.any(m)})

    pictures = folder_pictures(base / PICTURES / name, frames)
    return Video(name, height, width, frames, tracks, read_frames, pictures, fps_of(known, name))
