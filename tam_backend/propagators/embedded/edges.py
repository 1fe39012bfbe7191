"""Masks snap to the edges of the image."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]


def snap(image: npt.NDArray[np.uint8], values: Array, radius: int, flat: float) -> Array:
    """Smooth HxW values while keeping the edges of an HxWx3 image; ``flat`` as variance of the image in [0, 1].

    The fast guided filter (He and Sun, arXiv:1505.00996) for colour: in windows of ``radius`` pixels the result is an
    affine function of the image, which is worked out at half the size and applied at the whole one.
    """
    height, width = values.shape
    size = (max(1, width // 2), max(1, height // 2))
    guide = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.float32) * np.float32(1 / 255)
    small = np.asarray(cv2.resize(values, size, interpolation=cv2.INTER_AREA), np.float32)
    side = 2 * (radius // 2) + 1

    def mean(x: Array) -> Array:
        return np.asarray(cv2.boxFilter(x, -1, (side, side), borderType=cv2.BORDER_REPLICATE), np.float32)

    guide_mean, value_mean = mean(guide), mean(small)
    r, g, b = (np.asarray(c, np.float32) for c in cv2.split(guide))
    mr, mg, mb = (np.asarray(c, np.float32) for c in cv2.split(guide_mean))
    cr, cg, cb = (mean(c * small) - m * value_mean for c, m in ((r, mr), (g, mg), (b, mb)))
    rr, gg, bb = (mean(c * c) - m * m + np.float32(flat) for c, m in ((r, mr), (g, mg), (b, mb)))
    rg, rb, gb = (mean(c * d) - m * n for c, d, m, n in ((r, g, mr, mg), (r, b, mr, mb), (g, b, mg, mb)))
    # The inverse of the symmetric 3x3 covariance, by cofactors.
    i00, i01, i02 = gg * bb - gb * gb, gb * rb - rg * bb, rg * gb - gg * rb
    i11, i12, i22 = rr * bb - rb * rb, rb * rg - rr * gb, rr * gg - rg * rg
    scale = 1 / (rr * i00 + rg * i01 + rb * i02)
    ar = (i00 * cr + i01 * cg + i02 * cb) * scale
    ag = (i01 * cr + i11 * cg + i12 * cb) * scale
    ab = (i02 * cr + i12 * cg + i22 * cb) * scale
    affine = cv2.merge([ar, ag, ab, value_mean - ar * mr - ag * mg - ab * mb])
    affine = cv2.resize(mean(np.asarray(affine, np.float32)), (width, height), interpolation=cv2.INTER_LINEAR)
    whole = np.asarray(affine[..., 3], np.float32)
    slopes = affine[..., :3] * image * np.float32(1 / 255)
    return np.asarray(whole + slopes[..., 0] + slopes[..., 1] + slopes[..., 2], np.float32)
