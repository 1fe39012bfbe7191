"""Tracking through cuts: memory goes on, what is carried from frame to frame does not, and somebody should look."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tam_backend.features.shots import Shots
from tam_backend.prompts import Mask
from tam_backend.propagators.base import Propagated, Propagation, Propagator
from tam_backend.video.base import Reader

#: Each cut between a frame and the one a person decided leaves this share of the quality: less than 0.75, below which
#: a frame needs a look.
CUT_QUALITY = 0.7

_CROSSED = "shots.crossed"


class ShotPropagator:
    """A propagator that is told where it crosses a cut (if it wants to know: it has ``cut``)."""

    def __init__(self, propagator: Propagator, shots: Shots) -> None:
        self.name, self.state_every = propagator.name, propagator.state_every
        self._propagator, self._shots = propagator, shots

    def begin(
        self,
        video: Reader,
        anchors: Mapping[int, Mask],
        start: int,
        state: Mapping[str, npt.NDArray[Any]] | None = None,
    ) -> ShotPropagation:
        inner = self._propagator.begin(video, anchors, start, state)
        crossed = 0 if state is None else int(state[_CROSSED])
        return ShotPropagation(inner, self._shots, video, start, crossed)


class ShotPropagation:
    """crossed: cuts between the anchor that this began at and the last frame."""

    def __init__(self, inner: Propagation, shots: Shots, video: Reader, start: int, crossed: int) -> None:
        self._inner, self._shots, self._video, self._last = inner, shots, video, start
        self.crossed = crossed

    def step(self, frame: int) -> Propagated:
        if self._shots.cut(self._video, self._last, frame):
            self.crossed += 1
            cut = getattr(self._inner, "cut", None)
            if cut is not None:
                cut()
        result = self._inner.step(frame)
        self._last = frame
        return replace(result, quality=result.quality * CUT_QUALITY**self.crossed) if self.crossed else result

    def state(self) -> Mapping[str, npt.NDArray[Any]]:
        return {**self._inner.state(), _CROSSED: np.array(self.crossed, np.int64)}
