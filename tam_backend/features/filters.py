"""Small image operations that segmentation and propagation share."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Region = npt.NDArray[np.bool_]


def unit(image: npt.NDArray[np.uint8]) -> Array:
    """uint8 to float32 in [0, 1]."""
    return image.astype(np.float32) * np.float32(1 / 255)


def sigmoid(x: Array) -> Array:
    return np.asarray(1.0 / (1.0 + np.exp(-x)), np.float32)


def signed_distance(region: Region) -> Array:
    """Pixels to the edge of the region, positive inside. Where there is no edge at all, the size of the frame."""
    far = float(sum(region.shape))
    inside = np.minimum(cv2.distanceTransform(region.astype(np.uint8), cv2.DIST_L2, 5), far)
    outside = np.minimum(cv2.distanceTransform((~region).astype(np.uint8), cv2.DIST_L2, 5), far)
    return np.asarray(inside - outside, np.float32)


def guided_filter(guide: Array, values: Array, radius: int, eps: float) -> Array:
    """Smooth HxW values while keeping the edges of the HxWx3 guide in [0, 1].

    The colour version of He, Sun and Tang, "Guided Image Filtering", PAMI 2013: in each window the result is an
    affine function of the guide; ``eps`` is the variance of the guide below which a window counts as flat.
    """

    def mean(x: Array) -> Array:
        size = (2 * radius + 1, 2 * radius + 1)
        return np.asarray(cv2.boxFilter(x, -1, size, borderType=cv2.BORDER_REPLICATE), np.float32)

    channels = [np.ascontiguousarray(guide[..., c]) for c in range(3)]
    m = [mean(c) for c in channels]
    mean_values = mean(values)
    covariance = [mean(c * values) - mc * mean_values for c, mc in zip(channels, m, strict=True)]
    rr = mean(channels[0] * channels[0]) - m[0] * m[0] + eps
    rg = mean(channels[0] * channels[1]) - m[0] * m[1]
    rb = mean(channels[0] * channels[2]) - m[0] * m[2]
    gg = mean(channels[1] * channels[1]) - m[1] * m[1] + eps
    gb = mean(channels[1] * channels[2]) - m[1] * m[2]
    bb = mean(channels[2] * channels[2]) - m[2] * m[2] + eps
    # The inverse of the symmetric 3x3 covariance, by cofactors.
    i00, i01, i02 = gg * bb - gb * gb, gb * rb - rg * bb, rg * gb - gg * rb
    i11, i12, i22 = rr * bb - rb * rb, rb * rg - rr * gb, rr * gg - rg * rg
    determinant = rr * i00 + rg * i01 + rb * i02
    c0, c1, c2 = covariance
    slopes = [
        (i00 * c0 + i01 * c1 + i02 * c2) / determinant,
        (i01 * c0 + i11 * c1 + i12 * c2) / determinant,
        (i02 * c0 + i12 * c1 + i22 * c2) / determinant,
    ]
    offset = mean_values - slopes[0] * m[0] - slopes[1] * m[1] - slopes[2] * m[2]
    result = mean(offset)
    for slope, channel in zip(slopes, channels, strict=True):
        result += mean(slope) * channel
    return result


def window(region: Region, margin: int) -> tuple[slice, slice]:
    """Rows and columns of the region's bounding box, wider by ``margin`` on each side; the region is not empty."""
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    return (
        slice(max(0, int(rows[0]) - margin), int(rows[-1]) + 1 + margin),
        slice(max(0, int(columns[0]) - margin), int(columns[-1]) + 1 + margin),
    )
