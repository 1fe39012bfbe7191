"""A video without what is taken out, for everything that looks at its motion."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from tam_backend.features.filters import window
from tam_backend.inpainting.embedded.completion import smooth_fill
from tam_backend.inpainting.holes import Holes
from tam_backend.video.base import Frame, Reader

#: Pixels around a hole that its filling is made from.
MARGIN = 24


class MaskedVideo:
    """A Reader whose holes are filled smoothly: what moves inside them does not pull the flow around them."""

    def __init__(self, video: Reader, holes: Holes) -> None:
        self._video, self._holes = video, holes

    @property
    def key(self) -> str:
        return f"{self._video.key} without {self._holes.key}"

    @property
    def height(self) -> int:
        return self._video.height

    @property
    def width(self) -> int:
        return self._video.width

    def __len__(self) -> int:
        return len(self._video)

    def __getitem__(self, index: int) -> Frame:
        frame, hole = self._video[index], self._holes.hole(index)
        if not hole.any() or hole.all():
            return frame
        rows, columns = window(hole, MARGIN)
        part, known = frame[rows, columns], (~hole[rows, columns]).astype(np.float32)
        # Only flow is computed from it, at about this size.
        size = (max(1, known.shape[1] // 2), max(1, known.shape[0] // 2))
        small = cv2.resize(part, size, interpolation=cv2.INTER_NEAREST).astype(np.float32)
        weight = np.asarray(cv2.resize(known, size, interpolation=cv2.INTER_NEAREST), np.float32)
        filled = smooth_fill(small, weight)
        large = cv2.resize(filled, (known.shape[1], known.shape[0]), interpolation=cv2.INTER_LINEAR)
        inside = hole[rows, columns]
        frame = frame.copy()
        frame[rows, columns][inside] = np.clip(large[inside], 0, 255).astype(np.uint8)
        return frame

    def __iter__(self) -> Iterator[Frame]:
        return (self[i] for i in range(len(self)))

    def __reversed__(self) -> Iterator[Frame]:
        return (self[i] for i in reversed(range(len(self))))

    def time(self, index: int) -> float:
        return self._video.time(index)

    def clone(self) -> MaskedVideo:
        return MaskedVideo(self._video.clone(), self._holes)

    def close(self) -> None:
        self._video.close()
