"""Colour models: how much likelier a colour is on the object than off it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter1d

Array = npt.NDArray[np.float32]
Bins = npt.NDArray[np.uint16]
Region = npt.NDArray[np.bool_]

#: Bins of lightness, a and b. Chroma of natural images lies close to grey, so its bins span only half the range.
BINS = (16, 32, 32)
_COUNT = math.prod(BINS)
#: A colour never seen has this probability; keeps one stray pixel from deciding anything.
UNSEEN = 1e-4


#: Per channel, the part of the bin number that each of its 256 values gives.
_LIGHTNESS = ((np.arange(256) >> 4) * (BINS[1] * BINS[2])).astype(np.uint16)
_CHROMA = np.clip((np.arange(256) - 64) >> 2, 0, BINS[2] - 1).astype(np.uint16)
_PARTS = (_LIGHTNESS, _CHROMA * np.uint16(BINS[2]), _CHROMA)


def colour_bins(lab: npt.NDArray[np.uint8]) -> Bins:
    """HxW uint16 bin numbers of HxWx3 uint8 Lab (OpenCV's scaling)."""
    return np.asarray(sum(cv2.LUT(c, part) for c, part in zip(cv2.split(lab), _PARTS, strict=True)), np.uint16)


@dataclass(frozen=True, slots=True, eq=False)
class ColourModel:
    """log p(colour | object) - log p(colour | background) per bin, float32."""

    table: Array

    @staticmethod
    def learn(bins: Bins, object_weight: Array | Region, background_weight: Array) -> ColourModel:
        """From bin numbers and, per pixel, how much it tells about the object and about the background (>= 0, or yes
        and no)."""
        return ColourModel(_log_probability(bins, object_weight) - _log_probability(bins, background_weight))

    def log_odds(self, bins: Bins) -> Array:
        return self.table[bins]


def _log_probability(bins: Bins, weight: Array | Region) -> Array:
    which, weights = (bins[weight], None) if weight.dtype == bool else (bins.ravel(), weight.ravel())
    counts = np.bincount(which, weights, minlength=_COUNT).reshape(BINS).astype(np.float64)
    # A little smoothing: neighbouring bins are the same colour under slightly different light.
    for axis in range(3):
        counts = gaussian_filter1d(counts, 0.8, axis=axis, mode="constant", truncate=2.0)
    probability = counts.ravel() / max(float(counts.sum()), 1e-12)
    return np.log(probability + UNSEEN).astype(np.float32)
