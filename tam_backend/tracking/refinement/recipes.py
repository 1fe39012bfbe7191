"""How the segmenter is asked for a better mask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from tam_backend.prompts import Click, FramePrompts, Mask
from tam_backend.propagators.base import SOFT_THRESHOLD, SoftMask
from tam_backend.segmenters.base import Refined, Refiner, Segmenter
from tam_backend.video.base import Reader

Array = npt.NDArray[np.float32]

#: Log odds are cut off here; SAM's own logits are about so large.
SURE = 8.0
#: The second recipe clicks until the two masks have this intersection over union, at most so often.
SAME, CLICKS = 0.8, 8


class RefiningSegmenter(Segmenter, Refiner, Protocol):
    """A segmenter that can take part in step 3."""


def log_odds(soft: SoftMask) -> Array:
    """HxW uint8, 255 x probability -> HxW float32 logits, within +-SURE."""
    p = soft.astype(np.float32) / 255
    with np.errstate(divide="ignore"):
        return np.clip(np.log(p) - np.log1p(-p), -SURE, SURE).astype(np.float32)


def by_probes(
    segmenter: RefiningSegmenter, video: Reader, frame: int, soft: SoftMask, points: Sequence[Click]
) -> Refined:
    """The points, and the propagated mask as a mask prompt."""
    return segmenter.refine(video, frame, points, log_odds(soft))


def by_clicks(
    segmenter: RefiningSegmenter, video: Reader, frame: int, soft: SoftMask, points: Sequence[Click]
) -> Refined | None:
    """Clicks into the propagated mask until the segmenter has made nearly that mask, then the points with its own mask.

    None if it cannot be brought to make that mask.
    """
    goal = soft >= SOFT_THRESHOLD
    clicks: list[Click] = []
    mask = np.zeros_like(goal)
    while len(clicks) < CLICKS:
        click = _next_click(mask, goal)
        if click is None:
            return None
        clicks.append(click)
        mask = segmenter.segment(video, frame, FramePrompts(clicks=tuple(clicks))).mask
        if np.count_nonzero(mask & goal) >= SAME * np.count_nonzero(mask | goal):
            return segmenter.refine(video, frame, [*clicks, *points], np.where(mask, SURE, -SURE).astype(np.float32))
    return None


def _next_click(mask: Mask, goal: Mask) -> Click | None:
    """Into the middle of the largest place where the mask is not yet the goal; None if there is no such place."""
    wrong = np.pad((mask != goal).astype(np.uint8), 1)
    distance = cv2.distanceTransform(wrong, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    row, column = np.unravel_index(int(distance.argmax()), distance.shape)
    if distance[row, column] == 0:
        return None
    return Click(float(column) + 0.5, float(row) + 0.5, positive=bool(goal[row, column]))
