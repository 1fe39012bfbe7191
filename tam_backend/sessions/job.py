"""What background work consists of: a job, and the place where its video comes from and its masks go."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from tam_backend.errors import TamError
from tam_backend.sessions.progress import JobState
from tam_backend.sessions.tracks import Track
from tam_backend.video.base import Reader


class Obsolete(TamError):
    """Nobody can use the result any more: the task, or the label, is gone."""


@dataclass(frozen=True, slots=True)
class FollowPlan:
    """Where a track goes beyond its own task.

    frames: the part of the video. clips: the tasks that get masks, with their frames. track: what to compute.
    """

    track: Track
    clips: tuple[tuple[int, range], ...]


class Destination(Protocol):
    """Where videos come from and results go. All but ``open`` are called from one thread.

    Raises Obsolete when nobody can use the result any more, and other TamErrors when it is worth trying again.
    """

    def open(self, video: str) -> Reader:
        """A reader for the caller alone."""

    def deliver(self, track: Track) -> float | None:
        """Bring finished masks into the track's task. Seconds to wait before trying again, None if all is there."""

    def follow(self, track: Track) -> FollowPlan | None:
        """Plan the way into the other tasks of the track's video."""

    def fill(self, track: Track, task: int) -> None:
        """All frames of one of a plan's tasks are finished."""


@dataclass(slots=True, eq=False)
class Job:
    """A track in the hands of a process.

    held: a request computes it, or it is not known yet where it goes. superseded: it is no job any more. clips: the
    other tasks to fill, with their frames. finished: frames of the video. served: when it computed last.
    left_to_deliver: what has to happen until it is done. retry: seconds until the next attempt to reach Label Studio.
    finishing: all frames are done, and it is at the finishing pass (see ``Tracker.steps``).
    """

    track: Track
    held: bool = False
    superseded: bool = False
    clips: dict[int, range] = field(default_factory=dict)
    finished: set[int] = field(default_factory=set)
    served: float = 0.0
    seconds_per_frame: float | None = None
    left_to_deliver: set[object] = field(default_factory=set)
    retry: float = 0.0
    finishing: bool = False

    @property
    def computes(self) -> bool:
        return self.track.state in (JobState.WAITING, JobState.RUNNING) and not self.held and not self.superseded
