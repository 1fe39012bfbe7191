"""The way of each pixel back to the frame a run began at.

Flow from frame to frame adds up small errors, and the mask drifts with them. So the composed way is put right on every
frame, by flow between the frame and the first one as the way so far says it should look; and where the two look alike,
the mask a person decided is asked again, not the one that came from frame to frame.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from tam_backend.features.filters import Window, unit
from tam_backend.features.frames import quick_flow
from tam_backend.features.geometry import Geometry

Array = npt.NDArray[np.float32]
Gray = npt.NDArray[np.uint8]

#: Ways are kept in this fraction of a pixel of the flow's size: 16 bits reach 1024 pixels far.
FRACTION = 32
#: Pixels around the object in which the way is put right, at the flow's size, the smallest side of that part, and how
#: much further around it is kept up to date.
AROUND, SMALLEST, KEPT = 16, 32, 16
#: Side of the square in which two frames are compared, and the mean difference in grey levels at which they still look
#: alike to 1/e.
COMPARED, ALIKE = 7, 16.0


class Origin:
    """One run's memory of the frame that it began at."""

    def __init__(self, frame: int, image: Gray, mask: Gray, geometry: Geometry) -> None:
        """image: hxw uint8, grey, of the flow's size. mask: HxW uint8, 255 x probability, of the working size."""
        self.frame = frame
        self._image, self._mask, self._geometry = image, mask, geometry
        self._scale = geometry.flow_height / geometry.work_height, geometry.flow_width / geometry.work_width
        self._way = np.zeros((*image.shape, 2), np.int16)
        self._left = False

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """hxwx2 int16, the frame, and whether it was left behind."""
        return {"way": self._way.copy(), "origin": np.array(self.frame, np.int64), "left": np.array(self._left)}

    def resume(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        self._way = np.asarray(state["way"], np.int16)
        self._left = bool(state["left"])

    def leave(self) -> None:
        """No way leads back from now on: the frames to come are of another shot."""
        self._left = True

    def step(self, back: Array, part: Window) -> None:
        """Go on to the next frame. back: hxwx2 float32, its flow to the frame before it. part: rows and columns of the
        working size in which the object may be; ways are composed there and around it, elsewhere they stay as they
        are: nobody asks for them."""
        if self._left:
            return
        rows, columns = self._around(part, KEPT)
        there = self._around(part, KEPT + math.ceil(cv2.norm(back[rows, columns], cv2.NORM_INF)) + 1)
        at = rows.start - there[0].start, columns.start - there[1].start
        self._set(_composed(back[rows, columns], self._unpacked(there), at), (rows, columns))

    def recall(self, image: Gray, part: Window) -> tuple[Window, Array, Array] | None:
        """The first frame's mask as it should be on this one, around the object.

        image: this frame, as ``image`` of the first one. part: rows and columns of the object, working size. Returns
        the rows and columns around it, the mask there in [0, 1], and how much the two frames look alike there, in
        [0, 1]; None where the object is too small to compare anything, or no way leads back.
        """
        if self._left:
            return None
        rows, columns = self._around(part, AROUND)
        if min(rows.stop - rows.start, columns.stop - columns.start) < SMALLEST:
            return None
        here = np.ascontiguousarray(image[rows, columns])
        way = self._unpacked((rows, columns))
        before = self._warped(way, rows, columns)
        rest = quick_flow(here, before).astype(np.float32)  # little is left to put right
        improved = _composed(rest, way, (0, 0))
        error = _difference(here, before)
        better = _difference(here, self._warped(improved, rows, columns))
        way = np.asarray(cv2.copyTo(improved, (better < error).view(np.uint8), way), np.float32)
        self._set(way, (rows, columns))
        alike = np.exp(-((np.minimum(better, error) / ALIKE) ** 2))

        geometry = self._geometry
        down, across = self._scale
        top, bottom = round(rows.start / down), min(geometry.work_height, round(rows.stop / down))
        left, right = round(columns.start / across), min(geometry.work_width, round(columns.stop / across))
        size = right - left, bottom - top
        large = np.asarray(cv2.resize(way, size), np.float32)
        x = np.arange(left, right, dtype=np.float32) + large[..., 0] / np.float32(across)
        y = np.arange(top, bottom, dtype=np.float32)[:, None] + large[..., 1] / np.float32(down)
        mask = unit(np.asarray(cv2.remap(self._mask, x, y, cv2.INTER_LINEAR), np.uint8))
        return (slice(top, bottom), slice(left, right)), mask, np.asarray(cv2.resize(alike, size), np.float32)

    def _around(self, part: Window, margin: int) -> Window:
        """Rows and columns of the flow's size for those of the working size, wider by ``margin`` on each side."""
        rows, columns = (
            slice(max(0, int(p.start * scale) - margin), min(size, math.ceil(p.stop * scale) + margin))
            for p, scale, size in zip(part, self._scale, self._image.shape, strict=True)
        )
        return rows, columns

    def _warped(self, way: Array, rows: slice, columns: slice) -> Gray:
        """The first frame as a part of this one should look by its way."""
        x = np.arange(columns.start, columns.stop, dtype=np.float32) + way[..., 0]
        y = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] + way[..., 1]
        return np.asarray(cv2.remap(self._image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.uint8)

    def _unpacked(self, part: Window) -> Array:
        return self._way[part].astype(np.float32) / np.float32(FRACTION)

    def _set(self, way: Array, part: Window) -> None:
        self._way[part] = np.clip(np.rint(way * FRACTION), -32768, 32767)


def _composed(first: Array, then: Array, at: tuple[int, int]) -> Array:
    """The way that leads along ``first`` and, from where that ends, along ``then``; hxwx2 each. at: row and column of
    ``then`` where ``first`` begins."""
    height, width = first.shape[:2]
    x = np.arange(at[1], at[1] + width, dtype=np.float32) + first[..., 0]
    y = np.arange(at[0], at[0] + height, dtype=np.float32)[:, None] + first[..., 1]
    return first + np.asarray(cv2.remap(then, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.float32)


def _difference(one: Gray, other: Gray) -> Array:
    """hxw: mean difference around each pixel, grey levels."""
    return np.asarray(cv2.blur(cv2.absdiff(one, other).astype(np.float32), (COMPARED, COMPARED)), np.float32)
