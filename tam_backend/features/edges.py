"""Masks snap to the edges of the image."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from tam_backend.features.filters import Window, unit

Array = npt.NDArray[np.float32]
Image = npt.NDArray[np.uint8]

#: Half the side of the windows of the filter, pixels; the variance of the image, in [0, 1], below which one is flat.
RADIUS, FLAT = 4, 1e-4
_SIDE = 2 * (RADIUS // 2) + 1


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
        guide = unit(_halved(even))
        r, g, b = self._channels = [np.asarray(c, np.float32) for c in cv2.split(guide)]
        mr, mg, mb = self._means = [np.asarray(c, np.float32) for c in cv2.split(_mean(guide))]
        rr, gg, bb = (_minus(_mean(c * c), m * m) for c, m in zip(self._channels, self._means, strict=True))
        rg, rb, gb = (_minus(_mean(c * d), m * n) for c, d, m, n in ((r, g, mr, mg), (r, b, mr, mb), (g, b, mg, mb)))
        for variance in (rr, gg, bb):
            variance += np.float32(FLAT)
        # The inverse of the symmetric 3x3 covariance, by cofactors.
        i00, i01, i02 = _minus(gg * bb, gb * gb), _minus(gb * rb, rg * bb), _minus(rg * gb, gg * rb)
        i11, i12, i22 = _minus(rr * bb, rb * rb), _minus(rb * rg, rr * gb), _minus(rr * gg, rg * rg)
        scale = 1 / _dot((rr, i00), (rg, i01), (rb, i02))
        self._inverse = [np.multiply(i, scale, out=i) for i in (i00, i01, i02, i11, i12, i22)]

    @property
    def nbytes(self) -> int:
        """Without the image."""
        return sum(x.nbytes for x in (*self._channels, *self._means, *self._inverse))

    def snap(self, values: Array, part: Window) -> Array:
        """Smooth values while keeping the edges of the image. values: hxw float32, of the rows and columns that
        begin where ``part`` does; returns the same."""
        sides = tuple(slice(p.start, p.start + n) for p, n in zip(part, values.shape, strict=True))
        rows, columns = (slice(s.start // 2, (s.stop + 1) // 2) for s in sides)
        above, left = (s.start % 2 for s in sides)
        below, right = (s.stop % 2 for s in sides)
        height, width = values.shape
        small = _halved(_padded(values, (above, below), (left, right)))
        channels, means = ([c[rows, columns] for c in some] for some in (self._channels, self._means))
        i00, i01, i02, i11, i12, i22 = (i[rows, columns] for i in self._inverse)
        offset = _mean(small)
        cr, cg, cb = (_minus(_mean(c * small), m * offset) for c, m in zip(channels, means, strict=True))
        slopes = [
            _dot((row[0], cr), (row[1], cg), (row[2], cb))
            for row in ((i00, i01, i02), (i01, i11, i12), (i02, i12, i22))
        ]
        for slope, m in zip(slopes, means, strict=True):
            offset = _minus(offset, slope * m)

        def whole(x: Array) -> Array:
            size = (2 * x.shape[1], 2 * x.shape[0])
            return np.asarray(cv2.resize(_mean(x), size, interpolation=cv2.INTER_LINEAR), np.float32)[
                above : above + height, left : left + width
            ]

        result = whole(offset)
        image = self._image[sides]
        for number, slope in enumerate(slopes):
            slope *= np.float32(1 / 255)
            enlarged = whole(slope)
            enlarged *= image[..., number]
            result += enlarged
        return result


def _mean(x: Array) -> Array:
    return np.asarray(cv2.boxFilter(x, -1, (_SIDE, _SIDE), borderType=cv2.BORDER_REPLICATE), np.float32)


def _halved(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Of even sides: the mean of each 2x2 pixels."""
    return np.asarray(cv2.resize(x, (x.shape[1] // 2, x.shape[0] // 2), interpolation=cv2.INTER_AREA), x.dtype)


def _padded(x: npt.NDArray[Any], rows: tuple[int, int], columns: tuple[int, int]) -> npt.NDArray[Any]:
    """With so many rows and columns more before and after, each like its neighbour."""
    return np.asarray(cv2.copyMakeBorder(x, *rows, *columns, cv2.BORDER_REPLICATE), x.dtype)


def _minus(x: Array, y: Array) -> Array:
    """x - y, in place of x: at these sizes new memory takes longer than arithmetic."""
    return np.subtract(x, y, out=x)


def _dot(*pairs: tuple[Array, Array]) -> Array:
    """The sum of the products of the pairs."""
    (x, y), *others = pairs
    total = x * y
    for x, y in others:
        total += x * y
    return total
