"""Several objects through one video: frame by frame, nearest first, one id for each pixel."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from tam_backend.errors import TamError
from tam_backend.prompts import Mask
from tam_backend.propagators.base import SOFT_THRESHOLD
from tam_backend.tracking.tracker import Anchor, Step, TrackedFrame, Tracker

IdMap = npt.NDArray[np.uint8]

#: Object ids are pixel values of 8-bit images, where 0 is the background.
MAX_ID = 255
#: Of several objects that are worked on at once, none is more than so many frames before the slowest.
AHEAD = 1
#: Finished frames of an object that stay at hand until the other objects have finished them.
RECENT = AHEAD + 2


@dataclass(frozen=True, slots=True, eq=False)
class ObjectsFrame:
    """All objects on one frame. objects: id -> its own track there. ids: HxW uint8, which of them has a pixel."""

    frame: int
    objects: Mapping[int, TrackedFrame]

    @property
    def ids(self) -> IdMap:
        """HxW uint8: 0 background, else the id of the object that claims the pixel most; see ``settle``."""
        ids = sorted(self.objects)
        table = np.array([0, *ids], np.uint8)
        return np.asarray(table[settle([self.objects[i] for i in ids])])


def settle(objects: Sequence[TrackedFrame]) -> npt.NDArray[np.uint8]:
    """HxW uint8: 0 background, else 1 + the index of the object that claims the pixel most. At most 255 objects.

    A mask drawn by hand beats one that came from clicks on this frame, and that beats one that was propagated to it.
    Among equals the higher soft value wins, then the earlier object.
    """
    owner = np.zeros(objects[0].soft.shape, np.uint8)
    best = np.zeros(owner.shape, np.uint16)
    for number, tracked in enumerate(objects, 1):
        claim = tracked.soft.astype(np.uint16) + np.uint16(256 * (tracked.anchor + tracked.by_hand))
        wins = (tracked.soft >= SOFT_THRESHOLD) & (claim > best)
        owner[wins] = number
        best[wins] = claim[wins]
    return owner


def own_pixels(tracked: TrackedFrame, before: Sequence[TrackedFrame], after: Sequence[TrackedFrame]) -> Mask:
    """HxW bool: an object's mask without what others claim more. before, after: the others, by who goes first where
    two are equally sure."""
    mask = tracked.mask
    before, after = ([t for t in some if np.any(t.mask & mask)] for some in (before, after))
    if not before and not after:
        return mask
    return np.asarray(settle([*before, tracked, *after]) == len(before) + 1)


class _Track:
    """How far the generator of one object has come. targets: the frames it is to finish, in order; position: the first
    of them that is not done."""

    def __init__(self, tracker: Tracker, anchors: Mapping[int, Anchor], focus: int, targets: Sequence[int]) -> None:
        self.anchors = anchors
        self.done: set[int] = set()
        self.position = 0
        self._targets = targets
        self._tracker = tracker
        self._steps = tracker.steps(anchors, focus)
        self._recent: dict[int, TrackedFrame] = {}

    @property
    def unfinished(self) -> bool:
        return self.position < len(self._targets)

    def advance(self) -> TrackedFrame | Step:
        """One step. Touches nothing but the generator, which other tracks have nothing to do with."""
        return next(self._steps)

    def note(self, step: TrackedFrame | Step) -> None:
        """Take in what ``advance`` returned."""
        if isinstance(step, TrackedFrame):
            self.done.add(step.frame)
            self._recent[step.frame] = step
            if len(self._recent) > RECENT:
                del self._recent[next(iter(self._recent))]
        while self.unfinished and self._targets[self.position] in self.done:
            self.position += 1

    def at(self, frame: int) -> TrackedFrame:
        """A frame that is done. Only the last ones are at hand; the others are in the store, packed."""
        tracked = self._recent.get(frame) or self._tracker.stored(self.anchors, frame)
        if tracked is None:
            raise TamError(f"the finished mask of frame {frame} is gone: the store was emptied, or it is too small")
        return tracked

    def close(self) -> None:
        self._steps.close()


def track_objects(
    tracker: Tracker, objects: Mapping[int, Mapping[int, Anchor]], focus: int
) -> Generator[TrackedFrame | Step | ObjectsFrame, None, None]:
    """Track objects (id -> frame -> anchor) through the range of frames of ``tracker``.

    Yields what ``Tracker.steps`` does after each step of one object, so that the caller can stop or count there, and an
    ObjectsFrame as soon as a frame is finished for all objects: once for every frame, those nearest to ``focus`` as
    early as the order of propagation permits. Stop at any time: what was done is in the store of the tracker. Raises
    BadInput as ``Tracker.steps`` does, and TamError if the store loses frames while this runs.

    With an engine that permits it, several objects are worked on at once, one on each core. What comes out is the same:
    no object's masks depend on another's.
    """
    targets = sorted(tracker.frames, key=lambda f: (abs(f - focus), f))
    tracks = {i: _Track(tracker, anchors, focus, targets) for i, anchors in sorted(objects.items())}
    workers = min(len(tracks), cv2.getNumThreads()) if tracker.concurrent else 1
    steps = _in_turns(tracks) if workers < 2 else _at_once(tracks, workers)
    try:
        with contextlib.closing(steps):
            for step in steps:
                yield step
                if isinstance(step, TrackedFrame) and all(step.frame in t.done for t in tracks.values()):
                    yield ObjectsFrame(step.frame, {i: t.at(step.frame) for i, t in tracks.items()})
    finally:
        for track in tracks.values():
            track.close()


def _in_turns(tracks: Mapping[int, _Track]) -> Generator[TrackedFrame | Step, None, None]:
    """All tracks to the end, each target by one after the other."""
    while waiting := _behind(tracks.values(), 0):
        step = waiting[0].advance()
        waiting[0].note(step)
        yield step


def _at_once(tracks: Mapping[int, _Track], workers: int) -> Generator[TrackedFrame | Step, None, None]:
    """All tracks to the end, ``workers`` at a time. None is more than ``AHEAD`` targets before the last one."""
    running: dict[Future[TrackedFrame | Step], _Track] = {}
    with ThreadPoolExecutor(workers, "object") as pool:  # leaving waits for the steps that have begun
        while waiting := _behind(tracks.values(), AHEAD):
            free = [t for t in waiting if t not in running.values()]
            running |= {pool.submit(t.advance): t for t in free[: workers - len(running)]}
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                step = future.result()
                running.pop(future).note(step)
                yield step


def _behind(tracks: Iterable[_Track], ahead: int) -> list[_Track]:
    """The tracks with targets left that are at most so many before the last one, the last one first."""
    left = sorted((t for t in tracks if t.unfinished), key=lambda t: t.position)
    return [t for t in left if t.position <= left[0].position + ahead]
