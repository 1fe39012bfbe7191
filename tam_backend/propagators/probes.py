"""Places of memory that are trusted, and what they become on another frame (step 3).

A *probe* is a place in memory of which it is known whether it is on the object: the inside of a mask that a person
confirmed, say, or background next to it. Through the affinities of a frame it becomes a point on that frame.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from tam_backend.prompts import Mask
from tam_backend.propagators.base import Propagated
from tam_backend.video.base import Reader

Points = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Projected:
    """A probe as a frame sees it.

    x, y: where its affinity is, in pixels of the frame as it is shown (see ``Click``). positive: the probe is on the
    object. concentration: in [0, 1], the share of its affinity that lies close to (x, y). source: the frame of memory
    that it comes from.
    """

    x: float
    y: float
    positive: bool
    concentration: float
    source: int


class Review(Protocol):
    """Asked by a propagation about a frame's mask before the mask enters memory."""

    def __call__(self, seen: Propagated, project: Callable[[], Sequence[Projected]]) -> Propagated | None:
        """seen: the mask as it was propagated. project: computes the probes on this frame, which costs time.

        Returns what takes the place of ``seen``, in the result and in memory; None: everything stays as it is.
        """


class ReviewedPropagation(Protocol):
    """A ``Propagation`` that asks before a mask enters memory, and that knows of shots."""

    def step(self, frame: int, review: Review | None = None) -> Propagated:
        """See ``Propagation.step``. Without a review, or if it returns None, everything is as without it, bit for bit.

        A review that is given on the first step is given on all.
        """

    def state(self) -> Mapping[str, npt.NDArray[Any]]: ...

    def cut(self) -> None:
        """The next step leads into another shot: what is carried from one frame to the next ends here, memory stays."""


@runtime_checkable
class ReviewedPropagator(Protocol):
    """A ``Propagator`` of such propagations. reviewable: always true."""

    name: str
    state_every: int
    reviewable: bool

    def begin(
        self,
        video: Reader,
        anchors: Mapping[int, Mask],
        start: int,
        state: Mapping[str, npt.NDArray[Any]] | None = None,
    ) -> ReviewedPropagation: ...


def spread(points: Points, count: int, taken: Points | None = None) -> npt.NDArray[np.int64]:
    """Numbers of ``count`` of the Nx2 points (all, if there are fewer), far from each other: farthest-point sampling.

    Each is the one farthest from those before it (Gonzalez, "Clustering to minimize the maximum intercluster distance",
    1985) and from the Mx2 points ``taken``. Without any of those, the first is the one nearest to the mean. Of equals,
    the first in order.
    """
    if count <= 0 or not len(points):
        return np.zeros(0, np.int64)
    x, y = np.ascontiguousarray(points.T)

    def squared(place: Points) -> npt.NDArray[np.float32]:
        """N squared distances to one place."""
        return np.asarray((x - place[0]) ** 2 + (y - place[1]) ** 2)

    if taken is not None and len(taken):
        chosen: list[int] = []
        distance = np.min([squared(place) for place in taken], axis=0)
    else:
        chosen = [int(np.argmin(squared(points.mean(axis=0))))]
        distance = squared(points[chosen[0]])
    while len(chosen) < min(count, len(points)):
        chosen.append(int(np.argmax(distance)))
        distance = np.minimum(distance, squared(points[chosen[-1]]))
    return np.array(chosen, np.int64)
