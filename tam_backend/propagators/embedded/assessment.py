"""The quality figure of the embedded engine: what it shows to the watch of ``tam_backend.quality``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from tam_backend.features import FrameFeatures
from tam_backend.propagators.base import SoftMask
from tam_backend.quality import Watch, load_calibration
from tam_backend.video.base import Reader

#: An object that no anchor shows is absent; each frame of the way makes that a little less sure.
ABSENT = 0.98


class Assessment:
    """Of one object in one direction, at the size of the flow."""

    def __init__(self, features: FrameFeatures, video: Reader, anchors: Mapping[int, SoftMask]) -> None:
        """anchors: frame -> soft mask of the working size or larger, HxW uint8."""
        self._features, self._video = features, video
        geometry = features.geometry(video)
        self._size = (geometry.flow_width, geometry.flow_height)
        self._watch = Watch((self._reduce(soft), features.small_lab(video, f)) for f, soft in anchors.items())
        self._numbers = load_calibration("embedded")
        self._absent = 1.0

    def state(self) -> npt.NDArray[np.float64]:
        """5 float64."""
        return np.append(self._watch.state(), self._absent)

    def resume(self, state: npt.NDArray[Any]) -> None:
        self._watch.resume(state[:-1])
        self._absent = float(state[-1])

    def parts(self, last: int | None, frame: int, soft: SoftMask) -> dict[str, float] | None:
        """What speaks against the mask of a frame that was reached from ``last``; None for an empty mask.

        last: None where no flow leads to the frame, because it is in another shot: then motion tells nothing. soft: HxW
        uint8 of the working size or larger.
        """
        lab = self._features.small_lab(self._video, frame)
        if last is None:
            still = np.zeros((self._size[1], self._size[0], 2), np.float32)
            return self._watch.step(self._reduce(soft), lab, still, still)
        back = self._features.flow(self._video, frame, last)
        there = self._features.flow(self._video, last, frame)
        return self._watch.step(self._reduce(soft), lab, back, there)

    def quality(self, last: int | None, frame: int, soft: SoftMask) -> float:
        """Estimated IoU of the mask in [0, 1]. Arguments as for ``parts``."""
        if not self._watch.shown:
            self._absent *= ABSENT
            return self._absent
        found = self.parts(last, frame, soft)
        if found is None:
            return self._numbers.empty_known if self._watch.absent else self._numbers.empty
        return self._numbers.estimate(found)

    def _reduce(self, soft: SoftMask) -> SoftMask:
        return np.asarray(cv2.resize(soft, self._size, interpolation=cv2.INTER_AREA), np.uint8)
