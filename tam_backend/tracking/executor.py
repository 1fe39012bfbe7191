"""Who computes what is tracked: this process, or workers elsewhere (``tam_backend.cluster.sessions``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from tam_backend.engines import Engine
from tam_backend.tracking.store import BlobStore
from tam_backend.tracking.tracker import Tracker
from tam_backend.video.base import Reader


class Executor(Protocol):
    """Makes trackers. All of them read and write ``store`` in this process, wherever they compute."""

    def tracker(self, video: Reader, frames: range, store: BlobStore, reach: range) -> Tracker:
        """See Tracker; the caller closes it."""
        ...

    def close(self) -> None:
        """No tracker is at work any more."""
        ...


@dataclass(frozen=True, slots=True)
class Here:
    """This process."""

    engine: Engine

    def tracker(self, video: Reader, frames: range, store: BlobStore, reach: range) -> Tracker:
        return Tracker(self.engine, video, frames, store, reach)

    def close(self) -> None:
        pass
