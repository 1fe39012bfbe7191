"""Several objects through one video: frame by frame, nearest first, one id for each pixel."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tam_backend.errors import TamError
from tam_backend.prompts import Mask
from tam_backend.propagators.base import SOFT_THRESHOLD
from tam_backend.tracking.tracker import Anchor, Step, TrackedFrame, Tracker

IdMap = npt.NDArray[np.uint8]

#: Object ids are pixel values of 8-bit images, where 0 is the background.
MAX_ID = 255


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
    """How far the generator of one object has come."""

    def __init__(self, tracker: Tracker, anchors: Mapping[int, Anchor], focus: int) -> None:
        self.anchors = anchors
        self.done: set[int] = set()
        self._tracker = tracker
        self._steps = tracker.steps(anchors, focus)
        self._last: TrackedFrame | None = None

    def advance(self) -> TrackedFrame | Step:
        step = next(self._steps)
        if isinstance(step, TrackedFrame):
            self._last = step
            self.done.add(step.frame)
        return step

    def at(self, frame: int) -> TrackedFrame:
        """A frame that is done. Only the last one is at hand; the others are in the store, packed."""
        if self._last is not None and self._last.frame == frame:
            return self._last
        tracked = self._tracker.stored(self.anchors, frame)
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
    """
    tracks = {object_id: _Track(tracker, anchors, focus) for object_id, anchors in sorted(objects.items())}
    try:
        for target in sorted(tracker.frames, key=lambda f: (abs(f - focus), f)):
            for track in tracks.values():
                while target not in track.done:
                    step = track.advance()
                    yield step
                    if isinstance(step, TrackedFrame) and all(step.frame in t.done for t in tracks.values()):
                        yield ObjectsFrame(step.frame, {i: t.at(step.frame) for i, t in tracks.items()})
    finally:
        for track in tracks.values():
            track.close()
