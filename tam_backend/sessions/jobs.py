"""Work that goes on when the answer to a click has been sent: in the background, across restarts.

Every click leaves a job for its object: to finish the task's frames, nearest first. When they are done, the result is
delivered, and a job of lower rank follows the object into the other tasks of the same video. One thread computes, for
one device; a second one talks to Label Studio, so that a slow Label Studio does not keep the device waiting.
"""

from __future__ import annotations

import fcntl
import logging
import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Protocol

from tam_backend.engines import Engine
from tam_backend.errors import TamError
from tam_backend.sessions.calls import DelayedCalls
from tam_backend.sessions.progress import ClipProgress, JobState, JobView, ranges_of
from tam_backend.sessions.tracks import Track, TrackTable, Work, view_of
from tam_backend.sessions.turns import DeviceTurns
from tam_backend.tracking.store import BlobStore
from tam_backend.tracking.tracker import TrackedFrame, Tracker
from tam_backend.video.base import Reader

log = logging.getLogger(__name__)

#: Seconds that one job computes before another task's may.
_SLICE = 2.0
#: Jobs that keep their readers and their propagation at hand. Beginning again from the stored state costs some frames.
_OPEN_JOBS = 3
#: How often the table is looked at for what other processes asked for.
_SYNC_EVERY = 2.0
#: A job under which the process ended this often without one frame finished in between is not begun again.
_MAX_ATTEMPTS = 10
#: Seconds to the first and to the last of the attempts to reach a Label Studio that does not answer.
_RETRY = (5.0, 300.0)
_ENDED_SHOWN = 100


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
class _Job:
    track: Track
    held: bool = False
    superseded: bool = False
    clips: dict[int, range] = field(default_factory=dict)
    finished: set[int] = field(default_factory=set)
    served: float = 0.0
    seconds_per_frame: float | None = None
    waiting_for: int = 0  # deliveries of clips under way
    retry: float = _RETRY[0]

    @property
    def computes(self) -> bool:
        return self.track.state in (JobState.WAITING, JobState.RUNNING) and not self.held and not self.superseded


@dataclass(slots=True, eq=False)
class _Open:
    reader: Reader
    tracker: Tracker
    frames: Generator[TrackedFrame, None, None]

    def close(self) -> None:
        self.frames.close()
        self.tracker.close()
        self.reader.close()


class BackgroundJobs:
    """The jobs of one data directory. Thread-safe.

    lock: file that says which process computes, when several use one data directory; the others only leave jobs.
    """

    def __init__(
        self,
        engine: Engine,
        store: BlobStore,
        table: TrackTable,
        turns: DeviceTurns,
        destination: Destination,
        lock: Path,
    ) -> None:
        self._engine = engine
        self._store = store
        self._table = table
        self._turns = turns
        self._destination = destination
        self._jobs: dict[int, _Job] = {}
        self._opened: OrderedDict[int, _Open] = OrderedDict()
        self._served: dict[Work, float] = {}
        self._condition = threading.Condition()  # taken before the database's lock, never after it
        self._closing = False
        self._synced = 0.0
        self._calls = DelayedCalls("delivering")
        self._thread: threading.Thread | None = None
        self._owner = _own(lock)
        if self._owner is None:
            log.warning("another process works on %s: background work is left to it", lock.parent)
            return
        table.prune()
        for number in table.unfinished():
            if track := table.get(number):
                self._adopt(track)
        self._thread = threading.Thread(target=self._compute, name="tracking", daemon=True)
        self._thread.start()

    def close(self, timeout: float = 10.0) -> None:
        """Stop within one frame's time. What is unfinished goes on at the next start."""
        with self._condition:
            self._closing = True
            self._condition.notify_all()
        self._calls.close()
        if self._thread is not None:
            self._thread.join(timeout)
        if self._owner is not None:
            self._owner.close()

    # ---- what requests do

    def begin(self, track: Track) -> Track:
        """Take in a track that a request is about to compute, in place of older ones of the same object and person.

        The job waits until ``release``. If this process ends before that, it goes on at the next start.
        """
        with self._condition:
            track = self._table.insert(track)
            for job in self._jobs.values():
                if job.track.overlaps(track):
                    job.superseded = True
            self._jobs[track.id] = _Job(track, held=True)
        return track

    def note(self, track: Track, frame: int) -> None:
        """A request finished a frame of a track that it began."""
        with self._condition:
            if job := self._jobs.get(track.id):
                job.finished.add(frame)

    def release(self, track: Track) -> None:
        """The request has sent its answer: the rest goes on in the background."""
        with self._condition:
            if self._owner is None:
                self._jobs.pop(track.id, None)
                return
            job = self._jobs.get(track.id)
            if job is None or job.superseded:
                return
            complete = len(job.finished) == len(track.frames)
            job.held = complete  # then there is nothing to compute
            self._condition.notify_all()
        if complete:
            self._computed(job)

    def drop(self, unwanted: Callable[[Track], bool], why: str) -> None:
        """Stop jobs that nobody wants any more."""
        with self._condition:
            jobs = [j for j in self._jobs.values() if not j.superseded and unwanted(j.track)]
        for job in jobs:
            self._end(job, JobState.STOPPED, why)

    # ---- what people see

    def views(self) -> list[JobView]:
        """Unfinished jobs first, then those that ended lately, the newest first."""
        with self._condition:
            jobs = [j for j in self._jobs.values() if not j.superseded]
            live = [self._view(j) for j in jobs]
        ended = [view_of(t, t.done, None) for t in self._table.ended(_ENDED_SHOWN)]
        return live + ended

    def clip_progress(self, video: str, frame: int) -> ClipProgress | None:
        """Progress around a frame of a registered video; None if nothing is at work there."""
        with self._condition:
            jobs = [j for j in self._jobs.values() if not j.superseded and j.track.video == video]
            around = [(j, clip) for j in jobs for clip in (*j.clips.values(), j.track.frames) if frame in clip]
            around = [(j, c) for j, c in around if j.track.state in (JobState.WAITING, JobState.RUNNING)]
            if not around:
                return None
            clip = min((c for _, c in around), key=len)
            done = {j.track.label: ranges_of(f for f in j.finished if f in clip) for j, _ in around}
        return ClipProgress(clip, done)

    @property
    def running(self) -> int:
        """How many jobs still compute."""
        with self._condition:
            return sum(j.track.state in (JobState.WAITING, JobState.RUNNING) for j in self._jobs.values())

    # ---- computing

    def _adopt(self, track: Track) -> None:
        """Take in a job that this or another process left."""
        job = _Job(track)
        with self._condition:
            self._jobs[track.id] = job
        if track.state is JobState.RUNNING:
            job.track = track = self._table.update(track, state=JobState.WAITING, attempts=track.attempts + 1)
            if track.attempts >= _MAX_ATTEMPTS:
                self._end(job, JobState.FAILED, "the program ended several times while it tracked this: see its log")
                return
        if track.follows:
            job.held = True
            self._calls.put(0, lambda: self._plan(job))
        elif track.state is JobState.DELIVERING:
            job.finished = set(track.frames)
            self._calls.put(0, lambda: self._deliver_clip(job))

    def _compute(self) -> None:
        try:
            while True:
                try:
                    job = self._next()
                    if job is None:
                        return
                    try:
                        self._advance(job)
                    except TamError as e:
                        self._end(job, JobState.FAILED, str(e))
                    except Exception:
                        log.exception("task %s, %s: tracking failed", job.track.work.task, job.track.label)
                        self._end(job, JobState.FAILED, "tracking failed; the backend's log says why")
                except sqlite3.Error as e:  # a full disk, perhaps for a while
                    log.error("background work waits: the database cannot be used (%s)", e)
                    time.sleep(_SYNC_EVERY)
        finally:
            for opened in self._opened.values():
                opened.close()

    def _next(self) -> _Job | None:
        """Wait for a job to compute: own tasks before other tasks of a video, then the task served longest ago."""
        while True:
            self._sync()
            with self._condition:
                for number in [n for n, j in self._jobs.items() if j.superseded]:
                    del self._jobs[number]
                for number in [n for n in self._opened if n not in self._jobs]:
                    self._opened.pop(number).close()
                if self._closing:
                    return None
                ready = [j for j in self._jobs.values() if j.computes]
                if ready:
                    return min(ready, key=self._rank)
                self._condition.wait(_SYNC_EVERY)

    def _rank(self, job: _Job) -> tuple[bool, float, float, int]:
        return job.track.follows, self._served.get(job.track.work, 0.0), job.served, job.track.id

    def _sync(self) -> None:
        """See what other processes put into the table, and took out of it."""
        if time.monotonic() - self._synced < _SYNC_EVERY:
            return
        self._synced = time.monotonic()
        with self._condition:
            unfinished = self._table.unfinished()
            for number, job in self._jobs.items():
                if number not in unfinished:
                    job.superseded = True
            for number in unfinished:
                if number not in self._jobs and (track := self._table.get(number)):
                    self._adopt(track)

    def _advance(self, job: _Job) -> None:
        """Compute some frames of a job."""
        opened = self._open(job)
        job.track = self._table.update(job.track, state=JobState.RUNNING, total=len(job.track.frames))
        started = time.monotonic()
        while not self._closing and not job.superseded:
            with self._turns.background(timeout=0.5) as mine:
                if not mine:
                    continue
                began = time.monotonic()
                tracked = next(opened.frames, None)
            if tracked is None:
                self._opened.pop(job.track.id).close()
                self._computed(job)
                return
            now = time.monotonic()
            if not tracked.reused:
                if job.track.attempts:
                    job.track = self._table.update(job.track, attempts=0)
                last = job.seconds_per_frame
                job.seconds_per_frame = now - began if last is None else 0.9 * last + 0.1 * (now - began)
            with self._condition:
                job.finished.add(tracked.frame)
            self._fill_finished(job)
            if now - started > _SLICE:
                break
        with self._condition:
            job.served = self._served[job.track.work] = time.monotonic()
        if not job.superseded:
            job.track = self._table.update(job.track, done=len(job.finished))

    def _open(self, job: _Job) -> _Open:
        opened = self._opened.get(job.track.id)
        if opened is None:
            while len(self._opened) >= _OPEN_JOBS:
                self._opened.popitem(last=False)[1].close()
            track = job.track
            reader = self._destination.open(track.video)
            try:
                tracker = Tracker(self._engine, reader, track.frames, self._store, range(len(reader)))
            except BaseException:
                reader.close()
                raise
            opened = self._opened[track.id] = _Open(reader, tracker, tracker.track(track.anchors, track.focus))
        self._opened.move_to_end(job.track.id)
        return opened

    def _computed(self, job: _Job) -> None:
        """All frames are finished."""
        if job.superseded:
            return
        total = len(job.track.frames)
        job.track = self._table.update(job.track, state=JobState.DELIVERING, done=total, total=total, attempts=0)
        if job.track.follows:
            self._fill_finished(job)
            self._end_when_filled(job)
        else:
            self._calls.put(0, lambda: self._begin_follow(job))
            self._calls.put(0, lambda: self._deliver_clip(job))

    # ---- delivering

    def _guarded(self, job: _Job, again: Callable[[], None], action: Callable[[], None]) -> None:
        """Do something with Label Studio for a job; later, if it does not answer."""
        if job.superseded:
            return
        try:
            action()
            job.retry = _RETRY[0]
        except Obsolete as e:
            self._end(job, JobState.STOPPED, str(e))
        except TamError as e:
            log.warning("task %s, %s: %s; trying again in %.0f s", job.track.work.task, job.track.label, e, job.retry)
            job.track = self._table.update(job.track, error=str(e))
            self._calls.put(job.retry, again)
            job.retry = min(2 * job.retry, _RETRY[1])
        except Exception:
            log.exception("task %s, %s: could not be delivered", job.track.work.task, job.track.label)
            self._end(job, JobState.FAILED, "the masks could not be delivered; the backend's log says why")

    def _deliver_clip(self, job: _Job) -> None:
        def action() -> None:
            wait = self._destination.deliver(job.track)
            if job.track.error:
                job.track = self._table.update(job.track, error="")
            if wait is None:
                self._end(job, JobState.DONE, "")
            else:
                self._calls.put(wait, lambda: self._deliver_clip(job))

        self._guarded(job, lambda: self._deliver_clip(job), action)

    def _begin_follow(self, job: _Job) -> None:
        def action() -> None:
            plan = self._destination.follow(job.track)
            if plan is not None and not job.superseded:
                follower = _Job(self._table.insert(plan.track), clips=dict(plan.clips))
                with self._condition:
                    self._jobs[follower.track.id] = follower
                    self._condition.notify_all()

        self._guarded(job, lambda: self._begin_follow(job), action)

    def _plan(self, job: _Job) -> None:
        """Find out anew where a job of an earlier process goes."""

        def action() -> None:
            plan = self._destination.follow(job.track)
            if plan is None:
                self._end(job, JobState.DONE, "")
                return
            with self._condition:
                job.track = replace(plan.track, id=job.track.id, attempts=job.track.attempts)
                job.clips = dict(plan.clips)
                job.held = False
                self._condition.notify_all()

        self._guarded(job, lambda: self._plan(job), action)

    def _fill_finished(self, job: _Job) -> None:
        """Have the tasks filled whose frames are all finished."""
        for task, clip in list(job.clips.items()):
            if job.finished.issuperset(clip):
                with self._condition:
                    del job.clips[task]
                    job.waiting_for += 1
                self._calls.put(0, lambda task=task: self._fill(job, task))  # type: ignore[misc]

    def _fill(self, job: _Job, task: int) -> None:
        def action() -> None:
            self._destination.fill(job.track, task)
            if job.track.error:
                job.track = self._table.update(job.track, error="")
            with self._condition:
                job.waiting_for -= 1
            self._end_when_filled(job)

        self._guarded(job, lambda: self._fill(job, task), action)

    def _end_when_filled(self, job: _Job) -> None:
        with self._condition:
            filled = job.track.state is JobState.DELIVERING and not job.waiting_for
        if filled:
            self._end(job, JobState.DONE, "")

    def _end(self, job: _Job, state: JobState, why: str) -> None:
        with self._condition:
            if job.superseded:
                return
            job.superseded = True
            self._condition.notify_all()
        if state is not JobState.DONE:
            log.warning("task %s, %s: %s: %s", job.track.work.task, job.track.label, state, why)
        self._table.update(job.track, state=state, error=why, done=len(job.finished))

    def _view(self, job: _Job) -> JobView:
        left = len(job.track.frames) - len(job.finished)
        known = job.seconds_per_frame is not None and job.track.state is not JobState.DELIVERING
        return view_of(job.track, len(job.finished), left * (job.seconds_per_frame or 0.0) if known else None)


def _own(path: Path) -> IO[str] | None:
    """The file, locked by this process until it is closed; None if another process has it."""
    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file
