"""Step 2: masks on some frames become masks on the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tam_backend.prompts import Mask
from tam_backend.video.base import Reader

SoftMask = npt.NDArray[np.uint8]

#: A soft mask value from here on means "object".
SOFT_THRESHOLD = 128


@dataclass(frozen=True, slots=True, eq=False)
class Propagated:
    """soft: HxW uint8, round(255 x probability of the object); quality: in [0, 1], how far to trust it."""

    soft: SoftMask
    quality: float


class Propagation(Protocol):
    """One object on its way through a video in one direction."""

    def step(self, frame: int) -> Propagated:
        """Move on to ``frame``, which is the last frame + 1, always, or - 1, always."""

    def state(self) -> Mapping[str, npt.NDArray[Any]]:
        """What is carried from frame to frame, as plain arrays: enough for ``begin(..., state=...)`` to go on with
        results that are equal, bit for bit, to those of a run that was never interrupted."""


class Propagator(Protocol):
    """state_every: a propagation's state is stored every so many frames, which a killed process repeats at most. A
    large state of a quick propagator is worth storing less often."""

    name: str
    state_every: int

    def begin(
        self,
        video: Reader,
        anchors: Mapping[int, Mask],
        start: int,
        state: Mapping[str, npt.NDArray[Any]] | None = None,
    ) -> Propagation:
        """Begin at frame ``start``.

        anchors: frame -> HxW bool mask; the frames a person decided that bound the span being computed (one, or two
        when the span lies between two of them). ``start`` is one of them, unless ``state`` is given: then ``start`` is
        the frame after which that state was taken. An anchor may be all False: the object is not there.
        The reader belongs to the caller, who does not read from it while ``step`` runs.
        """
