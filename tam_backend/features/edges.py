"""Masks snap to the edges of the image."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from tam_backend.features.filters import GuidedFilter, Window, unit

Array = npt.NDArray[np.float32]
Image = npt.NDArray[np.uint8]

#: Half the side of the windows of the filter, pixels; the variance of the image, in [0, 1], below which one is flat.
RADIUS, FLAT = 4, 1e-4


class Edges:
    """The edges of one image: what the filter needs to know of it, worked out once for all masks.

    The fast guided filter (He and Sun, arXiv:1505.00996) for colour: in each window the result is an affine function of
    the image, which is worked out at half the size and applied at the whole one.
    """

    def __init__(self, image: Image) -> None:
        """image: HxWx3 uint8."""
        self._image = image
        height, width = image.shape[:2]
        even = _padded(image, (0, height % 2), (0, width % 2))
        self._filter = GuidedFilter(unit(_halved(even)), RADIUS // 2, FLAT)

    @property
    def nbytes(self) -> int:
        """Without the image."""
        return self._filter.nbytes

    def snap(self, values: Array, part: Window) -> Array:
        """Smooth values while keeping the edges of the image. values: hxw float32, of the rows and columns
        ``part``; returns the same."""
        rows, columns = (slice(p.start // 2, (p.stop + 1) // 2) for p in part)
        above, left = (p.start % 2 for p in part)
        below, right = (p.stop % 2 for p in part)
        height, width = values.shape
        small = _halved(_padded(values, (above, below), (left, right)))
        offset, slopes = self._filter.coefficients(small, (rows, columns))

        def whole(x: Array) -> Array:
            size = (2 * x.shape[1], 2 * x.shape[0])
            large = np.asarray(cv2.resize(x, size, interpolation=cv2.INTER_LINEAR), np.float32)
            return large[above : above + height, left : left + width]

        result = whole(offset)
        image = self._image[part]
        for number, slope in enumerate(slopes):
            slope *= np.float32(1 / 255)
            enlarged = whole(slope)
            enlarged *= image[..., number]
            result += enlarged
        return result


def _halved(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Of even sides: the mean of each 2x2 pixels."""
    return np.asarray(cv2.resize(x, (x.shape[1] // 2, x.shape[0] // 2), interpolation=cv2.INTER_AREA), x.dtype)


def _padded(x: npt.NDArray[Any], rows: tuple[int, int], columns: tuple[int, int]) -> npt.NDArray[Any]:
    """With so many rows and columns more before and after, each like its neighbour."""
    return np.asarray(cv2.copyMakeBorder(x, *rows, *columns, cv2.BORDER_REPLICATE), x.dtype)
