"""Small image operations that segmentation and propagation share."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Region = npt.NDArray[np.bool_]
#: Rows and columns of a frame.
Window = tuple[slice, slice]

#: A median is taken of at least so many pixels where there are more (see ``usual``).
MEDIAN_PIXELS = 2000


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


def usual(values: Array, region: Region) -> float:
    """Median of HxW values in a region that is not empty; of large regions of every n-th pixel: it hardly differs, and
    sorting all of them takes longer than most else that is done to a frame."""
    coarse = region[::2, ::2]
    if np.count_nonzero(coarse) >= MEDIAN_PIXELS:
        values, region = values[::2, ::2], coarse
    inside = values[region]
    return float(np.median(inside[:: max(1, len(inside) // MEDIAN_PIXELS)]))


class GuidedFilter:
    """Smooths HxW values while keeping the edges of an HxWx3 guide in [0, 1]; made once, for any number of values.

    The colour version of He, Sun and Tang, "Guided Image Filtering", PAMI 2013: in each window of ``radius`` pixels
    the result is an affine function of the guide; ``eps`` is the variance of the guide below which a window counts as
    flat.
    """

    def __init__(self, guide: Array, radius: int, eps: float) -> None:
        self._size = (2 * radius + 1, 2 * radius + 1)
        self._channels = [np.ascontiguousarray(guide[..., c], np.float32) for c in range(3)]
        self._means = [self._average(c) for c in self._channels]

        def covariance(i: int, j: int) -> Array:
            return self._average(self._channels[i] * self._channels[j]) - self._means[i] * self._means[j]

        rr, gg, bb = (covariance(i, i) + np.float32(eps) for i in range(3))
        rg, rb, gb = covariance(0, 1), covariance(0, 2), covariance(1, 2)
        # The inverse of the symmetric 3x3 covariance, by cofactors.
        i00, i01, i02 = gg * bb - gb * gb, gb * rb - rg * bb, rg * gb - gg * rb
        i11, i12, i22 = rr * bb - rb * rb, rb * rg - rr * gb, rr * gg - rg * rg
        determinant = rr * i00 + rg * i01 + rb * i02
        self._inverse = [i / determinant for i in (i00, i01, i02, i11, i12, i22)]

    @property
    def nbytes(self) -> int:
        return sum(x.nbytes for x in (*self._channels, *self._means, *self._inverse))

    def __call__(self, values: Array) -> Array:
        """HxW float32 to HxW float32."""
        result, slopes = self.coefficients(values, (slice(None), slice(None)))
        for slope, channel in zip(slopes, self._channels, strict=True):
            slope *= channel
            result += slope
        return result

    def coefficients(self, values: Array, part: Window) -> tuple[Array, list[Array]]:
        """What the result is in terms of the guide: an offset, and a slope for each of its channels; each hxw float32.

        values: hxw float32, of a part of the guide.
        """
        # In place where that can be: at these sizes new memory takes longer than arithmetic.
        means = [m[part] for m in self._means]
        offset = self._average(values)
        covariances = []
        for channel, mean in zip(self._channels, means, strict=True):
            covariance = self._average(channel[part] * values)
            covariance -= mean * offset
            covariances.append(covariance)
        i00, i01, i02, i11, i12, i22 = (i[part] for i in self._inverse)
        slopes = []
        for row in ((i00, i01, i02), (i01, i11, i12), (i02, i12, i22)):
            slope = row[0] * covariances[0]
            slope += row[1] * covariances[1]
            slope += row[2] * covariances[2]
            slopes.append(slope)
        for slope, mean in zip(slopes, means, strict=True):
            offset -= slope * mean
        return self._average(offset), [self._average(slope) for slope in slopes]

    def _average(self, x: Array) -> Array:
        return np.asarray(cv2.boxFilter(x, -1, self._size, borderType=cv2.BORDER_REPLICATE), np.float32)


def guided_filter(guide: Array, values: Array, radius: int, eps: float) -> Array:
    """One use of a ``GuidedFilter``."""
    return GuidedFilter(guide, radius, eps)(values)


def window(region: Region, margin: int) -> Window:
    """Rows and columns of the region's bounding box, wider by ``margin`` on each side as far as the frame goes; the
    region is not empty."""
    left, top, width, height = cv2.boundingRect(region.view(np.uint8))
    return (
        slice(max(0, top - margin), min(region.shape[0], top + height + margin)),
        slice(max(0, left - margin), min(region.shape[1], left + width + margin)),
    )
