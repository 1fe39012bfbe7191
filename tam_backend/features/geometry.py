"""The sizes at which a video is worked on."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

#: Frames with more pixels than this are worked on at a reduced size.
WORK_AREA = 854 * 480
#: Flow is computed at half the working size, but never with a short side below this.
MIN_FLOW_SIDE = 96


@dataclass(frozen=True, slots=True)
class Geometry:
    """Three sizes of one frame: as it is shown, as masks are computed, as dense flow is computed."""

    height: int
    width: int
    work_height: int
    work_width: int
    flow_height: int
    flow_width: int

    @staticmethod
    def of(height: int, width: int) -> Geometry:
        scale = min(1.0, math.sqrt(WORK_AREA / (height * width)))
        work_h, work_w = max(1, round(height * scale)), max(1, round(width * scale))
        half = min(work_h, work_w) >= 2 * MIN_FLOW_SIDE
        flow_h, flow_w = ((work_h + 1) // 2, (work_w + 1) // 2) if half else (work_h, work_w)
        return Geometry(height, width, work_h, work_w, flow_h, flow_w)

    @property
    def work_shape(self) -> tuple[int, int]:
        return self.work_height, self.work_width

    @property
    def diagonal(self) -> float:
        """Of the working size, in pixels."""
        return math.hypot(self.work_height, self.work_width)

    def to_work(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Reduce an image or a uint8 mask of the shown size to the working size (area average)."""
        if image.shape[:2] == self.work_shape:
            return image
        return np.asarray(
            cv2.resize(image, (self.work_width, self.work_height), interpolation=cv2.INTER_AREA), np.uint8
        )

    def to_full(self, soft: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Enlarge a soft mask of the working size to the shown size; linear between pixels, so edges stay smooth."""
        if soft.shape == (self.height, self.width):
            return soft
        return np.asarray(cv2.resize(soft, (self.width, self.height), interpolation=cv2.INTER_LINEAR), np.uint8)
