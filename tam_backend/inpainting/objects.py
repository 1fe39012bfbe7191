"""What is taken out, and what stays: masks of objects by frame, and the holes that they leave."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tam_backend.errors import BadInput
from tam_backend.inpainting.base import Filling
from tam_backend.inpainting.holes import grow
from tam_backend.prompts import Mask
from tam_backend.tracking.objects import MAX_ID

Ids = npt.NDArray[np.uint8]

#: Pixels by which masks grow where nothing is said, and at most.
DILATE, MAX_DILATE = 6, 200


class Masks(Protocol):
    """Masks of numbered objects by frame.

    title: for messages. names: object id -> what people call it, where there are names.
    """

    title: str
    names: Mapping[int, str]

    def missing(self, frames: range) -> list[int]:
        """The frames of these of which nothing is said. Raises BadInput if the masks are for something else."""

    def read(self, frame: int) -> Ids:
        """HxW uint8: the object of each pixel, 0 for none. Raises BadInput if it cannot be read or has another size."""


@dataclass(frozen=True, slots=True)
class Report:
    """What the masks say. pixels: frame -> pixels of its hole, after growing. total: pixels of a frame."""

    pixels: Mapping[int, int]
    total: int

    @property
    def with_hole(self) -> list[int]:
        return [f for f, n in self.pixels.items() if n]

    @property
    def covered(self) -> list[int]:
        """Frames without a pixel that is not to be filled."""
        return [f for f, n in self.pixels.items() if n == self.total]

    def summary(self, filling: Filling) -> Summary:
        """How much of a finished filling is invented."""
        unseen = {f: n for f in self.with_hole if (n := filling.unseen(f)) is not None}
        worst = max(unseen, key=lambda f: unseen[f] / self.pixels[f], default=None)
        return Summary(
            frames=len(self.pixels),
            with_hole=len(self.with_hole),
            invented=sum(unseen.values()) / sum(self.pixels.values()) if unseen else None,
            worst=worst,
            worst_invented=None if worst is None else unseen[worst] / self.pixels[worst],
            covered=[self.covered[0], len(self.covered)] if self.covered else [],
        )


@dataclass(frozen=True, slots=True)
class Summary:
    """Of one result. invented: share of the holes' pixels that no frame shows, None if the engine does not know; most
    of them on the frame ``worst``. covered: first frame that is all hole, and how many there are; empty if none is."""

    frames: int
    with_hole: int
    invented: float | None
    worst: int | None
    worst_invented: float | None
    covered: Sequence[int]

    def sentences(self) -> str:
        text = ""
        if self.invented is not None:
            text = f"\nNever seen on any frame, and so invented: {100 * self.invented:.1f} % of the holes"
            if self.invented and self.worst_invented is not None:
                text += f"; most on frame {self.worst}, {100 * self.worst_invented:.0f} %"
            text += "."
        if self.covered:
            text += f"\nOn {self.covered[1]} frames the mask covers everything (first: {self.covered[0]})."
        return text


class ObjectHoles:
    """The holes that objects leave (see ``inpainting.holes.Holes``); the other objects are no background."""

    def __init__(self, masks: Masks, frames: range, objects: Iterable[int], dilate: int) -> None:
        """objects: those to take out; none: all. dilate: pixels by which their masks grow.

        Reads all masks once. Raises BadInput if a mask is missing or cannot be used, if there is nothing to take out,
        or if nothing is left of any frame.
        """
        self._masks, self._frames, self._dilate = masks, frames, dilate
        self._objects = frozenset(objects)
        missing = masks.missing(frames)
        if missing:
            raise BadInput(_say_missing(masks, frames, missing))
        self._cached = lru_cache(maxsize=4)(self._of_frame)
        digest = hashlib.sha256(repr((sorted(self._objects), dilate)).encode())
        found: set[int] = set()
        pixels: dict[int, int] = {}
        total = 0
        for frame in frames:
            ids = masks.read(frame)
            total, self._shape = ids.size, ids.shape
            digest.update(np.packbits(self._selected(ids)).tobytes())
            found.update(np.flatnonzero(np.bincount(ids.ravel(), minlength=256)[1:]) + 1)
            digest.update(np.packbits((ids > 0) & ~self._selected(ids)).tobytes())
            pixels[frame] = int(np.count_nonzero(self._split(ids)[0]))
        self.key = digest.hexdigest()
        self.report = Report(pixels, total)
        self._check(found, frames)

    def hole(self, frame: int) -> Mask:
        return self._cached(frame)[0]

    def avoid(self, frame: int) -> Mask | None:
        return self._cached(frame)[1]

    def _of_frame(self, frame: int) -> tuple[Mask, Mask | None]:
        if frame not in self._frames:  # engines look at the frames beside theirs: of those nothing needs to be known
            return np.zeros(self._shape, np.bool_), None
        return self._split(self._masks.read(frame))

    def _split(self, ids: Ids) -> tuple[Mask, Mask | None]:
        selected = self._selected(ids)
        hole = grow(selected, self._dilate) if selected.any() else selected
        others = (ids > 0) & ~selected
        return hole, grow(others, self._dilate) & ~hole if others.any() else None

    def _selected(self, ids: Ids) -> Mask:
        return np.isin(ids, list(self._objects)) if self._objects else ids > 0

    def _check(self, found: set[int], frames: range) -> None:
        where = f"on frames {frames.start} to {frames[-1]}"
        if unknown := sorted(self._objects - found):
            known = ", ".join(f"{i} ({n})" if (n := self._masks.names.get(i)) else str(i) for i in sorted(found))
            raise BadInput(
                f"--object {unknown[0]}: {self._masks.title} has no pixel of it {where}; "
                + (f"the objects there are {known}" if known else "its masks are empty")
            )
        if not found:
            raise BadInput(f"the masks of {self._masks.title} are empty {where}: there is nothing to take out")
        if len(self.report.covered) == len(frames):
            raise BadInput(
                f"the masks of {self._masks.title} cover every frame whole: nothing is left to fill them from"
            )


def choose_objects(given: Iterable[object], masks: Masks) -> list[int]:
    """Numbers of the objects that are named by number or label. Raises BadInput for what can be neither."""
    numbers = {name: i for i, name in masks.names.items()}
    result = []
    for one in given:
        text = str(one)
        if text in numbers:
            result.append(numbers[text])
        elif text.isdecimal() and 1 <= int(text) <= MAX_ID:
            result.append(int(text))
        else:
            known = f"; the labels there are {', '.join(numbers)}" if numbers else ""
            raise BadInput(f"--object {text}: an object is a number from 1 to {MAX_ID}{known}")
    return result


def choose_frames(start: int | None, end: int | None, usual: range, length: int) -> range:
    """usual: the frames to work on where nothing is said. length: of the video. Raises BadInput."""
    first = usual[0] if start is None else start
    last = usual[-1] if end is None else end
    for option, frame in (("--start", first), ("--end", last)):
        if not 0 <= frame < length:
            raise BadInput(f"{option} {frame}: there is no such frame, the video has frames 0 to {length - 1}")
    if first > last:
        raise BadInput(f"--start {first} is after --end {last}")
    return range(first, last + 1)


def _say_missing(masks: Masks, frames: range, missing: list[int]) -> str:
    text = f"{masks.title} has no mask for {len(missing)} of the {len(frames)} frames; the first is frame {missing[0]}"
    stretch = max(_stretches(f for f in frames if f not in set(missing)), key=len, default=None)
    if stretch is None:
        return text + ". It says nothing of these frames at all"
    return text + f". To work on those that have one: --start {stretch[0]} --end {stretch[-1]}"


def _stretches(numbers: Iterable[int]) -> Iterator[list[int]]:
    """Consecutive numbers together."""
    stretch: list[int] = []
    for number in numbers:
        if stretch and number != stretch[-1] + 1:
            yield stretch
            stretch = []
        stretch.append(number)
    if stretch:
        yield stretch
