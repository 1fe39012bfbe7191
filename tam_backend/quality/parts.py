"""What a mask, its frame and the flow that led there tell about how right the mask is. Small pure functions.

Images may be reduced, and cropped to the neighbourhood of the mask, as long as all arguments of a call are alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Lab = npt.NDArray[np.uint8]
Points = tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]
Region = npt.NDArray[np.bool_]
Soft = npt.NDArray[np.uint8]
View = tuple[slice, slice]

#: A soft mask value from here on means "object".
INSIDE = 128
#: Bins of colour: 8 of lightness, 16 each of a and b (whose ends hardly occur).
COLOURS = 8 * 16 * 16
#: The share that a colour has at least, on the object and around it: one stray pixel decides nothing.
UNSEEN = 1e-3
#: Flow there and back that misses its start by half a pixel is believed to 1/e; by more after a larger motion.
CYCLE_ERROR, CYCLE_SHARE = 0.25, 0.02


_P = np.arange(1, 255) / 255
_ENTROPY = np.array([0.0, *(-(_P * np.log2(_P) + (1 - _P) * np.log2(1 - _P))), 0.0], np.float32)


def ring(inside: Region, width: int) -> Region:
    """HxW bool -> HxW bool: the pixels around a mask, up to ``width`` pixels from it."""
    kernel = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    return np.asarray(cv2.dilate(inside.view(np.uint8), kernel)).view(bool) & ~inside


def sample(region: Region, view: View, count: int = 1000) -> Points:
    """(rows, columns) in the frame of the pixels of a region; every n-th of them if there are more than ``count``.

    region: hxw bool, the part ``view`` of the frame.
    """
    rows, columns = np.nonzero(region)
    every = max(1, -(-len(rows) // count))
    return rows[::every] + view[0].start, columns[::every] + view[1].start


def entropy(soft: Soft, region: Region) -> float:
    """Mean binary entropy, in bits, of the probability in a region, HxW bool; 0 for an empty one.

    soft: HxW uint8, 255 x probability.
    """
    return float(_ENTROPY[soft[region]].mean()) if region.any() else 0.0


def edge_share(inside: Region) -> float:
    """Share of the pixels of a mask, HxW bool, that touch one outside of it; 0 for an empty mask.

    So much of its area a mask loses if it is one pixel too small all around.
    """
    area = np.count_nonzero(inside)
    core = cv2.erode(inside.view(np.uint8), np.ones((3, 3), np.uint8))
    return (area - np.count_nonzero(core)) / area if area else 0.0


def flow_doubt(back: Array, there: Array, points: Points) -> float:
    """Where flow to the last frame and back does not lead to the start: 0 nowhere, 1 everywhere.

    back: HxWx2, from this frame to the last; there: HxWx2, from the last frame to this; both x, y in pixels. After
    Sundaram, Brox and Keutzer, "Dense point trajectories by GPU-accelerated large displacement optical flow" (2010).
    """
    rows, columns = points
    if not len(rows):
        return 0.0
    vectors = back[rows, columns]
    height, width = back.shape[:2]
    x = np.clip(np.rint(columns + vectors[:, 0]).astype(np.intp), 0, width - 1)
    y = np.clip(np.rint(rows + vectors[:, 1]).astype(np.intp), 0, height - 1)
    error = np.square(vectors + there[y, x]).sum(axis=1)
    motion = np.square(vectors).sum(axis=1)
    return 1 - float(np.exp(-error / (CYCLE_ERROR + CYCLE_SHARE * motion)).mean())


def relative_motion(flow: Array, own: Points, others: Points) -> float:
    """Pixels by which one region moves otherwise than another: distance of the medians of the flow, HxWx2, in both."""
    if not (len(own[0]) and len(others[0])):
        return 0.0
    x, y = (np.median(flow[own], axis=0) - np.median(flow[others], axis=0)).tolist()
    return math.hypot(x, y)


def colour_shares(lab: Lab, points: Points) -> Array:
    """Share of each colour among some pixels: COLOURS float32 that sum to 1, or to 0 if there are no pixels.

    lab: HxWx3 uint8 Lab as OpenCV scales it.
    """
    pixels = lab[points].astype(np.intp)
    light, a, b = pixels[:, 0] >> 5, *(np.clip((pixels[:, c] - 64) >> 3, 0, 15) for c in (1, 2))
    counts = np.bincount((light * 16 + a) * 16 + b, minlength=COLOURS)
    return np.asarray(counts / max(1, len(pixels)), np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Looks:
    """What an object looks like where it is known.

    odds: COLOURS float32, probability of the object by colour if object and surroundings are equally likely. inside,
    around: means of it over the object and over its surroundings, where they are known.
    """

    odds: Array
    inside: float
    around: float

    @staticmethod
    def learn(inside: Array, around: Array) -> Looks:
        """From the shares of colours on the object and around it, COLOURS float32 each."""
        on, off = inside + np.float32(UNSEEN), around + np.float32(UNSEEN)
        odds = np.asarray(on / (on + off), np.float32)
        return Looks(odds, float(inside @ odds), float(around @ odds))

    def belief(self, shares: Array) -> float:
        """Mean probability of the object by colour over pixels with these colours, COLOURS float32 that sum to 1."""
        return float(shares @ self.odds)
