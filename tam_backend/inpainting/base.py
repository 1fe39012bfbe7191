"""What fills holes in a video, whichever engine it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tam_backend.inpainting.holes import Holes
from tam_backend.tracking.store import BlobStore
from tam_backend.video.base import Frame, Reader

#: Colours of the pixels of a hole, in the order of ``frame[hole]``: Nx3 uint8 RGB.
Colours = npt.NDArray[np.uint8]


class Filling(Protocol):
    """The filling of one video's holes. What is finished is in the store: another filling of the same goes on there."""

    @property
    def total(self) -> int:
        """How many steps there are."""

    def steps(self) -> Iterator[int]:
        """Do what is not done yet, frame by frame; gives how many steps are finished."""

    def colours(self, frame: int) -> Colours:
        """Of a finished frame."""

    def unseen(self, frame: int) -> int | None:
        """Pixels of a finished frame's hole that no frame shows; None: the engine does not know."""


class Inpainter(Protocol):
    """name and version: together they change whenever the same holes may be filled otherwise.

    terms: what its licence demands of those who use its output, in a sentence; empty: nothing.
    """

    name: str
    version: str
    terms: str

    def begin(self, video: Reader, holes: Holes, frames: range, store: BlobStore) -> Filling: ...


def filled(video: Reader, holes: Holes, filling: Filling, frame: int) -> Frame:
    """HxWx3 uint8 RGB: a finished frame; outside its hole it is the video's own."""
    picture, hole = video[frame], holes.hole(frame)
    if hole.any():
        picture = picture.copy()
        picture[hole] = filling.colours(frame)
    return picture
