"""Where an object is in a shot that no flow leads into: by its colours alone."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Region = npt.NDArray[np.bool_]
Bins = npt.NDArray[np.uint16]

#: A find has log odds over the first number everywhere (averaged over a square), and over the second on average;
ODDS, MEAN_ODDS = 0.5, 1.2
#: an area between these shares of the object's, which may be nearer or farther now;
AREA = (0.1, 8.0)
#: colours that overlap with the object's by so much (Bhattacharyya coefficient);
LIKE = 0.6
#: and evidence so many times that of the next best place.
CLEAR = 1.5
#: Side of the square as a share of the root of the object's area, and its smallest, pixels.
SQUARE_SHARE, SQUARE = 0.25, 5


def appearance(bins: Bins, weight: Array) -> npt.NDArray[np.float64]:
    """Share of each colour bin in an object. bins: any shape; weight: the same, how much of the object a pixel is."""
    counts = np.bincount(bins.ravel(), weight.ravel())
    return counts / max(float(counts.sum()), 1e-12)


def find_in_shot(odds: Array, bins: Bins, colours: npt.NDArray[np.float64], area: float) -> Region | None:
    """The object in a frame of another shot, HxW bool; None without evidence that it is there.

    odds: HxW log odds of the object by colour. bins: HxW colour bins. colours: ``appearance`` on the frames a person
    decided. area: of the object when it was seen last, pixels.
    """
    side = max(SQUARE, round(SQUARE_SHARE * math.sqrt(area))) | 1
    if area <= 0 or min(odds.shape) < side:
        return None
    evidence = np.asarray(cv2.blur(odds, (side, side)))
    count, labels = cv2.connectedComponents((evidence > ODDS).astype(np.uint8))
    if count < 2:
        return None
    total = np.bincount(labels.ravel(), evidence.ravel(), minlength=count)
    size = np.bincount(labels.ravel(), minlength=count)
    total[0] = -math.inf
    best, second = np.argsort(-total, kind="stable")[:2]
    low, high = AREA
    if not low * area <= size[best] <= high * area or total[best] < MEAN_ODDS * size[best]:
        return None
    if total[second] > 0 and total[best] < CLEAR * total[second]:
        return None
    found = np.asarray(labels == best)
    shown = appearance(bins, found.astype(np.float32))
    common = min(len(shown), len(colours))
    return found if float(np.sqrt(shown[:common] * colours[:common]).sum()) >= LIKE else None
