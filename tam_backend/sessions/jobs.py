"""Work that goes on when the answer to a click has been sent: in the background, across restarts.

Every click leaves a job for its object: to finish the task's frames, nearest first. When they are done, the result is
delivered, and a job of lower rank follows the object into the other tasks of the same video. One thread computes, for
one device; a second one talks to Label Studio, so that a slow Label Studio does not keep the device waiting.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tam_backend.engines import Engine
from tam_backend.errors import TamError
from tam_backend.logfacts import log_about
from tam_backend.metrics import BACKGROUND, FINISHING, Metrics
from tam_backend.quality import review
from tam_backend.sessions.delivering import Delivering
from tam_backend.sessions.job import Destination, FollowPlan, Job
from tam_backend.sessions.owner import own
from tam_backend.sessions.progress import ClipProgress, JobState, JobView, ranges_of
from tam_backend.sessions.tracks import Track, TrackTable, Work, view_of
from tam_backend.sessions.turns import DeviceTurns
from tam_backend.tracking.executor import Executor, Here
from tam_backend.tracking.store import BlobStore
from tam_backend.tracking.tracker import Step, TrackedFrame, Tracker
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
_ENDED_SHOWN = 100


@dataclass(slots=True, eq=False)
class _Open:
    """spent: seconds of computing since a frame was finished last; some frames take two steps."""

    reader: Reader
    tracker: Tracker
    steps: Generator[TrackedFrame | Step, None, None]
    spent: float = 0.0

    def close(self) -> None:
        self.steps.close()
        self.tracker.close()
        self.reader.close()


class BackgroundJobs:
    """The jobs of one data directory. Thread-safe.

    lock: file that says which process computes, when several use one data directory; the others only leave jobs.
    finish: whether jobs end with a finishing pass, when no other work waits. metrics: counts what is done.
    executor: computes; None: this process.
    """

    def __init__(
        self,
        engine: Engine,
        store: BlobStore,
        table: TrackTable,
        turns: DeviceTurns,
        destination: Destination,
        lock: Path,
        finish: bool = False,
        metrics: Metrics | None = None,
        executor: Executor | None = None,
    ) -> None:
        self._metrics = metrics or Metrics()
        self._executor = executor or Here(engine)
        self._engine = engine
        self._store = store
        self._table = table
        self._turns = turns
        self._destination = destination
        self._finish = finish
        self._jobs: dict[int, Job] = {}
        self._opened: OrderedDict[int, _Open] = OrderedDict()
        self._served: dict[Work, float] = {}
        self._condition = threading.Condition()  # taken before the database's lock, never after it
        self._closing = False
        self._synced = 0.0
        self._late: dict[int, Track] = {}  # what their rows should say
        self._unstored = itertools.count(-1, -1)  # ids of jobs that are in no table
        self._failing = ""
        self._delivering = Delivering(destination, self)
        self._thread: threading.Thread | None = None
        self._owner = own(lock)
        if self._owner is None:
            log.warning("another process works on %s: background work is left to it", lock.parent)
            return
        table.prune()
        for number in table.unfinished():
            if track := table.get(number):
                self._adopt(track)
        self._metrics.jobs_resumed.inc(sum(not j.superseded for j in self._jobs.values()))
        self._thread = threading.Thread(target=self._compute, name="tracking", daemon=True)
        self._thread.start()

    def close(self, timeout: float = 10.0) -> None:
        """Stop within one frame's time. What is unfinished goes on at the next start."""
        with self._condition:
            self._closing = True
            self._condition.notify_all()
        self._delivering.close()
        if self._thread is not None:
            self._thread.join(timeout)
        if self._owner is not None:
            self._owner.close()

    # ---- what requests do

    def begin(self, track: Track) -> Track:
        """Take in a track that a request is about to compute, in place of older ones of the same object and person.

        The job waits until ``release``. If this process ends before that, it goes on at the next start. If the disk
        cannot be written it is stored later: whoever clicked must not wait for that.
        """
        with self._condition:
            try:
                track = self._table.insert(track)
            except sqlite3.Error as e:
                self._tell(e)
                now = time.time()
                track = replace(track, id=next(self._unstored), asked=now, updated=now)
            for job in self._jobs.values():
                if job.track.overlaps(track):
                    job.superseded = True
            self._jobs[track.id] = Job(track, held=True)
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
            complete = len(job.finished) == track.total and not self._wants_finish(job)
            job.held = complete  # then there is nothing to compute
            self._condition.notify_all()
        if complete:
            self._computed(job)

    def drop(self, unwanted: Callable[[Track], bool], why: str) -> None:
        """Stop jobs that nobody wants any more."""
        with self._condition:
            jobs = [j for j in self._jobs.values() if not j.superseded and unwanted(j.track)]
        for job in jobs:
            self.end(job, JobState.STOPPED, why)

    # ---- what people see

    def views(self) -> list[JobView]:
        """Unfinished jobs first, then those that ended lately, the newest first."""
        with self._condition:
            jobs = [j for j in self._jobs.values() if not j.superseded]
            line = sorted((j for j in jobs if j.computes), key=self._rank)
            places = {j.track.id: i for i, j in enumerate(line, 1) if j.track.state is JobState.WAITING}
            live = [replace(self._view(j), position=places.get(j.track.id)) for j in jobs]
        return live + self._table.ended(_ENDED_SHOWN)

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
    def works(self) -> bool:
        """Whether this process does the background work of its data directory."""
        return self._owner is not None

    @property
    def running(self) -> int:
        """How many jobs still compute."""
        with self._condition:
            return sum(j.track.state in (JobState.WAITING, JobState.RUNNING) for j in self._jobs.values())

    def count(self) -> dict[str, int]:
        """How many unfinished jobs there are in each state. Waits for nobody: a disk that hangs holds the lock, too."""
        counts = dict.fromkeys((JobState.WAITING, JobState.RUNNING, JobState.DELIVERING), 0)
        for job in tuple(self._jobs.values()):
            if not job.superseded and job.track.state in counts:
                counts[job.track.state] += 1
        return {str(state): number for state, number in counts.items()}

    @property
    def computing(self) -> bool:
        """Whether jobs that are left here are computed: by this process, or by the one that has the directory."""
        return self._owner is None or (self._thread is not None and self._thread.is_alive())

    @property
    def failing(self) -> str:
        """Why jobs cannot be stored now, "" if they can."""
        return self._failing

    # ---- computing

    def _adopt(self, track: Track) -> None:
        """Take in a job that this or another process left."""
        job = Job(track)
        with self._condition:
            self._jobs[track.id] = job
        if track.state is JobState.RUNNING:
            self.change(job, state=JobState.WAITING, attempts=track.attempts + 1)
            if job.track.attempts >= _MAX_ATTEMPTS:
                self.end(job, JobState.FAILED, "the program ended several times while it tracked this: see its log")
                return
        if track.follows:
            job.held = True
            self._delivering.plan(job)
        elif track.state is JobState.DELIVERING:
            job.finished = set(track.frames)
            self._delivering.clip(job, follow=not self._table.has_follower(track))

    def _compute(self) -> None:
        try:
            while True:
                try:
                    job = self._next()
                    if job is None:
                        return
                    try:
                        with log_about(**job.track.facts):
                            self._advance(job)
                    except TamError as e:
                        self.end(job, JobState.FAILED, str(e))
                    except Exception:
                        log.exception("task %s, %s: tracking failed", job.track.work.task, job.track.label)
                        self.end(job, JobState.FAILED, "tracking failed; the backend's log says why")
                except sqlite3.Error as e:  # a full disk, perhaps for a while
                    log.error("background work waits: the database cannot be used (%s)", e)
                    time.sleep(_SYNC_EVERY)
        finally:
            for opened in self._opened.values():
                opened.close()

    def _next(self) -> Job | None:
        """Wait for a job to compute: own tasks before other tasks of a video, finishing passes last, and of equals the
        task served longest ago."""
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

    def _wants_finish(self, job: Job) -> bool:
        return self._finish and len(job.track.anchors) > 1

    def _rank(self, job: Job) -> tuple[bool, bool, float, float, int]:
        return job.finishing, job.track.follows, self._served.get(job.track.work, 0.0), job.served, job.track.id

    def _sync(self) -> None:
        """See what other processes put into the table, and took out of it."""
        if time.monotonic() - self._synced < _SYNC_EVERY:
            return
        self._synced = time.monotonic()
        with self._condition:
            self._store_late()
            unfinished = self._table.unfinished()
            for number, job in self._jobs.items():
                if number >= 0 and number not in unfinished:
                    job.superseded = True
            for number in unfinished:
                if number not in self._jobs and number not in self._late and (track := self._table.get(number)):
                    self._adopt(track)

    def _store_late(self) -> None:
        """Store what could not be stored at its time."""
        try:
            for number, track in list(self._late.items()):
                self._table.update(track)
                del self._late[number]
                self._failing = ""
        except sqlite3.Error as e:
            self._tell(e)
            return
        for number in [n for n, j in self._jobs.items() if n < 0 and not j.held and not j.superseded]:
            job = self._jobs[number]
            try:
                job.track = self._table.insert(job.track)
            except sqlite3.Error as e:
                self._tell(e)
                return
            self._failing = ""
            self._jobs[job.track.id] = self._jobs.pop(number)
            if number in self._opened:
                self._opened[job.track.id] = self._opened.pop(number)

    def _tell(self, error: sqlite3.Error) -> None:
        """Once for each kind of failure, until a write succeeds again."""
        if str(error) != self._failing:
            self._failing = str(error)
            log.error("jobs cannot be stored (%s): work goes on, but a restart would not know of it", error)

    def _advance(self, job: Job) -> None:
        """Compute some frames of a job."""
        opened = self._open(job)
        self.change(job, state=JobState.RUNNING, content=opened.reader.key)
        started = time.monotonic()
        while not self._closing and not job.superseded:
            with self._turns.background(timeout=0.5) as mine:
                if not mine:
                    return  # by the time there is a turn, another job may come first
                began = time.monotonic()
                step = next(opened.steps, None)
            if step is None and not job.finishing and self._wants_finish(job):
                job.finishing = True
                opened.steps = opened.tracker.steps(job.track.anchors, job.track.focus, finish=True)
                break
            if step is None:
                self._opened.pop(job.track.id).close()
                self._computed(job)
                return
            now = time.monotonic()
            if not step.reused:
                opened.spent += now - began
                if job.track.attempts:
                    self.change(job, attempts=0)
            if isinstance(step, TrackedFrame):
                if opened.spent:
                    work = FINISHING if job.finishing else BACKGROUND
                    self._metrics.frame_seconds.labels(work).observe(opened.spent)
                    last = job.seconds_per_frame
                    job.seconds_per_frame = opened.spent if last is None else 0.9 * last + 0.1 * opened.spent
                    opened.spent = 0.0
                with self._condition:
                    job.finished.add(step.frame)
            self._fill_finished(job)
            if now - started > _SLICE or (job.track.follows and self._own_task_waits()):
                break
        with self._condition:
            job.served = self._served[job.track.work] = time.monotonic()
        self.change(job, done=len(job.finished))

    def _own_task_waits(self) -> bool:
        """Whether there is a job of higher rank than those that follow."""
        with self._condition:
            return any(j.computes and not j.track.follows for j in self._jobs.values())

    def _open(self, job: Job) -> _Open:
        opened = self._opened.get(job.track.id)
        if opened is None:
            while len(self._opened) >= _OPEN_JOBS:
                self._opened.popitem(last=False)[1].close()
            track = job.track
            reader = self._destination.open(track.video)
            try:
                tracker = self._executor.tracker(reader, track.frames, self._store, range(len(reader)))
            except BaseException:
                reader.close()
                raise
            steps = tracker.steps(track.anchors, track.focus, finish=job.finishing)
            opened = self._opened[track.id] = _Open(reader, tracker, steps)
        self._opened.move_to_end(job.track.id)
        return opened

    def _computed(self, job: Job) -> None:
        """All frames are finished."""
        if job.track.follows:
            self._fill_finished(job)
        self.change(job, state=JobState.DELIVERING, done=job.track.total, attempts=0)
        if job.track.follows:
            self._delivering.finish(job)
        else:
            self._delivering.clip(job, follow=True)

    def _fill_finished(self, job: Job) -> None:
        """Have the tasks filled whose frames are all finished."""
        for task, clip in list(job.clips.items()):
            if job.finished.issuperset(clip):
                with self._condition:
                    del job.clips[task]
                self._delivering.fill(job, task)

    # ---- what happens to jobs

    def change(self, job: Job, **changes: Any) -> None:
        """Store a change of a job's row (see ``TrackTable.update``), unless it is no job any more."""
        with self._condition:  # two threads work on a job; each writes all of the row
            if job.superseded:
                return
            try:
                job.track = self._table.update(job.track, **changes)
                self._late.pop(job.track.id, None)
            except sqlite3.Error as e:
                self._tell(e)
                job.track = replace(job.track, updated=time.time(), **changes)
                if job.track.id >= 0:
                    self._late[job.track.id] = job.track

    def add_follower(self, plan: FollowPlan) -> None:
        """A job goes on in the other tasks of its video."""
        with self._condition:
            follower = Job(self._table.insert(plan.track), clips=dict(plan.clips))
            self._jobs[follower.track.id] = follower
            self._condition.notify_all()

    def send(self, job: Job, plan: FollowPlan) -> None:
        """A job of an earlier process knows where it goes."""
        with self._condition:
            job.track = replace(plan.track, id=job.track.id, attempts=job.track.attempts)
            job.clips = dict(plan.clips)
            job.held = False
            self._condition.notify_all()

    def review(self, job: Job) -> None:
        """All its frames are finished: find out how many need a look, and which one to fix next."""
        track = job.track
        with (
            contextlib.closing(self._destination.open(track.video)) as reader,
            Tracker(self._engine, reader, track.frames, self._store, range(len(reader))) as tracker,
        ):
            stored = (tracker.stored(track.anchors, f) for f in track.frames)
            quality = {t.frame: t.quality for t in stored if t is not None}
        found = review(quality, track.anchors)
        self.change(job, look=found.look, fix_next=found.fix_next)

    def end(self, job: Job, state: JobState, why: str = "") -> None:
        """It is done, or cannot be."""
        with self._condition:
            if job.superseded:
                return
            self.change(job, state=state, error=why, done=len(job.finished))
            self._metrics.jobs_ended.labels(str(state)).inc()
            job.superseded = True
            self._condition.notify_all()
        with log_about(**job.track.facts):
            if state is not JobState.DONE:
                log.warning("task %s, %s: %s: %s", job.track.work.task, job.track.label, state, why)
            else:
                log.info("task %s, %s: done, %d frames", job.track.work.task, job.track.label, job.track.total)

    def _view(self, job: Job) -> JobView:
        left = job.track.total - len(job.finished)
        known = job.seconds_per_frame is not None and job.track.state is not JobState.DELIVERING
        return view_of(job.track, len(job.finished), left * (job.seconds_per_frame or 0.0) if known else None)
