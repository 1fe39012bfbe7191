"""First boxes and masks of ``tam import --seed``: COCO JSON, YOLO text files, and masks as in DAVIS."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from tam_backend.commands.track_prompts import read_id_map
from tam_backend.errors import BadInput
from tam_backend.labelstudio.instances import Instance, Vocabulary
from tam_backend.labelstudio.seeds import Seed
from tam_backend.prompts import Box, Mask

_NUMBER = re.compile(r"\d+")
#: Pixels of DAVIS masks that belong to nothing for sure.
_VOID = 255


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    """Something on a frame. category: as the file calls it. track: what says that it is the same object elsewhere.
    instance: the label, where the file says it."""

    frame: int
    category: str
    track: str | None
    box: Box | None
    mask: Mask | None
    instance: Instance | None = None


@dataclass(frozen=True, slots=True)
class Seeds:
    """seeds: in the order of frames. dropped: sentences about what is not used."""

    seeds: tuple[Seed, ...]
    dropped: tuple[str, ...]

    def on(self, frames: Iterable[int]) -> Seeds:
        """Those on frames that are imported."""
        shown = set(frames)
        kept = tuple(s for s in self.seeds if s.frame in shown)
        left = len(self.seeds) - len(kept)
        more = (f"{left} on frames that are not imported",) if left else ()
        return replace(self, seeds=kept, dropped=self.dropped + more)


def seed_path(given: Path, stem: str, videos: int) -> Path | None:
    """Where the seeds of a video are: below a folder under its name, or what was given itself if there is one video.

    None if there are none for this video. Raises BadInput if it is not clear which video they belong to.
    """
    if given.is_dir():
        for candidate in (given / stem, given / f"{stem}.json"):
            if candidate.exists():
                return candidate
        if videos > 1:
            return None
    elif not given.exists():
        raise BadInput(f"--seed {given}: there is no such file or folder")
    elif videos > 1:
        raise BadInput(f"--seed {given}: for several videos give a folder that has a file or folder named as each")
    return given


def read_seeds(path: Path, vocabulary: Vocabulary, names: Mapping[str, str], width: int, height: int) -> Seeds:
    """Read seeds for a video of this size. names: the file's classes -> the project's, where they differ.

    Raises BadInput naming the file and what is wrong with it.
    """
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    kinds: dict[str, Callable[[], Iterator[_Found]]] = {
        ".json": lambda: _coco([f for f in files if f.suffix == ".json"], width, height),
        ".png": lambda: _davis([f for f in files if f.suffix == ".png"], vocabulary, width, height),
        ".txt": lambda: _yolo([f for f in files if f.suffix == ".txt"], vocabulary, width, height),
    }
    kind = next((k for k in kinds if any(f.suffix == k for f in files)), None)
    if kind is None:
        raise BadInput(f"--seed {path}: seeds are COCO (.json), YOLO (.txt) or masks as in DAVIS (.png)")
    found = sorted(kinds[kind](), key=lambda f: f.frame)
    return _assign(path, found, vocabulary, {k.lower(): v for k, v in names.items()})


def _assign(path: Path, found: list[_Found], vocabulary: Vocabulary, names: Mapping[str, str]) -> Seeds:
    """Give each object a label. Without track ids nothing says what is the same on two frames: then the first frame
    of a class counts."""
    categories = {c.lower(): c for c in vocabulary.categories}
    tracks: dict[tuple[str, str], Instance | None] = {}
    first: dict[str, int] = {}
    seeds, surplus, later = [], 0, 0
    for thing in found:
        if thing.instance is not None:
            seeds.append(Seed(thing.instance.label, thing.frame, thing.box, thing.mask))
            continue
        named = names.get(thing.category.lower(), thing.category)
        category = categories.get(named.lower())
        if category is None:
            known = ", ".join(vocabulary.categories)
            raise BadInput(
                f"--seed {path}: the project has no class {named!r}; its classes are {known}. Say --seed-class "
                f"'{thing.category}=CLASS'"
            )
        instances = vocabulary.of_category(category)
        if thing.track is None and thing.frame != first.setdefault(category, thing.frame):
            later += 1
            continue
        key = category, thing.track if thing.track is not None else f"place {len(tracks)}"
        if key not in tracks:
            taken = sum(1 for (other, _), i in tracks.items() if other == category and i is not None)
            tracks[key] = instances[taken] if taken < len(instances) else None
        instance = tracks[key]
        if instance is None:
            surplus += 1
        else:
            seeds.append(Seed(instance.label, thing.frame, thing.box, thing.mask))
    dropped = []
    if surplus:
        dropped.append(f"{surplus} of more objects of a class than the project has labels for (--instances)")
    if later:
        dropped.append(f"{later} on later frames: without track ids only the first frame of a class counts")
    return Seeds(tuple(seeds), tuple(dropped))


# ---- COCO


def _coco(files: list[Path], width: int, height: int) -> Iterator[_Found]:
    for path in files:
        try:
            content = json.loads(path.read_text())
            images = {i["id"]: i for i in content["images"]}
            categories = {c["id"]: str(c["name"]) for c in content["categories"]}
            annotations = content["annotations"]
        except (OSError, ValueError, KeyError, TypeError) as e:
            raise BadInput(f"--seed {path}: no COCO file with images, categories and annotations ({e!r})") from e
        for annotation in annotations:
            if annotation.get("iscrowd"):
                continue
            try:
                image, category = images[annotation["image_id"]], categories[annotation["category_id"]]
                frame = _frame_of(path, str(image["file_name"]))
                track = annotation.get("track_id", annotation.get("instance_id"))
                size = image.get("height", height), image.get("width", width)
            except (KeyError, TypeError) as e:
                raise BadInput(f"--seed {path}: annotation {annotation!r:.80} lacks {e}") from e
            if size != (height, width):
                named = image["file_name"]
                raise BadInput(f"--seed {path}: {named} is {size[1]}x{size[0]}, the video is {width}x{height}")
            mask = _segmentation(annotation.get("segmentation"), height, width)
            box = None
            if mask is None:
                box = _coco_box(path, annotation.get("bbox"), width, height)
                if box is None:
                    continue
            elif not mask.any():
                continue
            yield _Found(frame, category, None if track is None else str(track), box, mask)


def _coco_box(path: Path, bbox: Any, width: int, height: int) -> Box | None:
    """Within the picture; None if nothing of it is."""
    try:
        x, y, w, h = map(float, bbox)
    except (TypeError, ValueError) as e:
        raise BadInput(f"--seed {path}: an annotation has neither segmentation nor bbox of four numbers") from e
    return _clipped(x, y, x + w, y + h, width, height)


def _segmentation(segmentation: Any, height: int, width: int) -> Mask | None:
    """HxW bool of polygons or run lengths; None if there is none."""
    if not segmentation:
        return None
    from pycocotools import mask as coco

    try:
        if isinstance(segmentation, list):
            rle = coco.merge(coco.frPyObjects(segmentation, height, width))
        elif isinstance(segmentation["counts"], list):
            rle = coco.frPyObjects(segmentation, height, width)
        else:
            rle = segmentation
        return np.asarray(coco.decode(rle), bool)
    except (TypeError, ValueError, KeyError) as e:
        raise BadInput(f"--seed: a segmentation cannot be read: {e}") from e


# ---- YOLO


def _yolo(files: list[Path], vocabulary: Vocabulary, width: int, height: int) -> Iterator[_Found]:
    names = _yolo_names(files[0].parent, vocabulary)
    for path in files:
        if path.name == "classes.txt":
            continue
        frame = _frame_of(path, path.name)
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if not line.strip():
                continue
            try:
                values = [float(v) for v in line.split()]
                place = int(values[0])
                category = names[place]
            except (ValueError, IndexError) as e:
                raise BadInput(
                    f"--seed {path}, line {number}: {line!r:.60} is not CLASS X Y WIDTH HEIGHT or CLASS X Y X Y X Y "
                    f"..., with a class from 0 to {len(names) - 1}"
                ) from e
            if len(values) in (5, 6):
                x, y, w, h = (v * s for v, s in zip(values[1:5], (width, height, width, height), strict=True))
                box = _clipped(x - w / 2, y - h / 2, x + w / 2, y + h / 2, width, height)
                if box is not None:
                    yield _Found(frame, category, None, box, None)
            elif len(values) >= 7 and len(values) % 2:
                corners = np.array(values[1:]).reshape(-1, 2) * (width, height)
                mask = np.zeros((height, width), np.uint8)
                cv2.fillPoly(mask, [np.round(corners).astype(np.int32)], 1)
                if mask.any():
                    yield _Found(frame, category, None, None, mask.astype(bool))
            else:
                raise BadInput(f"--seed {path}, line {number}: {len(values)} numbers are neither a box nor a polygon")


def _yolo_names(folder: Path, vocabulary: Vocabulary) -> list[str]:
    """What the numbers mean: classes.txt beside or above the files, else the project's classes in their order."""
    for path in (folder / "classes.txt", folder.parent / "classes.txt"):
        if path.is_file():
            return [line.strip() for line in path.read_text().splitlines() if line.strip()]
    return list(vocabulary.categories)


# ---- DAVIS


def _davis(files: list[Path], vocabulary: Vocabulary, width: int, height: int) -> Iterator[_Found]:
    objects = {i.object_id: i for i in vocabulary}
    for path in files:
        values, is_binary = read_id_map(path, "--seed")
        ids = (values > 0).astype(np.uint8) if is_binary else values
        if ids.shape != (height, width):
            raise BadInput(f"--seed {path} is {ids.shape[1]}x{ids.shape[0]}, the video is {width}x{height}")
        for value in (int(v) for v in np.unique(ids) if v not in (0, _VOID)):
            if value not in objects:
                raise BadInput(f"--seed {path}: the mask has object {value}, the project has {len(objects)} labels")
            frame, mask = _frame_of(path, path.name), ids == value
            yield _Found(frame, objects[value].category, None, None, mask, objects[value])


# ---- what they share


def _frame_of(path: Path, name: str) -> int:
    numbers = _NUMBER.findall(Path(name).stem)
    if not numbers:
        raise BadInput(f"--seed {path}: the name {name!r} has no frame number, as street_00012 has")
    return int(numbers[-1])


def _clipped(left: float, top: float, right: float, bottom: float, width: int, height: int) -> Box | None:
    box = Box(max(left, 0.0), max(top, 0.0), min(right, float(width)), min(bottom, float(height)))
    return box if box.left < box.right and box.top < box.bottom else None
