"""Ten frames of a disc that moves, tracked by an engine from one click."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from tam_backend.engines import Engine
from tam_backend.prompts import Click, FramePrompts, Mask
from tam_backend.tracking.store import MemoryStore
from tam_backend.tracking.tracker import Anchor, Tracker
from tam_backend.video.base import Frame

FRAMES = 10
_HEIGHT, _WIDTH = 192, 256
_RADIUS, _STEP = 32, 6


@dataclass(frozen=True, slots=True)
class Trial:
    """first: seconds from the click to its mask. each: seconds per propagated frame. worst: lowest intersection over
    union with the true mask of all frames."""

    first: float
    each: float
    worst: float


def try_engine(engine: Engine) -> Trial:
    """Click on the first frame and track to the last. What the engine raises goes through."""
    video = _Disc()
    x, y = _centre(0)
    with Tracker(engine, video, range(FRAMES), MemoryStore(100_000_000)) as tracker:
        frames = tracker.track({0: Anchor(FramePrompts(clicks=(Click(x, y),)))}, 0)
        began = time.perf_counter()
        masks = [next(frames).mask]
        first = time.perf_counter() - began
        masks += [tracked.mask for tracked in frames]
        each = (time.perf_counter() - began - first) / (FRAMES - 1)
    return Trial(first, each, min(_overlap(mask, video.truth(i)) for i, mask in enumerate(masks)))


class _Disc:
    """A ``Reader``: a bright textured disc that moves to the right over a darker texture that stands still."""

    key = "doctor"
    height, width = _HEIGHT, _WIDTH

    def __init__(self) -> None:
        random = np.random.default_rng(0)
        self._ground = _texture(random, (70, 90, 60), 30)
        self._object = _texture(random, (215, 120, 60), 30)

    def __len__(self) -> int:
        return FRAMES

    def __getitem__(self, index: int) -> Frame:
        if not 0 <= index < FRAMES:
            raise IndexError(index)
        moved = np.roll(self._object, index * _STEP, axis=1)
        return np.where(self.truth(index)[..., None], moved, self._ground)

    def __iter__(self) -> Iterator[Frame]:
        return (self[i] for i in range(FRAMES))

    def __reversed__(self) -> Iterator[Frame]:
        return (self[i] for i in reversed(range(FRAMES)))

    def time(self, index: int) -> float:
        return index / 25

    def clone(self) -> _Disc:
        return _Disc()

    def close(self) -> None:
        pass

    def truth(self, index: int) -> Mask:
        x, y = _centre(index)
        rows, columns = np.mgrid[:_HEIGHT, :_WIDTH] + 0.5
        return np.asarray((columns - x) ** 2 + (rows - y) ** 2 <= _RADIUS**2)


def _centre(index: int) -> tuple[float, float]:
    return 80.0 + _STEP * index, 96.0


def _texture(random: np.random.Generator, colour: tuple[int, int, int], contrast: float) -> Frame:
    coarse = random.normal(0, contrast, (_HEIGHT // 8, _WIDTH // 8, 1)).astype(np.float32)
    grain = cv2.resize(coarse, (_WIDTH, _HEIGHT), interpolation=cv2.INTER_CUBIC)[..., None]
    return np.asarray(np.clip(np.array(colour, np.float32) + grain, 0, 255), np.uint8)


def _overlap(mask: Mask, truth: Mask) -> float:
    return float((mask & truth).sum() / max(1, (mask | truth).sum()))
