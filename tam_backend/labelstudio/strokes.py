"""Brush strokes as Label Studio's editor saves them in drafts.

The editor does not rasterise on autosave: a mask fixed by hand is saved as the old ``rle`` with the strokes beside it
in ``touches``, a mask drawn by hand as ``touches`` alone. When a person submits without looking at such a frame again,
the annotation is saved, and exported, like that too. (Seen on 1.23.2; the geometry is that of the editor's own drawing:
round caps and joins, coordinates and width in percent of the original picture.)
"""

from __future__ import annotations

import math
from typing import Any, TypeGuard

import cv2
import numpy as np

from tam_backend.errors import BadInput
from tam_backend.prompts import Mask

#: Strokes are drawn this many times larger and averaged, to know which pixels they cover by half or more.
_SCALE = 4
_MAX_POINTS = 200_000


def apply_strokes(mask: Mask, touches: object, where: str) -> Mask:
    """Paint and erase ``touches`` in their order on a copy of ``mask`` (HxW bool).

    Raises BadInput naming the stroke that cannot be read.
    """
    if not isinstance(touches, list):
        raise BadInput(f"{where}.touches must be a list, not {type(touches).__name__}")
    mask = mask.copy()
    for i, touch in enumerate(touches):
        points, width, erase = _stroke(touch, mask.shape, f"{where}.touches[{i}]")
        if len(points):
            _draw(mask, points, width, erase)
    return mask


def _stroke(touch: Any, shape: tuple[int, ...], where: str) -> tuple[np.ndarray, float, bool]:
    """(N x 2 points in pixels, width in pixels, whether it erases)."""
    if not isinstance(touch, dict):
        raise BadInput(f"{where} must be an object")
    height, width = shape
    flat = touch.get("relativePoints", [])
    stroke = touch.get("relativeStrokeWidth")
    if not isinstance(flat, list) or len(flat) % 2 or len(flat) > _MAX_POINTS or not all(map(_finite, flat)):
        raise BadInput(f"{where}.relativePoints must be pairs of numbers, {_MAX_POINTS} at most")
    if not _finite(stroke) or not 0 < stroke <= 200:
        raise BadInput(f"{where}.relativeStrokeWidth is {stroke!r:.40}; it must be a percentage of the picture's width")
    if touch.get("type") not in ("add", "eraser"):
        raise BadInput(f"{where}.type is {touch.get('type')!r:.40}; it must be add or eraser")
    points = np.array(flat, float).reshape(-1, 2) / 100 * (width, height)
    return np.clip(points, -10 * width, 11 * width), stroke / 100 * width, touch["type"] == "eraser"


def _finite(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _draw(mask: Mask, points: np.ndarray, width: float, erase: bool) -> None:
    """Set or clear the pixels that a stroke covers by half or more, within the rectangle around the stroke."""
    margin = width / 2 + 1
    left, top = (int(v) for v in np.clip(np.floor(points.min(0) - margin), 0, mask.shape[::-1]))
    right, bottom = (int(v) for v in np.clip(np.ceil(points.max(0) + margin), 0, mask.shape[::-1]))
    if right <= left or bottom <= top:
        return
    canvas = np.zeros(((bottom - top) * _SCALE, (right - left) * _SCALE), np.uint8)
    # OpenCV's coordinates name the centre of a pixel, the editor's its corner: hence half a pixel.
    scaled = np.round((points - (left, top)) * _SCALE - 0.5).astype(np.int32)
    thickness = max(1, round(width * _SCALE))
    if len(scaled) == 1:
        cv2.circle(canvas, tuple(map(int, scaled[0])), thickness // 2, 255, cv2.FILLED)
    else:
        cv2.polylines(canvas, [scaled.reshape(-1, 1, 2)], isClosed=False, color=255, thickness=thickness)
    covered = cv2.resize(canvas, (right - left, bottom - top), interpolation=cv2.INTER_AREA) >= 128
    mask[top:bottom, left:right][covered] = not erase
