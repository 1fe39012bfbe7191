"""Colour models: how much likelier a colour is on the object than off it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter1d

Array = npt.NDArray[np.float32]

#: Bins of lightness, a and b. Chroma of natural images lies close to grey, so its bins span only half the range.
BINS = (16, 32, 32)
#: A colour never seen has this probability; keeps one stray pixel from deciding anything.
UNSEEN = 1e-4


def colour_bins(lab: npt.NDArray[np.uint8]) -> npt.NDArray[np.intp]:
    """HxW bin numbers of HxWx3 uint8 Lab (OpenCV's scaling)."""
    lightness = lab[..., 0].astype(np.intp) >> 4
    chroma = np.clip((lab[..., 1:].astype(np.intp) - 64) >> 2, 0, 31)
    return np.asarray((lightness * BINS[1] + chroma[..., 0]) * BINS[2] + chroma[..., 1])


@dataclass(frozen=True, slots=True, eq=False)
class ColourModel:
    """log p(colour | object) - log p(colour | background) per bin, float32."""

    table: Array

    @staticmethod
    def learn(bins: npt.NDArray[np.intp], object_weight: Array, background_weight: Array) -> ColourModel:
        """From bin numbers and, per pixel, how much it tells about the object and about the background (>= 0)."""
        return ColourModel(_log_probability(bins, object_weight) - _log_probability(bins, background_weight))

    def log_odds(self, bins: npt.NDArray[np.intp]) -> Array:
        return self.table[bins]


def _log_probability(bins: npt.NDArray[np.intp], weight: Array) -> Array:
    counts = np.bincount(bins.ravel(), weight.ravel(), minlength=int(np.prod(BINS))).reshape(BINS)
    # A little smoothing: neighbouring bins are the same colour under slightly different light.
    for axis in range(3):
        counts = gaussian_filter1d(counts, 0.8, axis=axis, mode="constant", truncate=2.0)
    probability = counts.ravel() / max(float(counts.sum()), 1e-12)
    return np.log(probability + UNSEEN).astype(np.float32)
