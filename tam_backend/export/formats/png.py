"""A black and white PNG for each object on each frame: the simplest there is, and overlaps are kept."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from tam_backend.errors import BadInput
from tam_backend.export import manifest
from tam_backend.export.dataset import Dataset, MaskedFrame, Track, Video
from tam_backend.export.formats.common import checked, folder_pictures, fps_of, number, open_mask, stem, walk

PICTURES, MASKS = "images", "masks"


def write(dataset: Dataset, out: Path) -> list[str]:
    """Each object that occurs in a video has a file for every frame, black where it is not. Returns notes."""
    for video in dataset.videos:
        empty = _encode(np.zeros((video.height, video.width), bool))
        folders: dict[int, Path] = {}
        before: list[str] = []
        for masked in walk(video, out / PICTURES / video.name):
            for track in masked.masks.keys() - folders.keys():
                folders[track] = folder = out / MASKS / video.name / folder_name(video, track)
                folder.mkdir(parents=True)
                for name in before:
                    (folder / name).write_bytes(empty)
            name = f"{stem(masked.frame)}.png"
            for track, folder in folders.items():
                mask = masked.masks.get(track)
                (folder / name).write_bytes(empty if mask is None else _encode(mask))
            before.append(name)
    return []


def folder_name(video: Video, track: int) -> str:
    """Number first, so that two labels that differ only in signs do not become one folder."""
    label = next(t.label for t in video.tracks if t.id == track)
    safe = "".join(c if c.isalnum() or c in "-." else "_" for c in label)
    return f"{track:03d}_{safe}"


def _encode(mask: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "PNG")
    return buffer.getvalue()


def read(root: Path) -> Dataset:
    """Raises BadInput."""
    known = manifest.load(root)
    videos = []
    for folder in sorted(p for p in (root / MASKS).glob("*") if p.is_dir()):
        objects = {number_of(p): p for p in sorted(folder.glob("*")) if p.is_dir()}
        tracks = known.tracks if known else tuple(
            Track(i, p.name[4:], p.name[4:].rstrip("0123456789").rstrip("_") or p.name[4:])
            for i, p in objects.items()
        )  # fmt: skip
        videos.append(_video(folder.name, objects, tracks, root, known))
    if known:  # a video without a single object has no folder of masks
        there = {v.name for v in videos}
        videos += [_video(n, {}, known.tracks, root, known) for n in known.videos if n not in there]
    every = {t.id: t for v in videos for t in v.tracks}
    return checked(Dataset(tuple(videos), known.tracks if known else tuple(every.values()), str(root)), root)


def number_of(folder: Path) -> int:
    """The track of a folder of masks. Raises BadInput."""
    try:
        return int(folder.name.partition("_")[0])
    except ValueError as e:
        raise BadInput(f"{folder}: the name must begin with the number of its track, such as 001_Person") from e


def _video(
    name: str, objects: dict[int, Path], tracks: tuple[Track, ...], root: Path, known: manifest.Manifest | None
) -> Video:
    files = {i: {number(p.stem, p.name): p for p in folder.glob("*.png")} for i, folder in objects.items()}
    noted = known.videos.get(name) if known is not None else None
    frames = list(noted.frames) if noted else sorted({frame for of_track in files.values() for frame in of_track})
    if noted:
        height, width = noted.height, noted.width
    elif frames:
        height, width = open_mask(next(p for of_track in files.values() for p in of_track.values())).shape
    else:
        raise BadInput(f"{root / MASKS / name} has no masks (*.png)")

    def read_frames() -> Iterator[MaskedFrame]:
        for frame in frames:
            masks = {i: open_mask(of_track[frame]) for i, of_track in files.items() if frame in of_track}
            yield MaskedFrame(frame, {i: m for i, m in masks.items() if m.any()})

    pictures = folder_pictures(root / PICTURES / name, frames)
    return Video(name, height, width, frames, tracks, read_frames, pictures, fps_of(known, name))
