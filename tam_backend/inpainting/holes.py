"""What is taken out of a video: for each frame the pixels to fill, and those that must not serve as a source."""

from __future__ import annotations

from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from tam_backend.prompts import Mask


class Holes(Protocol):
    """Holes by frame, of one size. The same key means the same holes."""

    @property
    def key(self) -> str: ...

    def hole(self, frame: int) -> Mask:
        """HxW bool: the pixels to fill."""

    def avoid(self, frame: int) -> Mask | None:
        """HxW bool: pixels of other objects, which are not background; None: there are none."""


def grow(mask: Mask, pixels: int) -> Mask:
    """HxW bool, grown by a diamond of this radius (a cross, so many times)."""
    if pixels == 0:
        return mask
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    return np.asarray(cv2.dilate(mask.astype(np.uint8), cross, iterations=pixels), np.uint8).astype(np.bool_)


def unite(masks: list[npt.NDArray[np.bool_]]) -> Mask | None:
    """The pixels of any of them; None if there are none."""
    return np.logical_or.reduce(masks) if masks else None
