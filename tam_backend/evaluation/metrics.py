"""Region similarity J and boundary accuracy F, with the numbers of the DAVIS 2017 evaluation.

J and F: Perazzi et al., A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation, CVPR 2016.
Mean, recall and decay over the frames of an object: Pont-Tuset et al., The 2017 DAVIS Challenge, arXiv:1704.00675.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from tam_backend.prompts import Mask

#: Boundaries match within this share of the frame's diagonal.
BOUNDARY_BOUND = 0.008
#: A frame counts for the recall from here on (exclusive).
RECALL_THRESHOLD = 0.5
#: The decay compares the first with the last of so many parts of the video.
DECAY_PARTS = 4


def region_similarity(mask: Mask, truth: Mask, void: Mask | None = None) -> float:
    """J, the intersection over union, without the pixels of ``void``; 1 where both masks are empty.

    mask, truth, void: HxW bool.
    """
    if void is not None:
        mask, truth = mask & ~void, truth & ~void
    union = np.count_nonzero(mask | truth)
    return np.count_nonzero(mask & truth) / union if union else 1.0


def boundary_measure(mask: Mask, truth: Mask, void: Mask | None = None) -> float:
    """F, the harmonic mean of precision and recall of the boundary; 1 where neither mask has one.

    A boundary pixel is matched by one of the other mask at most ``boundary_radius`` away. Pixels of ``void`` count as
    background in both masks. mask, truth, void: HxW bool.
    """
    radius = boundary_radius(*mask.shape)
    if void is not None:
        mask, truth = mask & ~void, truth & ~void
    crop = _around(mask | truth)
    ours, true = boundary_map(mask[crop]), boundary_map(truth[crop])
    ours_count, true_count = np.count_nonzero(ours), np.count_nonzero(true)
    if not ours_count or not true_count:
        return float(ours_count == true_count)
    precision = np.count_nonzero(ours & _within(true, radius)) / ours_count
    recall = np.count_nonzero(true & _within(ours, radius)) / true_count
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def boundary_radius(height: int, width: int) -> int:
    """How many pixels a boundary may be off: 0.008 of the diagonal, rounded up."""
    return math.ceil(BOUNDARY_BOUND * math.hypot(height, width))


def boundary_map(mask: Mask) -> Mask:
    """HxW bool: the pixels that differ from their right, lower or lower right neighbour, where there is one."""
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    here = padded[:-1, :-1]
    return np.asarray((here ^ padded[:-1, 1:]) | (here ^ padded[1:, :-1]) | (here ^ padded[1:, 1:]))


@dataclass(frozen=True, slots=True)
class Statistics:
    """Of one measure of one object over its frames: mean, share of frames above 0.5, and how much it loses."""

    mean: float
    recall: float
    decay: float


def statistics(values: Sequence[float] | npt.NDArray[np.float64]) -> Statistics:
    """Mean, recall and decay (mean of the first quarter minus mean of the last one) of (n,) values, n > 0.

    Neighbouring quarters share the frame between them. The evaluation program of DAVIS keeps the bounds of the quarters
    in 8 bits, so that its decay differs from this one beyond 256 frames.
    """
    series = np.asarray(values, np.float64)
    # The tiny addend makes a half round up, where NumPy would round it to even.
    bounds = np.round(np.linspace(1, len(series), DECAY_PARTS + 1) + 1e-10).astype(int) - 1
    first, last = series[: bounds[1] + 1], series[bounds[-2] :]
    recall = float(np.mean(series > RECALL_THRESHOLD))
    return Statistics(float(series.mean()), recall, float(first.mean() - last.mean()))


def _around(mask: Mask) -> tuple[slice, slice]:
    """The bounding box of a mask and one pixel more on each side: nothing outside can be on its boundary."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return slice(0, 1), slice(0, 1)
    top, left = max(0, rows[0] - 1), max(0, columns[0] - 1)
    return slice(int(top), int(rows[-1]) + 2), slice(int(left), int(columns[-1]) + 2)


def _within(points: Mask, radius: int) -> Mask:
    """HxW bool: the pixels at most ``radius`` away from a marked one, which is a dilation by a disk."""
    distance = cv2.distanceTransform((~points).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(distance <= radius)
