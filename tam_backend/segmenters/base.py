"""Step 1: prompts on one frame become a mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from tam_backend.prompts import Click, FramePrompts, Mask
from tam_backend.video.base import Reader

#: A soft mask value from here on means "object".
SOFT_THRESHOLD = 128


@dataclass(frozen=True, slots=True, eq=False)
class Segmentation:
    """mask: HxW bool. score: in [0, 1], how far the segmenter trusts it."""

    mask: Mask
    score: float


class Segmenter(Protocol):
    name: str

    def segment(self, video: Reader, frame: int, prompts: FramePrompts, prior: Mask | None = None) -> Segmentation:
        """Segment the object on ``video[frame]`` from clicks and box (``prompts.locates`` is true).

        prior: HxW bool, the mask that the clicks correct. Where all clicks agree with it, its outline is to be drawn
        anew. It is a hint, and the result need not resemble it.

        A mask in the prompts is returned as it is. (``refine`` is the business of ``segment_with_prior``.)

        The video comes along, not just the image, because a segmenter may look at neighbouring frames (motion).
        Every positive click is inside the mask, every negative one outside. Raises BadInput when the prompts do not
        fit on the frame. Deterministic: the same prompts on the same frame give the same mask.
        """


@dataclass(frozen=True, slots=True, eq=False)
class Refined:
    """mask: HxW bool; soft: HxW uint8, 255 x probability, from 128 on inside the mask. score: in [0, 1], the
    segmenter's own guess at the intersection over union with the right mask. stability: in [0, 1], how little the mask
    changes with the threshold: intersection over union of a strict and a generous one."""

    mask: Mask
    soft: npt.NDArray[np.uint8]
    score: float
    stability: float


@runtime_checkable
class Refiner(Protocol):
    """A segmenter that can also cut a propagated mask anew (step 3)."""

    def refine(self, video: Reader, frame: int, points: Sequence[Click], logits: npt.NDArray[np.float32]) -> Refined:
        """The object on ``video[frame]``, from points on it and off it (one of each at least) and the propagated mask.

        logits: HxW float32, log odds of the object. All points are hints: the mask need not agree with each of them.
        Deterministic.
        """
