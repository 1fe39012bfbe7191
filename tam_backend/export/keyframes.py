"""Boxes of a track reduced to keyframes between which a straight line is good enough."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

#: How far an edge of an interpolated box may be from that of the mask, in pixels.
TOLERANCE = 1.0

Box = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Keyframe:
    """frame: number in the video, from 0. box: left, top, right, bottom in pixels. last: the object is gone after
    this frame, until the next keyframe."""

    frame: int
    box: Box
    last: bool


def reduce_boxes(boxes: Mapping[int, Box], tolerance: float = TOLERANCE) -> list[Keyframe]:
    """As few keyframes as a walk from the front finds; all of them are true boxes. boxes: frame -> box, where the
    object is seen."""
    keyframes: list[Keyframe] = []
    frames = sorted(boxes)
    start = 0
    for place, frame in enumerate(frames):
        if place + 1 == len(frames) or frames[place + 1] != frame + 1:
            part = frames[start : place + 1]
            chosen = _reduce(np.array([boxes[f] for f in part], float), tolerance)
            keyframes += [Keyframe(part[i], boxes[part[i]], i == len(part) - 1) for i in chosen]
            start = place + 1
    return keyframes


def interpolate(keyframes: list[Keyframe], frame: int) -> tuple[float, float, float, float] | None:
    """The box that Label Studio shows on a frame, None where it shows none."""
    before = next((k for k in reversed(keyframes) if k.frame <= frame), None)
    after = next((k for k in keyframes if k.frame >= frame), None)
    if before is None or (before.last and before.frame != frame):
        return None
    if after is None or after.frame == before.frame:
        left, top, right, bottom = before.box
        return float(left), float(top), float(right), float(bottom)
    share = (frame - before.frame) / (after.frame - before.frame)
    x0, y0, x1, y1 = (a + share * (b - a) for a, b in zip(before.box, after.box, strict=True))
    return x0, y0, x1, y1


def _reduce(boxes: npt.NDArray[np.float64], tolerance: float) -> list[int]:
    """Indices of (n, 4) boxes of neighbouring frames: from each, the farthest that a straight line reaches.

    low, high: the slopes that stay within the tolerance on all frames so far, of each edge. The farthest frame whose
    own slope is among them is kept.
    """
    chosen, start, n = [0], 0, len(boxes)
    while start < n - 1:
        low, high = np.full(4, -np.inf), np.full(4, np.inf)
        best = start + 1
        for end in range(start + 1, n):
            way = end - start
            slope = (boxes[end] - boxes[start]) / way
            if ((low <= slope) & (slope <= high)).all():
                best = end
            low = np.maximum(low, (boxes[end] - tolerance - boxes[start]) / way)
            high = np.minimum(high, (boxes[end] + tolerance - boxes[start]) / way)
            if (low > high).any():
                break
        chosen.append(best)
        start = best
    return chosen
