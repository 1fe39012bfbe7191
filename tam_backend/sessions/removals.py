"""Taking objects out of videos in the background: one removal at a time, across restarts.

Each removal is a folder with what was asked for, its state, and the finished work; so it goes on where it was, whatever
happened to the process.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import shutil
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from tam_backend.errors import LabelStudioError, TamError
from tam_backend.sessions.progress import JobState, JobView
from tam_backend.sessions.turns import DeviceTurns
from tam_backend.tracking.filestore import FileStore, write_atomically
from tam_backend.tracking.store import BlobStore

log = logging.getLogger(__name__)

#: Its name in the data directory.
FOLDER = "removals"
#: Finished ones that are kept for whoever asked; and unfinished ones at most.
_KEPT, _WAITING = 20, 100
#: How often the folder is looked at for what other processes were asked for.
_LOOK_EVERY = 2.0
#: Seconds until one is begun again that Label Studio gave no answer to, at most.
_LONGEST_PAUSE = 60.0
#: A removal under which the process ended so often without one step finished in between is not begun again.
_MAX_ATTEMPTS = 5
_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)
_UNFINISHED = (JobState.WAITING, JobState.RUNNING)


@dataclass(frozen=True, slots=True)
class Removal:
    """asked: JSON data, what is to be done. label_studio, project, task, label: for people. steps: of ``total`` are
    done. error: a sentence for people. report: JSON data about the result. created, updated: Unix time."""

    id: str
    asked: Mapping[str, Any]
    label_studio: str
    project: int
    task: int
    label: str
    state: JobState = JobState.WAITING
    steps: int = 0
    total: int = 0
    error: str = ""
    report: Mapping[str, Any] | None = None
    attempts: int = 0
    created: float = 0.0
    updated: float = 0.0


class Work(Protocol):
    """One removal under way. report: about the result, once all steps are done."""

    total: int

    def steps(self) -> Generator[int, None, None]:
        """Do what is not done yet; gives how many steps are finished."""

    @property
    def report(self) -> Mapping[str, Any]: ...


#: (what is to be done, store of finished work, the video to write) -> the work. Raises TamError.
Begin = Callable[[Removal, BlobStore, Path], AbstractContextManager[Work]]


class Removals:
    """The removals of one data directory. Thread-safe.

    works: whether this process does the background work; else it only notes what is asked for. Each step is a turn of
    ``turns``, so that people who click go first.
    """

    def __init__(self, folder: Path, turns: DeviceTurns, begin: Begin, *, works: bool) -> None:
        self._folder, self._turns, self._begin = folder, turns, begin
        self._condition = threading.Condition()
        self._closing = False
        self._seconds: float | None = None  # that a step took lately
        self._pauses: dict[str, float] = {}
        self._not_before: dict[str, float] = {}
        self._thread: threading.Thread | None = None
        if works:
            self._thread = threading.Thread(target=self._run, name="removals", daemon=True)
            self._thread.start()

    def close(self, timeout: float = 10.0) -> None:
        """Stop within one step's time. What is unfinished goes on at the next start."""
        with self._condition:
            self._closing = True
            self._condition.notify_all()
        if self._thread is not None:
            self._thread.join(timeout)

    def ask(self, removal: Removal) -> Removal:
        """Take one in. The same id again is the same removal; one that failed is begun again.

        Raises TamError if there are too many, or if the folder cannot be written.
        """
        with self._condition:
            known = self._read(removal.id)
            if known is not None and known.state not in (JobState.FAILED, JobState.STOPPED):
                return known
            if sum(r.state in _UNFINISHED for r in self._all()) >= _WAITING:
                raise TamError(f"{_WAITING} removals wait already; ask again when some are done")
            removal = replace(removal, created=time.time())
            self._write(removal)
            self._condition.notify_all()
        return removal

    def get(self, number: str) -> Removal | None:
        """None if there is none, or no more."""
        return self._read(number)

    def result(self, number: str) -> Path | None:
        """The finished video; None if it is not there."""
        removal = self._read(number)
        path = self._folder / number / "result.mp4"
        return path if removal is not None and removal.state is JobState.DONE and path.exists() else None

    def drop(self, number: str) -> bool:
        """Stop and forget one. Returns whether there was one."""
        with self._condition:
            if self._read(number) is None:
                return False
            shutil.rmtree(self._folder / number, ignore_errors=True)
        return True

    def views(self) -> list[JobView]:
        """Unfinished ones first, the oldest first; then those that ended, the newest first."""
        found = self._all()
        unfinished = [r for r in found if r.state in _UNFINISHED]
        places = {r.id: i for i, r in enumerate((r for r in unfinished if r.state is JobState.WAITING), 1)}
        ended = sorted((r for r in found if r.state not in _UNFINISHED), key=lambda r: -r.updated)
        return [self._view(r, places.get(r.id)) for r in (*unfinished, *ended)]

    # ---- the thread

    def _run(self) -> None:
        while (removal := self._next()) is not None:
            try:
                self._do(removal)
            except LabelStudioError as e:  # not there yet, or for a while
                pause = min(2 * self._pauses.get(removal.id, 0.5), _LONGEST_PAUSE)
                self._pauses[removal.id], self._not_before[removal.id] = pause, time.monotonic() + pause
                self._change(removal, state=JobState.WAITING, error=str(e))
            except (TamError, OSError) as e:
                self._change(removal, state=JobState.FAILED, error=str(e))
            except Exception:
                log.exception("task %s: taking out %s failed", removal.task, removal.label)
                self._change(removal, state=JobState.FAILED, error="it failed; the backend's log says why")
            if self._read(removal.id) is None:  # dropped meanwhile, and perhaps something was written after that
                shutil.rmtree(self._folder / removal.id, ignore_errors=True)
            self._tidy()

    def _next(self) -> Removal | None:
        with self._condition:
            while not self._closing:
                now = time.monotonic()
                for removal in self._all():
                    if removal.state in _UNFINISHED and self._not_before.get(removal.id, 0.0) <= now:
                        return removal
                self._condition.wait(_LOOK_EVERY)
        return None

    def _do(self, removal: Removal) -> None:
        home = self._folder / removal.id
        begun = removal
        if removal.attempts >= _MAX_ATTEMPTS:
            raise TamError("the program ended several times while it did this: see its log")
        removal = self._change(removal, state=JobState.RUNNING, error="", attempts=removal.attempts + 1)
        with self._begin(removal, FileStore(home / "store"), home / "result.mp4") as work:
            steps, told = work.steps(), 0.0
            with contextlib.closing(steps):
                while True:
                    if self._closing or self._read(removal.id) is None:
                        # Stopped from outside: that is no attempt that failed.
                        self._change(removal, attempts=begun.attempts)
                        return
                    with self._turns.background(timeout=0.5) as mine:
                        if not mine:
                            continue
                        began = time.monotonic()
                        done = next(steps, None)
                    if done is None:
                        break
                    now = time.monotonic()
                    last = self._seconds
                    self._seconds = now - began if last is None else 0.9 * last + 0.1 * (now - began)
                    if now - told > 1.0:
                        told = now
                        removal = self._change(removal, steps=done, total=work.total, attempts=0)
            self._change(removal, state=JobState.DONE, steps=work.total, total=work.total, report=work.report)
        shutil.rmtree(home / "store", ignore_errors=True)

    def _tidy(self) -> None:
        """Drop the oldest of those that ended."""
        ended = sorted((r for r in self._all() if r.state not in _UNFINISHED), key=lambda r: -r.updated)
        for removal in ended[_KEPT:]:
            self.drop(removal.id)

    # ---- the folder

    def _change(self, removal: Removal, **changes: Any) -> Removal:
        removal = replace(removal, **changes)
        with self._condition:
            if self._read(removal.id) is not None:  # else nobody wants it any more
                self._write(removal)
        return removal

    def _write(self, removal: Removal) -> None:
        removal = replace(removal, updated=time.time())
        home = self._folder / removal.id
        try:
            home.mkdir(parents=True, exist_ok=True)
            write_atomically(home / "removal.json", json.dumps(asdict(removal)).encode())
        except OSError as e:
            raise TamError(f"the backend's data directory cannot be written ({e.strerror})") from e

    def _read(self, number: str) -> Removal | None:
        if not _ID.fullmatch(number):
            return None
        try:
            fields = json.loads((self._folder / number / "removal.json").read_bytes())
            return Removal(**{**fields, "state": JobState(fields["state"])})
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def _all(self) -> list[Removal]:
        """The oldest first."""
        try:
            names = [p.name for p in self._folder.iterdir()]
        except FileNotFoundError:
            return []
        return sorted((r for n in names if (r := self._read(n))), key=lambda r: (r.created, r.id))

    def _view(self, removal: Removal, place: int | None) -> JobView:
        left = removal.total - removal.steps
        known = self._seconds is not None and removal.state is JobState.RUNNING and removal.total
        return JobView(
            id=int(removal.id[:12], 16), label_studio=removal.label_studio, project=removal.project, task=removal.task,
            label=removal.label, state=removal.state, frames_done=removal.steps, frames_total=removal.total,
            seconds_left=left * (self._seconds or 0.0) if known else None, error=removal.error,
            updated=removal.updated, position=place, kind="removal",
        )  # fmt: skip
