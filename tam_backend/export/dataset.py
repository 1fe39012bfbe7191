"""A data set as everything here sees it: videos, tracks with a class and an id, masks frame by frame.

Masks are made when they are asked for, one frame at a time, so that a long video takes no more memory than a short one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import numpy as np

from tam_backend.prompts import Mask
from tam_backend.tracking.objects import IdMap
from tam_backend.video.base import Frame

#: Pictures of a video by frame number.
Pictures = Callable[[int], Frame]


@dataclass(frozen=True, slots=True)
class Track:
    """An object of a video. id: 1 to 255, the same on all clips and videos of a data set; it is the pixel value in
    formats with one id for each pixel. label: its label in Label Studio. category: the class, such as ``Person`` of
    ``Person 2``."""

    id: int
    label: str
    category: str


@dataclass(frozen=True, slots=True, eq=False)
class MaskedFrame:
    """What is known of one frame.

    frame: number in the original video, from 0. masks: track id -> HxW bool, without empty ones. by_hand: the tracks
    that a person decided here: drew, changed, or clicked. qualities: track id -> estimated IoU, where it is known.
    """

    frame: int
    masks: Mapping[int, Mask]
    by_hand: frozenset[int] = frozenset()
    qualities: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Video:
    """The annotated part of a video.

    name: safe as a file name, and the only one of its kind in the data set. frames: the numbers, in the original
    video, of the frames that were worked on, ascending, whether they show an object or not. tracks: the objects that
    may occur. read: yields all frames in order, from the beginning each time it is called. pictures: opens the
    pictures of the frames; None where there are none. length: frames of the original video, 0 if that is not known.
    address: where Label Studio has the video, "" if nowhere.
    """

    name: str
    height: int
    width: int
    frames: Sequence[int]
    tracks: tuple[Track, ...]
    read: Callable[[], Iterator[MaskedFrame]]
    pictures: Callable[[], AbstractContextManager[Pictures]] | None = None
    fps: float = 24.0
    length: int = 0
    address: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Videos whose tracks are named alike. origin: where it comes from, in words for people."""

    videos: tuple[Video, ...]
    tracks: tuple[Track, ...]
    origin: str = ""

    @property
    def categories(self) -> dict[str, int]:
        """Class -> its number from 1, in the order in which the labels are listed."""
        return {name: i for i, name in enumerate(dict.fromkeys(t.category for t in self.tracks), 1)}


def flatten(masked: MaskedFrame, height: int, width: int) -> tuple[IdMap, int]:
    """(HxW uint8 ids with 0 for the background, number of pixels that more than one track claims).

    A mask made by hand has such a pixel before one that was tracked; among equals the smaller id has it.
    """
    ids = np.zeros((height, width), np.uint8)
    claims = np.zeros((height, width), np.uint8)
    for track in sorted(masked.masks, key=lambda t: (t in masked.by_hand, -t)):
        ids[masked.masks[track]] = track
        claims += masked.masks[track]
    return ids, int(np.count_nonzero(claims > 1))


def split_ids(ids: IdMap, ignored: Collection[int] = (0,)) -> dict[int, Mask]:
    """Track id -> HxW bool of an image of ids. ignored: values that are no track."""
    present = np.flatnonzero(np.bincount(ids.ravel(), minlength=256))
    return {int(i): np.asarray(ids == i) for i in present if int(i) not in ignored}


def bounding_box(mask: Mask) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) in pixels, right and bottom exclusive, of a mask that is not empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def distinct(names: Iterable[str]) -> list[str]:
    """The names, with a number behind those that were there before, also in other letters' case: file systems may not
    tell them apart."""
    found: list[str] = []
    for base in names:
        name, number = base, 2
        while name.lower() in {n.lower() for n in found}:
            name, number = f"{base}-{number}", number + 1
        found.append(name)
    return found
