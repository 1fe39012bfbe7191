"""One object of one video in the hands of a robot: the same calls, in the same order, that a person's clicks cause.

What a click does here is what ``labelstudio.objects`` makes of one: the clicks of a frame count together, and they edit
the mask that was on the screen when the first of them was made.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from types import TracebackType

import numpy as np

from tam_backend.engines import Engine
from tam_backend.errors import TamError
from tam_backend.prompts import Box, Click, FramePrompts, Mask
from tam_backend.tracking.objects import IdMap, ObjectsFrame
from tam_backend.tracking.store import BlobStore
from tam_backend.tracking.tracker import Anchor, TrackedFrame, Tracker
from tam_backend.video.base import Reader


class Session:
    """Prompts in, masks out. clicks: how many were made. seconds, computed: time in the engine, and masks it made."""

    def __init__(self, engine: Engine, video: Reader, store: BlobStore, frames: range) -> None:
        self._tracker = Tracker(engine, video, frames, store)
        self._shape = (video.height, video.width)
        self._clicks: dict[int, tuple[Click, ...]] = {}
        self._priors: dict[int, Mask | None] = {}
        self.frames = frames
        self.anchors: dict[int, Anchor] = {}
        self.clicks = 0
        self.seconds = 0.0
        self.computed = 0

    def __enter__(self) -> Session:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._tracker.close()

    def shown(self, frame: int) -> Mask | None:
        """The mask that is on the screen, HxW bool; None if there is none (yet)."""
        tracked = self._tracker.stored(self.anchors, frame)
        return tracked.mask if tracked is not None and tracked.mask.any() else None

    def at(self, frame: int) -> TrackedFrame:
        """A frame that ``track`` came to. Raises TamError for one that is not finished."""
        tracked = self._tracker.stored(self.anchors, frame)
        if tracked is None:
            raise TamError(f"frame {frame} is not tracked yet, or the store has lost it")
        return tracked

    def click(self, frame: int, click: Click) -> Mask:
        """Click, and get the mask of that frame, HxW bool. Nothing else is computed yet."""
        if frame not in self._clicks:
            self._priors[frame] = self.shown(frame)
        self._clicks[frame] = (*self._clicks.get(frame, ()), click)
        self.clicks += 1
        return self._prompt(frame, FramePrompts(clicks=self._clicks[frame]), self._priors[frame])

    def box(self, frame: int, box: Box) -> Mask:
        return self._prompt(frame, FramePrompts(box=box), None)

    def draw(self, frame: int, mask: Mask) -> Mask:
        """Give the mask of a frame by hand. mask: HxW bool; it stays as it is."""
        return self._prompt(frame, FramePrompts(mask=mask), None)

    def track(self, focus: int) -> Generator[TrackedFrame, None, None]:
        """Every frame once, those near ``focus`` first. Nothing comes if no prompt says where the object is."""
        steps = self._tracker.track(self.anchors, focus)
        try:
            while True:
                began = time.perf_counter()
                tracked = next(steps, None)
                if tracked is None:
                    return
                if not (tracked.reused or tracked.by_hand):
                    self.seconds += time.perf_counter() - began
                    self.computed += 1
                yield tracked
        finally:
            steps.close()

    def _prompt(self, frame: int, prompts: FramePrompts, prior: Mask | None) -> Mask:
        if not prompts.locates and prior is None:
            return np.zeros(self._shape, bool)
        self.anchors[frame] = Anchor(prompts, prior)
        steps = self.track(frame)
        try:
            return next(steps).mask  # anchors come first, and the one in focus before the others
        finally:
            steps.close()


def ids_at(sessions: Mapping[int, Session], frame: int, height: int, width: int) -> IdMap:
    """HxW uint8: the objects of a frame, one for each pixel, as ``tam track`` writes them."""
    tracked = {i: s.at(frame) for i, s in sessions.items() if s.anchors and frame in s.frames}
    return ObjectsFrame(frame, tracked).ids if tracked else np.zeros((height, width), np.uint8)
