"""A sequence with its true masks: its objects, where each of them is given, and on which frames it is scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from tam_backend.errors import BadInput, MediaError
from tam_backend.evaluation.layouts import SequencePaths
from tam_backend.prompts import Mask
from tam_backend.video.images import ImageReader, images_in, open_images

IdMap = npt.NDArray[np.uint8]

#: Pixels of this value belong to no object and are not scored.
VOID = 255
#: Decoded masks that are kept at hand, for all sequences of a process.
_KEPT_MASKS = 128


class BrokenSequence(BadInput):
    """A sequence of a data set that cannot be used. The text says why."""


@dataclass(frozen=True, slots=True, eq=False)
class Sequence:
    """Frames with true masks on all of them or on some.

    stems: names of the frames without their ending. annotations: frame -> file of its true mask, in order.
    first: object -> the frame on which it is first seen in an annotation, where it is given. merged: all objects count
    as object 1. white: the masks are black and white, and white is object 1, not void.
    """

    name: str
    frames: tuple[Path, ...]
    stems: tuple[str, ...]
    height: int
    width: int
    annotations: Mapping[int, Path]
    first: Mapping[int, int]
    merged: bool
    white: bool

    @property
    def objects(self) -> list[int]:
        return sorted(self.first)

    def open(self) -> ImageReader:
        return open_images(self.frames)

    def truth(self, frame: int) -> IdMap:
        """HxW uint8, not to be written to: object ids, 0 for the background, 255 for void. KeyError: not annotated."""
        path = self.annotations[frame]
        return _read_ids(path, path.stat().st_mtime_ns, self.merged, self.white)

    def mask(self, frame: int, object_id: int) -> Mask:
        return np.asarray(self.truth(frame) == object_id)

    def void(self, frame: int) -> Mask | None:
        """HxW bool, or None where no pixel is void."""
        void = self.truth(frame) == VOID
        return void if void.any() else None

    def scored(self, object_id: int) -> list[int]:
        """The frames that count for an object: annotated, after the one on which it is given, without the last.

        This is what the semi-supervised evaluation of DAVIS leaves out, where every object is given on frame 0.
        """
        return [f for f in list(self.annotations)[:-1] if f > self.first[object_id]]


def load_sequence(paths: SequencePaths, *, merge: bool = False) -> Sequence:
    """Read what a sequence consists of and check it.

    merge: all objects count as one, as in DAVIS 2016. So they do in any case where the masks are black and white.
    Raises BrokenSequence.
    """
    name = paths.name
    frames = _frames(paths)
    stems = tuple(p.stem for p in frames)
    try:
        with open_images(frames) as video:
            height, width = video.height, video.width
    except MediaError as e:
        raise BrokenSequence(f"{name}: {e}") from e
    annotations = _annotations(paths, stems)
    values: dict[int, set[int]] = {}
    for frame, path in annotations.items():
        ids = _checked_ids(name, path, height, width)
        values[frame] = {int(v) for v in np.flatnonzero(np.bincount(ids.ravel(), minlength=256)) if v}
    seen = set().union(*values.values())
    white = seen == {VOID}
    first: dict[int, int] = {}
    for frame, present in values.items():
        objects = present if white else present - {VOID}
        for object_id in {1} if objects and (merge or white) else objects:
            first.setdefault(object_id, frame)
    if not first:
        raise BrokenSequence(f"{name}: no mask has an object in it ({paths.masks})")
    sequence = Sequence(name, tuple(frames), stems, height, width, annotations, first, merge, white)
    if not any(sequence.scored(i) for i in first):
        raise BrokenSequence(
            f"{name}: no frame is left to score; an object is given on its first annotated frame, the last annotated "
            f"frame does not count, and {len(annotations)} are annotated"
        )
    return sequence


def _frames(paths: SequencePaths) -> list[Path]:
    if not paths.frames.is_dir():
        raise BrokenSequence(f"{paths.name}: there is no folder of frames {paths.frames}")
    frames = images_in(paths.frames)
    if paths.frames == paths.masks:
        frames = [p for p in frames if p.suffix.lower() != ".png"]
    if not frames:
        raise BrokenSequence(f"{paths.name}: there are no frames in {paths.frames}")
    stems = [p.stem for p in frames]
    if len(set(stems)) < len(stems):
        twice = next(s for s in stems if stems.count(s) > 1)
        raise BrokenSequence(f"{paths.name}: two frames are called {twice} in {paths.frames}")
    return frames


def _annotations(paths: SequencePaths, stems: tuple[str, ...]) -> dict[int, Path]:
    """Frame -> mask. Masks go with frames by name."""
    files = sorted(paths.masks.glob("*.png")) if paths.masks.is_dir() else []
    if not files:
        raise BrokenSequence(f"{paths.name}: there are no masks (*.png) in {paths.masks}")
    index = {stem: i for i, stem in enumerate(stems)}
    unmatched = [p.name for p in files if p.stem not in index]
    if unmatched:
        raise BrokenSequence(
            f"{paths.name}: {len(unmatched)} of {len(files)} masks have no frame of the same name, "
            f"such as {unmatched[0]}"
        )
    return dict(sorted((index[p.stem], p) for p in files))


def _checked_ids(name: str, path: Path, height: int, width: int) -> IdMap:
    try:
        ids = _decode(path)
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError) as e:  # PIL: SyntaxError for a broken PNG
        raise BrokenSequence(f"{name}: the mask {path.name} cannot be read: {e}") from e
    if ids.shape != (height, width):
        raise BrokenSequence(
            f"{name}: the mask {path.name} is {ids.shape[1]}x{ids.shape[0]}, the frames are {width}x{height}"
        )
    return ids


def _decode(path: Path) -> IdMap:
    """Pixel values of an indexed, grey or black and white PNG; ValueError for one in colours."""
    with Image.open(path) as image:
        if image.mode in ("P", "L"):
            return np.array(image)
        if image.mode == "1":
            return np.array(image).astype(np.uint8) * np.uint8(VOID)
        bands = [np.array(band) for band in image.convert("RGB").split()]
    if any((band != bands[0]).any() for band in bands):
        raise ValueError("it is in colours; a mask must be an indexed, grey or black and white PNG")
    return bands[0]


@lru_cache(_KEPT_MASKS)
def _read_ids(path: Path, written: int, merged: bool, white: bool) -> IdMap:
    """written: when the file was, so that a file written anew is read anew."""
    ids = _decode(path)
    if white:
        ids = (ids == VOID).astype(np.uint8)
    elif merged:
        ids = np.where((ids > 0) & (ids != VOID), np.uint8(1), ids)
    ids.setflags(write=False)
    return ids
