"""Where one shot ends and the next begins: hard cuts, and fades of up to about a second.

Decided on small pictures, from the few frames around the place in question: the answer is the same in whichever
direction and from wherever a video is gone through.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from tam_backend.errors import MediaError
from tam_backend.features.frames import FrameFeatures
from tam_backend.video.base import Reader

Array = npt.NDArray[np.float32]

#: Width and height of the small pictures.
SMALL = (64, 36)
#: Levels of L, a and b by which their colours are counted, and the range of a and b that is told apart.
LEVELS, CHROMA = (16, 8, 8), (96, 160)
#: Change from one frame to the next (see ``_change``) that may be a cut. The slowest cut of our videos has 0.16, the
#: fastest motion 0.08.
CUT = 0.12
#: A cut stands out: it changes so many times as much as the median of the frames around it, and most of those close by.
STANDS_OUT, AROUND, CLOSE = 3.0, 6, 3
#: Half the frames over which a fade is looked for, and the change over them that it makes at least.
FADE, FADE_CHANGE = 6, 0.3
#: In a fade every picture is a mixture of the first and the last one but for this share of their difference, with
#: shares that go down from frame to frame (but for this much), and none of them alone more than this.
FADE_REST, FADE_WOBBLE, FADE_STEP = 0.45, 0.03, 0.5


class Shots:
    """Answers for any number of videos; small pictures are kept with the other features. Thread-safe."""

    def __init__(self, features: FrameFeatures | None = None) -> None:
        self._features = features if features is not None else FrameFeatures()

    def cut(self, video: Reader, frame: int, other: int) -> bool:
        """Whether two neighbouring frames belong to different shots; of a fade, where it is half done.

        A frame that cannot be read is like the one beside it.
        """
        first = max(frame, other)
        return self._hard(video, first) or (self._fade_at(video, first) and not self._hard_near(video, first))

    def _small(self, video: Reader, frame: int) -> npt.NDArray[np.uint8] | None:
        def compute() -> npt.NDArray[np.uint8]:
            lab = self._features.lab(video, frame)
            return np.asarray(cv2.resize(lab, SMALL, interpolation=cv2.INTER_AREA), np.uint8)

        try:
            return self._features.store.get((video.key, "small", frame), compute)
        except MediaError:
            return None

    def _changed(self, video: Reader, first: int, second: int) -> float:
        """Between two frames; those beyond the ends of the video are like the ends."""
        last = len(video) - 1
        first, second = (min(max(f, 0), last) for f in (first, second))
        if first == second:
            return 0.0

        def compute() -> Array:
            a, b = self._small(video, first), self._small(video, second)
            return np.array(0.0 if a is None or b is None else _change(a, b), np.float32)

        return float(self._features.store.get((video.key, "change", first, second), compute))

    def _hard(self, video: Reader, first: int) -> bool:
        change = self._changed(video, first - 1, first)
        if change < CUT or self._changed(video, first - CLOSE, first + CLOSE - 1) < CUT:  # the latter: only a flash
            return False
        around = {d: self._changed(video, first + d - 1, first + d) for d in range(-AROUND, AROUND + 1)}
        if any(around[d] >= change if d < 0 else around[d] > change for d in range(-CLOSE, CLOSE + 1)):
            return False
        return change >= STANDS_OUT * float(np.median([c for d, c in around.items() if abs(d) > 1]))

    def _hard_near(self, video: Reader, first: int) -> bool:
        return any(self._hard(video, f) for f in range(first - FADE, first + FADE + 1) if 0 < f < len(video))

    def _fade_at(self, video: Reader, first: int) -> bool:
        here = self._fade(video, first)
        if here == 0:
            return False
        earlier = (self._fade(video, first - d) for d in range(1, FADE + 1))
        later = (self._fade(video, first + d) for d in range(1, FADE + 1))
        return all(e < here for e in earlier) and all(e <= here for e in later)

    def _fade(self, video: Reader, first: int) -> float:
        """How large a fade with its middle between ``first - 1`` and ``first`` is; 0: there is none."""
        begin, end = first - FADE, first + FADE - 1
        if begin < 0 or end >= len(video) or self._changed(video, begin, end) < FADE_CHANGE:
            return 0.0

        def compute() -> Array:
            pictures = [self._small(video, f) for f in range(begin, end + 1)]
            known = [p for p in pictures if p is not None]
            return np.array(_mixture(known) if len(known) == len(pictures) else 0.0, np.float32)

        return float(self._features.store.get((video.key, "fade", first), compute))


def _change(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> float:
    """In [0, 2]: how little the colours of two pictures overlap, times one minus the correlation of their lightness.

    Motion moves things but keeps their colours; light changes colours but keeps the picture; a cut does both.
    """
    colours = 0.5 * float(np.abs(_histogram(a) - _histogram(b)).sum())
    x, y = (p[..., 0].astype(np.float64).ravel() for p in (a, b))
    x, y = x - x.mean(), y - y.mean()
    length = float(np.linalg.norm(x) * np.linalg.norm(y))
    return colours * (1 - float(x @ y) / length if length > 0 else 1.0)


def _histogram(lab: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Share of each colour, lightness relative to its mean."""
    low, high = CHROMA
    lightness = lab[..., 0].astype(np.int64)
    number = np.clip(lightness - round(float(lightness.mean())) + 128, 0, 255) * LEVELS[0] // 256
    for channel, levels in ((1, LEVELS[1]), (2, LEVELS[2])):
        part = np.clip((lab[..., channel].astype(np.int64) - low) * levels // (high - low), 0, levels - 1)
        number = number * levels + part
    return np.bincount(number.ravel(), minlength=int(np.prod(LEVELS))) / number.size


def _mixture(pictures: list[npt.NDArray[np.uint8]]) -> float:
    """The distance from the first picture to the last if those between fade from one into the other, else 0."""
    stack = np.stack(pictures).astype(np.float64).reshape(len(pictures), -1)
    way = stack[0] - stack[-1]
    length = float(np.linalg.norm(way))
    shares = (stack - stack[-1]) @ way / max(length, 1e-9) ** 2
    rest = np.linalg.norm(stack - stack[-1] - shares[:, None] * way, axis=1) / max(length, 1e-9)
    steps = -np.diff(shares)
    middle = len(pictures) // 2
    fades = rest.max() <= FADE_REST and steps.min() >= -FADE_WOBBLE and steps.max() <= FADE_STEP
    return length if fades and shares[middle - 1] > 0.5 >= shares[middle] else 0.0
