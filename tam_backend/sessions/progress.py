"""Background work as people see it: plain data that the page /status and the mark on served frames show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class JobState(StrEnum):
    """waiting: for its turn. delivering: computed, its masks wait for a moment when nobody works on the task."""

    WAITING = "waiting"
    RUNNING = "running"
    DELIVERING = "delivering"
    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"


#: The states in which there is still something to do; and the same for SQL.
UNFINISHED_STATES = (JobState.WAITING, JobState.RUNNING, JobState.DELIVERING)
UNFINISHED = ", ".join(f"'{s}'" for s in UNFINISHED_STATES)


@dataclass(frozen=True, slots=True)
class JobView:
    """One object of one task that is, or was lately, tracked in the background.

    label_studio: address of its Label Studio without a trailing slash. frames_done of frames_total have their masks.
    seconds_left: None while it is not known. error: a sentence for people, "" if all is well. updated: Unix time.
    follows: from this task into the other tasks of the same video; else within the task. first: number in the video of
    the first frame. look, fix_next: how many of the finished masks need a look, and the frame of the video to fix next;
    None while that is not known, or if there is none. position: of a waiting job in the line of those that compute
    next, from 1. kind: "tracking", or "removal": an object is taken out of the task's video; then frames are steps.
    """

    id: int
    label_studio: str
    project: int
    task: int
    label: str
    state: JobState
    frames_done: int
    frames_total: int
    seconds_left: float | None
    error: str
    updated: float
    follows: bool = False
    first: int = 0
    look: int | None = None
    fix_next: int | None = None
    position: int | None = None
    kind: str = "tracking"


@dataclass(frozen=True, slots=True)
class ClipProgress:
    """How far the tracking of the clip that holds one frame has come, for the mark on that frame.

    done: for each object at work there, label -> the frames of the video that are finished, as ranges with step 1.
    clip: the frames of the video that the task shows.
    """

    clip: range
    done: Mapping[str, Sequence[range]]


class Progress(Protocol):
    """Who knows about background work."""

    def views(self) -> list[JobView]:
        """Unfinished jobs first, then those that ended lately, the newest first."""
        ...

    def clip_progress(self, video: str, frame: int) -> ClipProgress | None:
        """Progress around a frame of a registered video; None if nothing is or was lately at work there."""
        ...


def ranges_of(frames: Iterable[int]) -> list[range]:
    """Frames as few ranges."""
    ranges: list[range] = []
    for frame in sorted(frames):
        if ranges and ranges[-1].stop == frame:
            ranges[-1] = range(ranges[-1].start, frame + 1)
        else:
            ranges.append(range(frame, frame + 1))
    return ranges
