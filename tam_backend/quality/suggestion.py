"""Which frame a person should correct next: the one whose correction is expected to help most."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

#: A correction is expected to help no farther than this, frames.
REACH = 128
#: Quality to expect ``d`` frames from a confirmed frame, before a video has shown its own: START - FALL x log(d).
#: That counts as much as FIRM frames that were seen (the slope 4 times as much), and no slope is below LEAST_FALL:
#: where all masks are poor, they would seem to lose nothing with distance, and frames be asked for one by one.
START, FALL, FIRM, LEAST_FALL = 0.88, 0.07, 8.0, 0.1
#: By how much the estimate of a single frame errs (standard deviation). Where the estimates of a video differ from what
#: is usual at their distances by more than that, they are believed; where by less, the distance is.
ESTIMATE_ERROR = 0.15
#: Of what the curve promises to the frames around a correction, so much comes true: the median over what corrections of
#: the middle frame changed in seven sequences.
COMES_TRUE = 0.7
#: How hard it is to follow the object from a corrected frame to one around it: so much by the corrected frame, the rest
#: by the other; divided by the number of confirmed frames, because the ways become short. (Where a mask is poor because
#: the object can hardly be seen, the frame is a poor start even when the mask is right. Found on seven sequences with
#: LEAST_FALL and ESTIMATE_ERROR: see docs/measurements.md.)
START_COUNTS = 0.4
#: No mask is expected to be nearer to perfect than this.
LEAST_ERROR = 0.01
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

    What is missing to 1 in a quality is the frame's error. A correction makes the error of its own frame 0, and that
    of a frame around it smaller: to the usual error so far from a confirmed frame, times how hard the way is. The
    usual error at a distance is learned from the masks that there are (``Usual``); how hard the way is, is the error
    over the usual one, of the frame itself and, while few are confirmed, to a smaller part of the corrected frame. So
    where masks lose little with distance, because they are poor at once, or good for long, the poorest frame is
    suggested; where they lose much, one that divides the way; a hard stretch is not expected to become as good as an
    easy one; and beside frames on which the object can hardly be seen, one on which it can is suggested first. The
    estimate of a frame counts only in part, because it errs: the other part is what is usual at its distance. The parts
    are those of the mean of two normal distributions: by how much the estimates differ from what is usual, and by how
    much they err (``ESTIMATE_ERROR``).
    """
    fixed = np.array(sorted(confirmed), np.int64)
    frames = np.array(sorted(quality.keys() - set(confirmed)), np.int64)
    if not len(frames):
        return None
    values = np.array([quality[f] for f in frames.tolist()], np.float64)
    distance = _distances(frames, fixed)
    usual = Usual.learn(values, distance)
    at_present = usual.error(distance)
    unusual = 1 - values - at_present
    variance = float(np.mean(unusual * unusual))
    errors = at_present + variance / (variance + ESTIMATE_ERROR**2) * unusual
    curve = usual.error(np.arange(REACH + 1))
    curve[0] = 0.0
    gains = (1 - COMES_TRUE) * errors + COMES_TRUE * _gains(
        frames, distance, errors, errors / at_present, curve, START_COUNTS / max(1, len(fixed))
    )
    # Rounded, so that the order of a sum decides nothing between equals.
    best = int(np.argmax(np.round(gains, 9)))
    return Suggestion(int(frames[best]), float(gains[best]))


@dataclass(frozen=True, slots=True)
class Usual:
    """Quality by distance from the nearest confirmed frame: start - fall x log(frames)."""

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

    def error(self, distance: npt.NDArray[np.int64]) -> Array:
        """What is missing to 1 in the quality, at distances in frames; at 0 as at 1."""
        return np.clip(1 - self.start + self.fall * np.log(np.maximum(distance, 1)), LEAST_ERROR, 1.0)


def _distances(frames: npt.NDArray[np.int64], fixed: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Frames from each to the nearest confirmed one; very many if there is none."""
    far = np.int64(4 * REACH)
    ends = np.concatenate([[frames[0] - far], fixed, [frames[-1] + far]])
    at = np.searchsorted(ends, frames)
    return np.minimum(np.minimum(frames - ends[at - 1], ends[at] - frames), far)


def _gains(
    frames: npt.NDArray[np.int64],
    distance: npt.NDArray[np.int64],
    errors: Array,
    hard: Array,
    curve: Array,
    start_counts: float,
) -> Array:
    """What the errors of all frames within ``REACH`` lose in sum if one of the frames, which are sorted, is corrected.

    distance: to the nearest confirmed frame. hard: errors over the usual ones at the same distance. curve: usual errors
    by the distance from the correction. start_counts: see ``START_COUNTS``.
    """
    # Laid out by frame number, with REACH frames that cannot gain on either side and in gaps.
    first, size = int(frames[0]), int(frames[-1] - frames[0]) + 1
    lines = np.zeros((3, size + 2 * REACH), np.float32)
    lines[:, frames - first + REACH] = errors, (1 - start_counts) * hard, distance
    windows = np.lib.stride_tricks.sliding_window_view(lines, 2 * REACH + 1, axis=1)
    offsets = np.abs(np.arange(-REACH, REACH + 1))
    hope = curve[offsets].astype(np.float32)
    start = (start_counts * hard).astype(np.float32)
    gains = np.empty(len(frames))
    for at in range(0, len(frames), _CHUNK):
        part = frames[at : at + _CHUNK] - first
        better = windows[0, part] - (windows[1, part] + start[at : at + _CHUNK, None]) * hope
        # Where a confirmed frame is nearer than the correction, nothing changes.
        better *= windows[2, part] > offsets
        gains[at : at + _CHUNK] = np.maximum(better, 0, out=better).sum(axis=1, dtype=np.float64)
    return gains
