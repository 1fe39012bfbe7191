"""Masks snap to the edges of the image."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from tam_backend.features.filters import unit

Array = npt.NDArray[np.float32]


def snap(image: npt.NDArray[np.uint8], values: Array, radius: int, flat: float) -> Array:
    """Smooth HxW values while keeping the edges of an HxWx3 image; ``flat`` as variance of the image in [0, 1].

    The fast guided filter (He and Sun, arXiv:1505.00996) for colour: in windows of ``radius`` pixels the result is an
    affine function of the image, which is worked out at half the size and applied at the whole one.
    """
    height, width = values.shape
    size = (max(1, width // 2), max(1, height // 2))
    guide = unit(np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8))
    small = np.asarray(cv2.resize(values, size, interpolation=cv2.INTER_AREA), np.float32)
    side = 2 * (radius // 2) + 1

    def mean(x: Array) -> Array:
        return np.asarray(cv2.boxFilter(x, -1, (side, side), borderType=cv2.BORDER_REPLICATE), np.float32)

    guide_mean, value_mean = mean(guide), mean(small)
    r, g, b = (np.asarray(c, np.float32) for c in cv2.split(guide))
    mr, mg, mb = (np.asarray(c, np.float32) for c in cv2.split(guide_mean))

    def covariance(c: Array, d: Array, c_mean: Array, d_mean: Array) -> Array:
        return _minus(mean(c * d), c_mean * d_mean)

    cr, cg, cb = (covariance(c, small, m, value_mean) for c, m in ((r, mr), (g, mg), (b, mb)))
    rr, gg, bb = (covariance(c, c, m, m) for c, m in ((r, mr), (g, mg), (b, mb)))
    rg, rb, gb = covariance(r, g, mr, mg), covariance(r, b, mr, mb), covariance(g, b, mg, mb)
    for variance in (rr, gg, bb):
        variance += np.float32(flat)
    # The inverse of the symmetric 3x3 covariance, by cofactors.
    i00, i01, i02 = _minus(gg * bb, gb * gb), _minus(gb * rb, rg * bb), _minus(rg * gb, gg * rb)
    i11, i12, i22 = _minus(rr * bb, rb * rb), _minus(rb * rg, rr * gb), _minus(rr * gg, rg * rg)
    scale = 1 / _dot((rr, i00), (rg, i01), (rb, i02))
    slopes = [
        np.multiply(line, scale, out=line)
        for line in (
            _dot((i00, cr), (i01, cg), (i02, cb)),
            _dot((i01, cr), (i11, cg), (i12, cb)),
            _dot((i02, cr), (i12, cg), (i22, cb)),
        )
    ]
    offset = value_mean
    for slope, m in zip(slopes, (mr, mg, mb), strict=True):
        offset = _minus(offset, slope * m)

    def whole(x: Array) -> Array:
        return np.asarray(cv2.resize(mean(x), (width, height), interpolation=cv2.INTER_LINEAR), np.float32)

    result = whole(offset)
    for number, slope in enumerate(slopes):
        part = whole(slope)
        part *= image[..., number]
        part *= np.float32(1 / 255)
        result += part
    return result


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
