"""Looks over the shoulder of a propagation: from the mask, colours and flow of a frame to what speaks against the mask.

It asks nothing of how the masks are made, so it stays as it is when that changes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tam_backend.features.filters import window
from tam_backend.quality import parts
from tam_backend.quality.parts import INSIDE, Array, Lab, Looks, Region, Soft

#: Width of the surroundings that a mask is compared with: this share of the root of its area, pixels, at least so many.
RING_SHARE, RING_LEAST = 0.15, 3

#: What is looked at. Each is 0 or more; larger speaks against the mask.
#: steps: 1 - 1 / root of the frames since the anchor, because masks lose most right after it. way: how far the object
#: has moved relative to its surroundings since then, in its own sizes, logarithm.
#: shrunk: its smallest area since then under that on the anchors. lost: frames on which it had no mask since then.
#: doubt: flow there and back disagrees. entropy: the probability is undecided. edge: thin, or ragged. frayed: more so
#: than on the anchors. strange: it has lost the object's colours. leaking: what is around it has the object's colours.
PARTS = ("steps", "way", "shrunk", "lost", "doubt", "entropy", "edge", "frayed", "strange", "leaking")


@dataclass(slots=True)
class _Way:
    """What has happened since the anchor: sums over the frames, and the largest log(area on the anchors / area)."""

    steps: float = 0.0
    way: float = 0.0
    shrunk: float = 0.0
    lost: float = 0.0


class Watch:
    """Of one object in one direction.

    All images of a watch have one size h x w, which may be smaller than the video's: half of 854x480 does.
    """

    def __init__(self, anchors: Iterable[tuple[Soft, Lab]]) -> None:
        """anchors: soft mask, hxw uint8, and colours, hxwx3 uint8 Lab, of the frames that a person decided."""
        inside, around = (np.zeros(parts.COLOURS, np.float32) for _ in range(2))
        areas, edges, empty = [], [], 0
        for soft, lab in anchors:
            if not (mask := soft >= INSIDE).any():
                empty += 1
                continue
            view = _neighbourhood(mask)
            mask = mask[view]
            inside += parts.colour_shares(lab, parts.sample(mask, view))
            around += parts.colour_shares(lab, parts.sample(_ring(mask), view))
            areas.append(np.count_nonzero(mask))
            edges.append(parts.edge_share(mask))
        count = np.float32(max(1, len(areas)))
        #: Whether any anchor shows the object, and whether any says that it is not there.
        self.shown, self.absent = bool(areas), empty > 0
        self._looks = Looks.learn(inside / count, around / count)
        self._area = math.exp(float(np.mean(np.log(areas)))) if areas else 1.0
        self._edge = float(np.mean(edges)) if edges else 0.0
        self._way = _Way()

    def state(self) -> npt.NDArray[np.float64]:
        """What is carried from frame to frame, 4 float64."""
        return np.array(astuple(self._way), np.float64)

    def resume(self, state: npt.NDArray[Any]) -> None:
        """Go on from what ``state`` gave."""
        self._way = _Way(*(float(v) for v in state))

    def step(self, soft: Soft, lab: Lab, back: Array, there: Array) -> dict[str, float] | None:
        """What speaks against the mask of the next frame: a number for each of ``PARTS``. None for an empty mask.

        soft: hxw uint8, 255 x probability. lab: hxwx3 uint8. back, there: hxwx2 float32, flow from this frame to the
        last one and from the last one to this one, x and y in pixels of this size.
        """
        self._way.steps += 1
        mask = soft >= INSIDE
        if not mask.any():
            self._way.lost += 1
            return None
        view = _neighbourhood(mask)
        mask = mask[view]
        around = _ring(mask)
        own, others = (parts.sample(region, view) for region in (mask, around))
        area, edge = float(np.count_nonzero(mask)), parts.edge_share(mask)
        motion = parts.relative_motion(back, own, others)
        self._way.way += motion / math.sqrt(area)
        self._way.shrunk = max(self._way.shrunk, math.log(self._area / area))
        values = {
            "steps": 1 - self._way.steps**-0.5,
            "way": math.log1p(self._way.way),
            "shrunk": self._way.shrunk,
            "lost": math.log1p(self._way.lost),
            "doubt": parts.flow_doubt(back, there, own),
            "entropy": parts.entropy(soft[view], mask | around),
            "edge": math.log1p(100 * edge),
            "frayed": max(0.0, math.log((edge + 0.01) / (self._edge + 0.01))),
            "strange": max(0.0, self._looks.inside - self._looks.belief(parts.colour_shares(lab, own))),
            "leaking": max(0.0, self._looks.belief(parts.colour_shares(lab, others)) - self._looks.around),
        }
        assert tuple(values) == PARTS
        return values


def _neighbourhood(mask: Region) -> tuple[slice, slice]:
    """Where a mask that is not empty and its surroundings are."""
    return window(mask, _ring_width(mask) + 1)


def _ring(mask: Region) -> Region:
    return parts.ring(mask, _ring_width(mask))


def _ring_width(mask: Region) -> int:
    return max(RING_LEAST, round(RING_SHARE * math.sqrt(np.count_nonzero(mask))))
