"""YOLO: a text file for each image, one line for each object: class, then a polygon or a box in shares of the image.

The format knows no tracks. They are in text files of the same names under ``tracks``: the track of each line.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from tam_backend.errors import BadInput
from tam_backend.export import manifest
from tam_backend.export.dataset import Dataset, MaskedFrame, Track, Video, bounding_box
from tam_backend.export.formats.coco import picture_stem
from tam_backend.export.formats.common import (
    checked,
    folder_pictures,
    fps_of,
    number,
    size_of,
    tracks_by_category,
    walk,
)
from tam_backend.export.polygons import fill, to_polygon
from tam_backend.prompts import Mask

SPLIT, SETTINGS = "train", "data.yaml"
#: Added to the pixel of a corner, so that loaders that round and loaders that cut off both arrive at it.
_INSIDE = 0.25

Numbers = Callable[[Mask, int, int], list[float]]


def write_polygons(dataset: Dataset, out: Path) -> list[str]:
    return _write(dataset, out, _polygon_numbers)


def write_boxes(dataset: Dataset, out: Path) -> list[str]:
    return _write(dataset, out, _box_numbers)


def _write(dataset: Dataset, out: Path, numbers: Numbers) -> list[str]:
    """Frames without an object have an empty file, which YOLO takes for background. Returns notes for people."""
    labels, tracks = out / "labels" / SPLIT, out / "tracks" / SPLIT
    for folder in (labels, tracks, out / "images" / SPLIT):
        folder.mkdir(parents=True)
    for video in dataset.videos:
        classes = {t.id: dataset.categories[t.category] - 1 for t in video.tracks}
        for masked in walk(video, out / "images" / SPLIT, partial(picture_stem, video)):
            name = f"{picture_stem(video, masked.frame)}.txt"
            lines, of_line = [], []
            for track, mask in sorted(masked.masks.items()):
                shares = " ".join(f"{v:.7f}" for v in numbers(mask, video.height, video.width))
                lines.append(f"{classes[track]} {shares}\n")
                of_line.append(f"{track}\n")
            (labels / name).write_text("".join(lines))
            (tracks / name).write_text("".join(of_line))
    names = "".join(f"  {i - 1}: {json.dumps(name, ensure_ascii=False)}\n" for name, i in dataset.categories.items())
    (out / SETTINGS).write_text(
        "# Training and validation images are the same: move some videos' files to images/val and labels/val.\n"
        f"path: .\ntrain: images/{SPLIT}\nval: images/{SPLIT}\nnames:\n{names}",
        encoding="utf-8",
    )
    return []


def _polygon_numbers(mask: Mask, height: int, width: int) -> list[float]:
    points = to_polygon(mask)
    if len(points) < 3:  # loaders take fewer for a box, or for nonsense
        points = np.concatenate([points, points, points])[:3]
    return [float(v) for v in ((points + _INSIDE) / (width, height)).ravel()]


def _box_numbers(mask: Mask, height: int, width: int) -> list[float]:
    left, top, right, bottom = bounding_box(mask)
    return [(left + right) / 2 / width, (top + bottom) / 2 / height, (right - left) / width, (bottom - top) / height]


def read_polygons(root: Path) -> Dataset:
    return _read(root, _polygon_mask)


def read_boxes(root: Path) -> Dataset:
    """The masks are the boxes, filled."""
    return _read(root, _box_mask)


def _read(root: Path, mask_of: Callable[[list[float], int, int], Mask]) -> Dataset:
    """Without ``tracks``, the objects of a class are numbered by their order on each image. Raises BadInput."""
    known = manifest.load(root)
    labels = root / "labels" / SPLIT if (root / "labels" / SPLIT).is_dir() else root / "labels"
    pictures = root / "images" / labels.relative_to(root / "labels")
    groups: dict[str, dict[int, Path]] = {}
    for path in sorted(labels.glob("*.txt")):
        frame = number(path.stem, path.name)
        groups.setdefault(path.stem.rstrip("0123456789").rstrip("_-") or "video", {})[frame] = path
    names = _names(root / SETTINGS)
    numbered: dict[tuple[int, int], int] = {}
    classes: dict[int, str] = {}
    videos = []
    for name, files in groups.items():
        height, width = size_of(known, name, pictures, f"{next(iter(files.values())).stem}.*")
        objects = partial(_objects, root / "tracks" / labels.relative_to(root / "labels"), numbered)
        for path in files.values():  # numbers the tracks, in order
            for track, category, _ in objects(path):
                classes[track] = names.get(category, f"class {category}")
        videos.append((name, files, height, width, objects))
    tracks = known.tracks if known else tracks_by_category(classes)
    read = tuple(_video(*v, tracks, pictures, known, mask_of) for v in videos)
    return checked(Dataset(read, tracks, str(root)), root)


def _objects(tracks: Path, numbered: dict[tuple[int, int], int], path: Path) -> list[tuple[int, int, list[float]]]:
    """(track, class, numbers) of each line of a file."""
    lines = [line.split() for line in path.read_text().splitlines() if line.strip()]
    given = (tracks / path.name).read_text().split() if (tracks / path.name).is_file() else []
    if given and len(given) != len(lines):
        raise BadInput(f"{tracks / path.name} names {len(given)} tracks, {path.name} has {len(lines)} objects")
    found, counts = [], dict[int, int]()
    for place, line in enumerate(lines):
        try:
            category, values = int(line[0]), [float(v) for v in line[1:]]
        except ValueError as e:
            raise BadInput(f"{path}, line {place + 1}: {e}") from e
        if len(values) < 4 or len(values) % 2 or not all(math.isfinite(v) and 0 <= v <= 1 for v in values):
            raise BadInput(f"{path}, line {place + 1}: expected a class and pairs of numbers from 0 to 1")
        nth = counts[category] = counts.get(category, 0) + 1
        track = int(given[place]) if given else numbered.setdefault((category, nth), len(numbered) + 1)
        found.append((track, category, values))
    return found


def _video(
    name: str,
    files: dict[int, Path],
    height: int,
    width: int,
    objects: Callable[[Path], list[tuple[int, int, list[float]]]],
    tracks: tuple[Track, ...],
    pictures: Path,
    known: manifest.Manifest | None,
    mask_of: Callable[[list[float], int, int], Mask],
) -> Video:
    frames = sorted(files)

    def read_frames() -> Iterator[MaskedFrame]:
        for frame in frames:
            masks = {track: mask_of(values, height, width) for track, _, values in objects(files[frame])}
            yield MaskedFrame(frame, {t: m for t, m in masks.items() if m.any()})

    return Video(
        name, height, width, frames, tracks, read_frames,
        folder_pictures(pictures, frames, lambda frame: files[frame].stem), fps_of(known, name),
    )  # fmt: skip


def _polygon_mask(values: list[float], height: int, width: int) -> Mask:
    if len(values) == 4:
        return _box_mask(values, height, width)
    corners = np.array(values).reshape(-1, 2) * (width, height)
    return fill(np.clip(np.floor(corners + 1e-3), 0, (width - 1, height - 1)).astype(np.int32), height, width)


def _box_mask(values: list[float], height: int, width: int) -> Mask:
    x, y, across, down = values[:4]
    mask = np.zeros((height, width), bool)
    columns = slice(max(0, round((x - across / 2) * width)), round((x + across / 2) * width))
    rows = slice(max(0, round((y - down / 2) * height)), round((y + down / 2) * height))
    mask[rows, columns] = True
    return mask


def _names(path: Path) -> dict[int, str]:
    """Classes of a ``data.yaml`` as ``write`` makes it: a line ``number: name`` for each."""
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8").partition("names:")[2].splitlines()
    pairs = (line.strip().partition(":") for line in lines)
    return {int(i): name.strip().strip("\"'") for i, _, name in pairs if i.isdecimal()}
