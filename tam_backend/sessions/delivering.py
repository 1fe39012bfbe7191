"""From finished frames to Label Studio: again and again, until it has them.

While Label Studio cannot be reached, all that has to go there waits in one line, and goes in that order when it can."""

from __future__ import annotations

import functools
import logging
import sqlite3
from collections import deque
from collections.abc import Callable, Mapping
from typing import Protocol

from tam_backend.errors import TamError, Unreachable
from tam_backend.logfacts import log_about
from tam_backend.sessions.calls import DelayedCalls
from tam_backend.sessions.job import Destination, FollowPlan, Job, Obsolete
from tam_backend.sessions.progress import JobState

log = logging.getLogger(__name__)

#: Something to do; the seconds until it has to be done once more, None if it is done.
Action = Callable[[], float | None]

#: Seconds to the first and to the last of the attempts to do what Label Studio refused.
RETRY = (5.0, 300.0)
#: The same while it cannot be reached at all: it is only starting again, perhaps.
RETRY_LINE = (2.0, 30.0)


class Jobs(Protocol):
    """Who keeps the jobs."""

    def change(self, job: Job, *, error: str) -> None: ...

    def end(self, job: Job, state: JobState, why: str = "") -> None: ...

    def add_follower(self, plan: FollowPlan) -> None: ...

    def send(self, job: Job, plan: FollowPlan) -> None: ...

    def review(self, job: Job) -> None: ...


class Delivering:
    """Does what a job needs of Label Studio, in a thread of its own; a job whose deliveries have all been made ends."""

    def __init__(self, destination: Destination, jobs: Jobs) -> None:
        self._destination = destination
        self._jobs = jobs
        self._calls = DelayedCalls("delivering")
        self._line: deque[tuple[Job, object, Action]] = deque()
        self._pause = 0.0

    def close(self) -> None:
        self._calls.close()

    def clip(self, job: Job, *, follow: bool) -> None:
        """A task's frames are finished: bring them there, and (if asked) follow the object into the other tasks."""
        actions: dict[object, Action] = {"follow": lambda: self._follow(job)} if follow else {}
        self._begin(job, actions | {"clip": lambda: self._clip(job)})

    def fill(self, job: Job, task: int) -> None:
        """The frames of one of the other tasks are finished."""
        self._begin(job, {task: lambda: self._destination.fill(job.track, task)})

    def plan(self, job: Job) -> None:
        """Find out anew where a job of an earlier process goes."""
        self._begin(job, {"plan": lambda: self._plan(job)})

    def finish(self, job: Job) -> None:
        """There is nothing more to come: the job ends when all has been delivered."""
        if not job.left_to_deliver and job.track.state is JobState.DELIVERING:
            self._jobs.end(job, JobState.DONE)

    def _begin(self, job: Job, actions: Mapping[object, Action]) -> None:
        job.left_to_deliver.update(actions)  # all of them, before the first one may find that it was the last
        for what, action in actions.items():
            self._calls.put(0, functools.partial(self._attempt, job, what, action))

    def _attempt(self, job: Job, what: object, action: Action) -> None:
        """Do it; later, if Label Studio does not answer, or if ``action`` says in how many seconds to try again."""
        if self._line or not self._try(job, what, action):
            self._line.append((job, what, action))
            if len(self._line) == 1:
                self._wait()

    def _wait(self) -> None:
        self._pause = min(2 * self._pause or RETRY_LINE[0], RETRY_LINE[1])
        self._calls.put(self._pause, self._go_on)

    def _go_on(self) -> None:
        """Do what waits in the line, as far as Label Studio can be reached."""
        while self._line:
            if not self._try(*self._line[0]):
                self._wait()
                return
            self._line.popleft()
        self._pause = 0.0

    def _try(self, job: Job, what: object, action: Action) -> bool:
        """Returns whether Label Studio could be reached, and our own disk be written: else it is to be tried again."""
        if job.superseded:
            return True
        with log_about(**job.track.facts):
            return self._tried(job, what, action)

    def _tried(self, job: Job, what: object, action: Action) -> bool:
        try:
            wait = action()
        except Obsolete as e:
            self._jobs.end(job, JobState.STOPPED, str(e))
            return True
        except (Unreachable, sqlite3.Error) as e:
            if job.track.error != str(e):
                log.warning("task %s, %s: %s; it waits", job.track.work.task, job.track.label, e)
                self._jobs.change(job, error=str(e))
            return False
        except TamError as e:
            job.retry = min(2 * job.retry or RETRY[0], RETRY[1])
            log.warning("task %s, %s: %s; trying again in %.0f s", job.track.work.task, job.track.label, e, job.retry)
            self._jobs.change(job, error=str(e))
            self._calls.put(job.retry, lambda: self._attempt(job, what, action))
            return True
        except Exception:
            log.exception("task %s, %s: could not be delivered", job.track.work.task, job.track.label)
            self._jobs.end(job, JobState.FAILED, "the masks could not be delivered; the backend's log says why")
            return True
        job.retry = 0.0
        if job.track.error:
            self._jobs.change(job, error="")
        if wait is not None:
            self._calls.put(wait, lambda: self._attempt(job, what, action))
            return True
        job.left_to_deliver.discard(what)
        self.finish(job)
        return True

    def _clip(self, job: Job) -> float | None:
        if job.track.look is None:
            self._jobs.review(job)
        return self._destination.deliver(job.track)

    def _follow(self, job: Job) -> None:
        plan = self._destination.follow(job.track)
        if plan is not None and not job.superseded:
            self._jobs.add_follower(plan)

    def _plan(self, job: Job) -> None:
        plan = self._destination.follow(job.track)
        if plan is None:
            self._jobs.end(job, JobState.DONE)
        else:
            self._jobs.send(job, plan)
