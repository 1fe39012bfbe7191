"""Masks as single polygons, and back, as training code for YOLO reads them.

That code rounds the corners to pixels and fills with ``cv2.fillPoly``, which counts the outline in. So the corners here
are the pixels of the outline themselves. One object is one polygon: a hole, or a further part, hangs on the rest by an
edge that is walked there and back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from tam_backend.prompts import Mask

Points = npt.NDArray[Any]

#: Neighbouring pixels of an outline are at most this far apart (squared). Parts of a mask are farther.
_STEP = 2


def to_polygon(mask: Mask) -> Points:
    """(n, 2) int32 x, y of the polygon of a HxW bool mask that is not empty."""
    contours, _ = cv2.findContours(mask.view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    loops: list[Points] = [c.reshape(-1, 2) for c in contours]
    joined, rest = loops[0], loops[1:]
    while rest:
        # The nearest loop first: its bridge then crosses no other one, and stays inside the mask if it is a hole's.
        tree = cKDTree(joined)
        found = [tree.query(loop) for loop in rest]
        nearest = int(np.argmin([distances.min() for distances, _ in found]))
        loop, (distances, places) = rest.pop(nearest), found[nearest]
        start = int(distances.argmin())
        at = int(places[start])
        there = np.roll(loop, -start, axis=0)
        joined = np.concatenate([joined[: at + 1], there, there[:1], joined[at:]])
    return joined


def fill(polygon: Points, height: int, width: int) -> Mask:
    """HxW bool of a polygon of ``to_polygon``: without the edges by which parts hang together."""
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, _loops(polygon), 1)
    return mask.view(bool)


def _loops(polygon: Points) -> Sequence[Points]:
    """The loops of a polygon, cut where it walks a bridge."""
    steps = np.diff(polygon, axis=0, append=polygon[:1])
    long = (steps**2).sum(axis=1) > _STEP
    walked = {(*map(int, polygon[i]), *map(int, polygon[(i + 1) % len(polygon)])) for i in np.flatnonzero(long)}
    finished: list[Points] = []
    stack: list[tuple[tuple[int, int], list[tuple[int, int]]]] = [((-1, -1), [])]
    for i, point in enumerate(map(tuple, polygon.tolist())):
        stack[-1][1].append(point)
        if not long[i]:
            continue
        target = tuple(polygon[(i + 1) % len(polygon)].tolist())
        if len(stack) > 1 and stack[-1][0] == target:
            finished.append(np.array(stack.pop()[1], np.int32))
        elif (*target, *point) in walked:
            stack.append((point, []))
    finished += [np.array(points, np.int32) for _, points in stack if points]
    return finished
