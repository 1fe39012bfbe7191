"""Videos made of others, for ``calibrate_quality.py``."""

from __future__ import annotations

import math

import cv2
import numpy as np

from tam_backend.prompts import Mask
from tam_backend.video.base import Frame, Reader


class Thinned:
    """Every n-th frame of a video."""

    def __init__(self, video: Reader, step: int) -> None:
        self._video, self._step = video, step
        self.key = f"{video.key}/{step}"
        self.height, self.width, self.fps = video.height, video.width, video.fps

    def __len__(self) -> int:
        return -(-len(self._video) // self._step)

    def __getitem__(self, index: int) -> Frame:
        return self._video[index * self._step]

    def clone(self) -> Thinned:
        return Thinned(self._video.clone(), self._step)


class Twins:
    """A video at half its size in which the object has a twin that crosses its way and passes in front of it.

    The twin is the object at the same time before the end, moved from one side of the object to the other. So masks
    have something like the object to drift to, which sequences with one object lack.
    """

    def __init__(self, video: Reader, truth: list[Mask]) -> None:
        self._video = video
        self.key = f"{video.key}/twins"
        self.height, self.width, self.fps = video.height // 2, video.width // 2, video.fps
        self._own = [self._half(m.astype(np.uint8)) > 0 for m in truth]
        self._reach = 1.5 * float(np.median([np.count_nonzero(m.any(axis=0)) for m in self._own]))

    def __len__(self) -> int:
        return len(self._video)

    def __getitem__(self, index: int) -> Frame:
        frame, (twin, other) = self._half(self._video[index]), self._twin(index)
        frame[twin] = self._shifted(self._half(self._video[other]), index)[twin]
        return frame

    def truth(self, index: int) -> Mask:
        return self._own[index] & ~self._twin(index)[0]

    def clone(self) -> Twins:
        copy = object.__new__(Twins)
        copy.__dict__ = self.__dict__ | {"_video": self._video.clone()}
        return copy

    def _twin(self, index: int) -> tuple[Mask, int]:
        other = len(self) - 1 - index
        return self._shifted(self._own[other].astype(np.uint8), index) > 0, other

    def _shifted(self, image: Frame, index: int) -> Frame:
        across = self._reach * math.cos(math.pi * index / (len(self) - 1))
        move = np.array([[1, 0, across], [0, 1, 0]], np.float32)
        return np.asarray(cv2.warpAffine(image, move, (self.width, self.height), flags=cv2.INTER_NEAREST), np.uint8)

    def _half(self, image: Frame) -> Frame:
        return np.asarray(cv2.resize(image, (self.width, self.height), interpolation=cv2.INTER_AREA), np.uint8)
