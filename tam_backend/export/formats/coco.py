"""COCO instances: one image a frame, run lengths for masks. Which video, frame and track is kept in further fields."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tam_backend.errors import BadInput
from tam_backend.export import manifest
from tam_backend.export.dataset import Dataset, MaskedFrame, Track, Video, bounding_box
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
from tam_backend.export.rle import decode, encode

PICTURES, INSTANCES = "images", "annotations/instances.json"


def write(dataset: Dataset, out: Path) -> list[str]:
    """Frames without an object are images without annotations. Returns notes for people."""
    images: list[dict[str, Any]] = []
    path = out / INSTANCES
    path.parent.mkdir(parents=True)
    with path.open("w", encoding="utf-8") as file:
        file.writelines(_chunks(dataset, out, images))
    return []


def _chunks(dataset: Dataset, out: Path, images: list[dict[str, Any]]) -> Iterator[str]:
    """The text of the file in pieces; ``images`` grows meanwhile."""
    yield head(dataset)
    yield ',\n"annotations": ['
    count = 0
    for video in dataset.videos:
        classes = {t.id: dataset.categories[t.category] for t in video.tracks}
        for masked in walk(video, out / PICTURES, partial(picture_stem, video)):
            images.append(
                {
                    "id": len(images) + 1,
                    "file_name": f"{picture_stem(video, masked.frame)}.jpg",
                    "height": video.height,
                    "width": video.width,
                    "video": video.name,
                    "frame": masked.frame,
                }
            )
            for track, mask in sorted(masked.masks.items()):
                left, top, right, bottom = bounding_box(mask)
                count += 1
                annotation = {
                    "id": count,
                    "image_id": len(images),
                    "category_id": classes[track],
                    "track_id": track,
                    "segmentation": encode(mask),
                    "area": int(mask.sum()),
                    "bbox": [left, top, right - left, bottom - top],
                    "iscrowd": 0,
                }
                yield ("\n" if count == 1 else ",\n") + json.dumps(annotation)
    yield '],\n"images": ' + json.dumps(images, ensure_ascii=False) + "}\n"


def picture_stem(video: Video, frame: int) -> str:
    """One folder for all, and names that differ: some loaders tell images apart by their names alone."""
    return f"{video.name}_{stem(frame)}"


def head(dataset: Dataset) -> str:
    """What every COCO file begins with: an object that is still open."""
    info = {"description": dataset.origin, "version": "1.0"}
    categories = [{"id": i, "name": name, "supercategory": "object"} for name, i in dataset.categories.items()]
    texts = (json.dumps(part, ensure_ascii=False) for part in (info, [], categories))
    return '{{"info": {}, "licenses": {},\n"categories": {}'.format(*texts)


def read(root: Path) -> Dataset:
    """A folder that ``write`` made, or the JSON file of any COCO data set with its images beside it. Raises BadInput.

    Where annotations have no ``track_id``, those of a class are numbered by their order on each image.
    """
    path = root / INSTANCES if root.is_dir() else root
    base = root if root.is_dir() else root.parent
    known = manifest.load(base)
    content = read_json(path)
    try:
        names = {c["id"]: c["name"] for c in content["categories"]}
        images = sorted(content["images"], key=lambda i: (str(i.get("video", "")), _frame(i)))
        by_image: dict[Any, list[dict[str, Any]]] = {}
        for annotation in content["annotations"]:
            by_image.setdefault(annotation["image_id"], []).append(annotation)
        track_of = _number_tracks(by_image, names)
        tracks = known.tracks if known else tracks_by_category(dict(track_of.values()))
        groups: dict[str, list[dict[str, Any]]] = {}
        for image in images:
            groups.setdefault(str(image.get("video") or path.stem), []).append(image)
        videos = [
            _video(name, group, by_image, {a: t for a, (t, _) in track_of.items()}, tracks, base, known)
            for name, group in groups.items()
        ]
    except (KeyError, TypeError, AttributeError) as e:
        raise BadInput(f"{path} is not a COCO data set: {type(e).__name__} {e}") from e
    return checked(Dataset(tuple(videos), tracks, str(root)), root)


def _frame(image: dict[str, Any]) -> int:
    given = image.get("frame")
    return given if isinstance(given, int) else number(Path(image["file_name"]).stem, image["file_name"])


def _number_tracks(by_image: dict[Any, list[dict[str, Any]]], names: dict[Any, str]) -> dict[Any, tuple[int, str]]:
    """Annotation -> (track, class)."""
    found: dict[Any, tuple[int, str]] = {}
    numbers: dict[tuple[Any, int], int] = {}
    for of_image in by_image.values():
        counts: dict[Any, int] = {}
        for a in of_image:
            category = a["category_id"]
            nth = counts[category] = counts.get(category, 0) + 1
            given = a.get("track_id")
            track = given if isinstance(given, int) else numbers.setdefault((category, nth), len(numbers) + 1)
            found[a["id"]] = (track, names[category])
    return found


def _video(
    name: str,
    images: list[dict[str, Any]],
    by_image: dict[Any, list[dict[str, Any]]],
    track_of: dict[Any, int],
    tracks: tuple[Track, ...],
    base: Path,
    known: manifest.Manifest | None,
) -> Video:
    height, width = images[0]["height"], images[0]["width"]

    def frames() -> Iterator[MaskedFrame]:
        for image in images:
            masks = {
                track_of[a["id"]]: decode(a["segmentation"], height, width, f"annotation {a['id']}")
                for a in by_image.get(image["id"], [])
            }
            yield MaskedFrame(_frame(image), {t: m for t, m in masks.items() if m.any()})

    files = {_frame(i): Path(i["file_name"]).stem for i in images}
    pictures = folder_pictures(base / PICTURES, list(files), files.__getitem__)
    return Video(name, height, width, list(files), tracks, frames, pictures, fps_of(known, name))
