"""Which frame a person should correct next: the one whose correction is expected to help most."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

#: A correction is expected to help no farther than this, frames.
REACH = 128
#: Quality to expect ``d`` frames from a confirmed frame, before a video has shown its own: START - FALL x log(d).
#: That counts as much as FIRM frames that were seen (the slope 4 times as much), and no slope is below LEAST_FALL.
START, FALL, FIRM, LEAST_FALL = 0.88, 0.07, 8.0, 0.05
#: How far the estimate of a single frame is believed; the rest is what is usual at its distance.
BELIEF = 0.4
#: Candidates that are worked on at once, to keep memory small.
_CHUNK = 256

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Suggestion:
    """gain: by how much the sum of the qualities of all frames is expected to rise if ``frame`` is corrected."""

    frame: int
    gain: float


def suggest(quality: Mapping[int, float], confirmed: Collection[int]) -> Suggestion | None:
    """The frame to correct next, the earliest of equals; None if all frames that have masks are confirmed.

    quality: frame -> estimated IoU in [0, 1] of its mask, of the frames that are tracked. confirmed: frames whose mask
    a person has decided, tracked or not; what ``quality`` says of them does not matter.

    A correction takes over the frames that are nearer to it than to any confirmed frame. There quality is expected to
    rise to what is usual at that distance from a confirmed frame, which is learned from the masks that there are
    (``Usual``), and to stay where it is better already. The corrected frame itself will be right. The estimate of a
    frame counts only in part, because it errs: the other part is what is usual at its distance. So frames are suggested
    that are poor, that have poor frames around them, and that are far from confirmed ones.
    """
    fixed = np.array(sorted(confirmed), np.int64)
    frames = np.array(sorted(quality.keys() - set(confirmed)), np.int64)
    if not len(frames):
        return None
    values = np.array([quality[f] for f in frames.tolist()], np.float64)
    before, after = _distances(frames, fixed)
    distance = np.minimum(before, after)
    usual = Usual.learn(values, distance)
    believed = BELIEF * values + (1 - BELIEF) * usual.at(distance)
    gains = _gains(frames, believed, before, after, usual.at(np.arange(REACH + 1)))
    # Rounded, so that the order of a sum decides nothing between equals.
    best = int(np.argmax(np.round(gains, 9)))
    return Suggestion(int(frames[best]), float(gains[best]))


@dataclass(frozen=True, slots=True)
class Usual:
    """Quality by distance from the nearest confirmed frame: start - fall x log(frames), and 0 at least."""

    start: float
    fall: float

    @staticmethod
    def learn(values: Array, distance: npt.NDArray[np.int64]) -> Usual:
        """From the frames that are not confirmed, qualities and distances in frames: least squares, held to what is
        expected of any video."""
        way = np.log(distance)
        off = values - (START - FALL * way)
        sums = np.array([[len(way) + FIRM, -way.sum()], [-way.sum(), (way * way).sum() + 4 * FIRM]])
        start, fall = np.linalg.solve(sums, np.array([off.sum(), -(way * off).sum()]))
        return Usual(START + float(start), max(FALL + float(fall), LEAST_FALL))

    def at(self, distance: npt.NDArray[np.int64]) -> Array:
        """Qualities at distances in frames; at 0 as at 1."""
        return np.asarray(np.maximum(self.start - self.fall * np.log(np.maximum(distance, 1)), 0.0))


def _distances(
    frames: npt.NDArray[np.int64], fixed: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Frames to the last confirmed frame before each and to the first one after it; very many where there is none."""
    far = np.int64(4 * REACH)
    ends = np.concatenate([[frames[0] - far], fixed, [frames[-1] + far]])
    at = np.searchsorted(ends, frames)
    return np.minimum(frames - ends[at - 1], far), np.minimum(ends[at] - frames, far)


def _gains(
    frames: npt.NDArray[np.int64], values: Array, before: npt.NDArray[np.int64], after: npt.NDArray[np.int64],
    expected: Array,
) -> Array:  # fmt: skip
    """The expected gain of each of the frames, which are sorted."""
    # Laid out by frame number, with REACH frames that cannot gain on either side and in gaps.
    first, size = int(frames[0]), int(frames[-1] - frames[0]) + 1
    timeline = np.ones(size + 2 * REACH, np.float32)
    timeline[frames - first + REACH] = values
    windows = np.lib.stride_tricks.sliding_window_view(timeline, 2 * REACH + 1)
    way = np.arange(-REACH, REACH + 1)
    hope = expected[np.abs(way)].astype(np.float32)
    hope[REACH] = 1.0
    gains = np.empty(len(frames))
    for start in range(0, len(frames), _CHUNK):
        part = slice(start, start + _CHUNK)
        better = hope - windows[frames[part] - first]
        np.maximum(better, 0, out=better)
        # Nearer to the candidate than to the confirmed frames on either side.
        better *= (2 * way >= -before[part, None]) & (2 * way <= after[part, None])
        gains[part] = better.sum(axis=1, dtype=np.float64)
    return gains
