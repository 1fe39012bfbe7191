"""A stand-in for what knows about background work: says what a test told it."""

from __future__ import annotations

from typing import Any

from tam_backend.sessions.progress import ClipProgress, JobState, JobView


class FakeProgress:
    """views: what /status is to show. clips: progress by video id, for every frame of it."""

    def __init__(self, *jobs: JobView) -> None:
        self.jobs = list(jobs)
        self.clips: dict[str, ClipProgress] = {}

    def views(self) -> list[JobView]:
        return list(self.jobs)

    def clip_progress(self, video: str, frame: int) -> ClipProgress | None:
        return self.clips.get(video)


def job(number: int, state: JobState = JobState.RUNNING, **changes: Any) -> JobView:
    """A job with something in each field."""
    fields: dict[str, Any] = {
        "id": number, "label_studio": "http://studio.test:8080", "project": 3, "task": 40 + number, "label": "Object 1",
        "state": state, "frames_done": 25, "frames_total": 100, "seconds_left": None, "error": "", "updated": 1e9,
    }  # fmt: skip
    return JobView(**fields | changes)
