"""The masks of ``tam inpaint``: where they come from, and the holes that they make."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from tam_backend.commands.track_prompts import read_id_map
from tam_backend.errors import BadInput
from tam_backend.inpainting.holes import grow
from tam_backend.prompts import Mask
from tam_backend.video.base import Reader

Ids = npt.NDArray[np.uint8]

_NUMBER = re.compile(r"\d+", re.ASCII)


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


class MaskFolder:
    """A folder of PNG files: those of ``tam track``, or any whose names end in the number of their frame."""

    names: Mapping[int, str] = {}

    def __init__(self, folder: Path, video: Reader) -> None:
        """Raises BadInput if there are no masks, or if ``tam track`` made them for another video."""
        self.title, self._folder, self._video = str(folder), folder, video
        self._files: dict[int, Path] = {}
        for path in sorted(folder.iterdir()):
            numbers = _NUMBER.findall(path.stem)
            if path.suffix.lower() == ".png" and numbers and not path.name.startswith("."):
                frame = int(numbers[-1])
                if frame in self._files:
                    both = f"{self._files[frame].name} and {path.name}"
                    raise BadInput(f"{folder} has two masks for frame {frame}: {both}")
                self._files[frame] = path
        if not self._files:
            raise BadInput(f"{folder} has no masks: PNG files named by the number of their frame, such as 00000.png")
        self._refuse_foreign()

    def _refuse_foreign(self) -> None:
        try:
            run = json.loads((self._folder / ".tam" / "run.json").read_bytes())
        except (OSError, ValueError):
            return
        if isinstance(run, dict) and run.get("video") not in (None, self._video.key):
            raise BadInput(f"the masks in {self._folder} were made for another video, {run.get('name')}")

    def missing(self, frames: range) -> list[int]:
        beyond = [f for f in self._files if f >= len(self._video)]
        if beyond:
            raise BadInput(
                f"{self._folder} has a mask for frame {beyond[0]} ({self._files[beyond[0]].name}), but the video has "
                f"frames 0 to {len(self._video) - 1}: these are the masks of another video, or numbered from 1"
            )
        for frame in frames:
            if frame in self._files:
                self._check_size(self._files[frame])
        return [f for f in frames if f not in self._files]

    def _check_size(self, path: Path) -> None:
        try:
            with Image.open(path, formats=["PNG"]) as image:
                width, height = image.size
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            return  # reading it says what is wrong
        if (width, height) != (self._video.width, self._video.height):
            raise BadInput(
                f"the mask {path} is {width}x{height} pixels, the video {self._video.width}x{self._video.height}"
            )

    def read(self, frame: int) -> Ids:
        path = self._files[frame]
        values, is_binary = read_id_map(path, f"the mask of frame {frame}")
        self._check_size(path)
        return (values > 0).astype(np.uint8) if is_binary else values


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


class ObjectHoles:
    """The holes that objects leave (see ``inpainting.holes.Holes``); the other objects are no background."""

    def __init__(self, masks: Masks, frames: range, objects: Iterable[int], dilate: int) -> None:
        """objects: those to take out; none: all. dilate: pixels by which their masks grow.

        Reads all masks once. Raises BadInput if a mask is missing or cannot be used, if there is nothing to take out,
        or if nothing is left of any frame.
        """
        self._masks, self._dilate = masks, dilate
        self._objects = frozenset(objects)
        missing = masks.missing(frames)
        if missing:
            raise BadInput(_say_missing(masks, frames, missing))
        self._cached = lru_cache(maxsize=4)(self._split)
        digest = hashlib.sha256(repr((sorted(self._objects), dilate)).encode())
        found: set[int] = set()
        pixels: dict[int, int] = {}
        total = 0
        for frame in frames:
            ids = masks.read(frame)
            total = ids.size
            digest.update(np.packbits(self._selected(ids)).tobytes())
            found.update(np.flatnonzero(np.bincount(ids.ravel(), minlength=256)[1:]) + 1)
            digest.update(np.packbits((ids > 0) & ~self._selected(ids)).tobytes())
            pixels[frame] = int(np.count_nonzero(self._split(ids_of=ids)[0]))
        self.key = digest.hexdigest()
        self.report = Report(pixels, total)
        self._check(found, frames)

    def hole(self, frame: int) -> Mask:
        return self._cached(frame)[0]

    def avoid(self, frame: int) -> Mask | None:
        return self._cached(frame)[1]

    def _split(self, frame: int = -1, ids_of: Ids | None = None) -> tuple[Mask, Mask | None]:
        ids = self._masks.read(frame) if ids_of is None else ids_of
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
