"""MOTS as KITTI has it: 16-bit PNGs of class * 1000 + track, and the same as lines of text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from tam_backend.errors import BadInput
from tam_backend.export import manifest
from tam_backend.export.dataset import Dataset, MaskedFrame, Track, Video, split_ids
from tam_backend.export.formats.common import Overlaps, checked, folder_pictures, fps_of, number, walk
from tam_backend.export.rle import encode

PICTURES, INSTANCES, TEXTS, CLASSES = "images", "instances", "instances_txt", "classes.txt"
_PER_CLASS = 1000
#: Class 10 means "ignore" in MOTS.
_IGNORE = 10
_MAX_CLASS = 65


def write(dataset: Dataset, out: Path) -> list[str]:
    """Frames without an object are PNGs of zeros, and have no line of text. Returns notes for people.

    Raises BadInput for more classes than fit.
    """
    classes = {name: _class_number(i) for name, i in dataset.categories.items()}
    if max(classes.values()) > _MAX_CLASS:
        raise BadInput(f"there are {len(classes)} classes; MOTS has room for {_MAX_CLASS - 1}")
    overlaps = Overlaps()
    (out / TEXTS).mkdir(parents=True)
    for video in dataset.videos:
        category = {t.id: classes[t.category] for t in video.tracks}
        (out / INSTANCES / video.name).mkdir(parents=True)
        with (out / TEXTS / f"{video.name}.txt").open("w") as text:
            for masked in walk(video, out / PICTURES / video.name, _stem):
                ids = overlaps.ids(video, masked)
                values = np.zeros(256, np.uint16)
                for track in masked.masks:
                    values[track] = category[track] * _PER_CLASS + track
                picture = Image.fromarray(values[ids])
                picture.save(out / INSTANCES / video.name / f"{_stem(masked.frame)}.png")
                for track, mask in split_ids(ids).items():
                    counts = encode(mask)["counts"]
                    size = f"{video.height} {video.width}"
                    text.write(f"{masked.frame} {values[track]} {category[track]} {size} {counts}\n")
    lines = [f"{i} {name}\n" for name, i in classes.items()]
    (out / CLASSES).write_text("".join(lines), encoding="utf-8")
    return overlaps.notes()


def _stem(frame: int) -> str:
    return f"{frame:06d}"


def _class_number(place: int) -> int:
    return place if place < _IGNORE else place + 1


def read(root: Path) -> Dataset:
    """Reads the PNGs. Raises BadInput."""
    known = manifest.load(root)
    names = {}
    if (root / CLASSES).is_file():
        for line in (root / CLASSES).read_text(encoding="utf-8").splitlines():
            place, _, name = line.partition(" ")
            names[int(place)] = name
    videos = []
    for folder in sorted(p for p in (root / INSTANCES).glob("*") if p.is_dir()):
        files = {number(p.stem, p.name): p for p in sorted(folder.glob("*.png"))}
        if not files:
            raise BadInput(f"{folder} has no masks (*.png)")
        tracks = known.tracks if known else _tracks(files, names)
        videos.append(_video(folder.name, files, tracks, root, known))
    every = {t.id: t for v in videos for t in v.tracks}
    return checked(Dataset(tuple(videos), known.tracks if known else tuple(every.values()), str(root)), root)


def _video(
    name: str, files: dict[int, Path], tracks: tuple[Track, ...], root: Path, known: manifest.Manifest | None
) -> Video:
    frames = sorted(files)
    height, width = _open(files[frames[0]]).shape

    def read_frames() -> Iterator[MaskedFrame]:
        for frame in frames:
            values = _open(files[frame])
            present = [int(v) for v in np.unique(values) if v and v // _PER_CLASS != _IGNORE]
            yield MaskedFrame(frame, {v % _PER_CLASS: np.asarray(values == v) for v in present})

    pictures = folder_pictures(root / PICTURES / name, frames, _stem)
    return Video(name, height, width, frames, tracks, read_frames, pictures, fps_of(known, name))


def _tracks(files: dict[int, Path], names: dict[int, str]) -> tuple[Track, ...]:
    values = sorted({int(v) for path in files.values() for v in np.unique(_open(path)) if v})
    tracks = []
    for value in values:
        place, track = divmod(value, _PER_CLASS)
        if place != _IGNORE:
            category = names.get(place, f"class {place}")
            tracks.append(Track(track, f"{category} {track}", category))
    return tuple(tracks)


def _open(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as image:
            return np.array(image, np.uint16)
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as e:
        raise BadInput(f"{path} cannot be read: {e}") from e
