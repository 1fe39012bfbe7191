"""Sessions of annotators on workers: a worker computes, the server keeps everything.

A video has its worker, as long as that lives: decoded frames, features and embeddings are there. The worker has no
store. It asks the server for what is finished already, and gives it what it has computed, step by step; so the one
database stays with the one process that writes it. If a worker dies, the session goes on with another one, from what
the store has: nothing that was finished is computed again.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import queue
import threading
import time
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from tam_backend.engines import Engine
from tam_backend.errors import TamError
from tam_backend.sessions.tracks import pack_anchors, unpack_anchors
from tam_backend.tracking.refinement import Decision
from tam_backend.tracking.store import BlobStore
from tam_backend.tracking.tracker import Anchor, Step, TrackedFrame, Tracker
from tam_backend.video import VideoReader, open_source
from tam_backend.video.base import Reader

log = logging.getLogger(__name__)

#: Seconds for which a worker that died gets no session: it is begun anew meanwhile, where there is room.
AWAY_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Request:
    """What to track. id: of this computation. video: path of the file, as the worker reads it. anchors: packed."""

    id: str
    video: str
    frames: range
    reach: range
    anchors: bytes
    focus: int
    finish: bool


@dataclass(frozen=True, slots=True)
class Need:
    """The worker asks for a blob, and waits for it."""

    key: str


@dataclass(frozen=True, slots=True)
class Put:
    """A blob for the store."""

    key: str
    blob: bytes


Message = Need | Put | Decision | Step | TrackedFrame


class WorkerLost(TamError):
    """A worker died, or cannot be reached."""


class Link(Protocol):
    """The way to a worker. Raises WorkerLost."""

    def steps(self, request: Request) -> Iterator[Message]:
        """Begin; the messages come one after the other, and the worker is at most about a step ahead of them."""
        ...

    def supply(self, request: str, key: str, blob: bytes | None) -> None:
        """Answer a Need."""
        ...

    def stop(self, request: str) -> None:
        """No further step; what belongs to those done still comes."""
        ...


# ---- at the worker


class Host:
    """Computes for sessions, in the worker's process. Thread-safe. It is itself a link, for those in the process.

    indices: folder that keeps what is known of files.
    """

    def __init__(self, engine: Engine, indices: Path | None = None) -> None:
        self._engine = engine
        self._open: dict[str, _Session] = {}
        self._indices = indices

    def steps(self, request: Request) -> Iterator[Message]:
        session = self._open[request.id] = _Session()
        thread = threading.Thread(target=self._compute, args=(request, session), name="session", daemon=True)
        thread.start()
        try:
            while (message := session.out.get()) is not None:
                if isinstance(message, BaseException):
                    raise message
                yield message
        finally:
            del self._open[request.id]

    def supply(self, request: str, key: str, blob: bytes | None) -> None:
        self._open[request].answers.put(blob)

    def stop(self, request: str) -> None:
        if session := self._open.get(request):
            session.stopped = True

    def _compute(self, request: Request, session: _Session) -> None:
        try:
            engine = replace(self._engine, decided=session.out.put)
            with (
                contextlib.closing(open_source(request.video, cache_dir=self._indices)) as video,
                Tracker(engine, video, request.frames, _Asking(session), request.reach) as tracker,
                contextlib.closing(
                    tracker.steps(unpack_anchors(request.anchors), request.focus, finish=request.finish)
                ) as steps,
            ):
                for step in steps:
                    session.out.put(step)
                    if session.stopped:
                        break
            session.out.put(None)
        except BaseException as e:  # it is raised where the messages are taken
            session.out.put(e)


class _Session:
    """out: messages; the next is made when the last was taken. answers: to Needs."""

    def __init__(self) -> None:
        self.out: queue.Queue[Message | BaseException | None] = queue.Queue(maxsize=1)
        self.answers: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self.stopped = False


class _Asking:
    """A BlobStore that is the server's."""

    def __init__(self, session: _Session) -> None:
        self._session = session

    def get(self, key: str) -> bytes | None:
        self._session.out.put(Need(key))
        return self._session.answers.get()

    def put(self, key: str, blob: bytes) -> None:
        self._session.out.put(Put(key, blob))


# ---- at the server


class Workers:
    """Which worker computes for which video. Thread-safe. close: gives them back."""

    def __init__(self, links: Mapping[str, Link], close: Callable[[], None] = lambda: None) -> None:
        self.close = close
        self._links = dict(links)
        self._away: dict[str, float] = {}
        self._lock = threading.Lock()

    def of(self, video: str) -> tuple[str, Link] | None:
        """The worker of a video (the key of its content): the same one while it lives. None: there is none at all."""
        with self._lock:
            here = [name for name in self._links if self._away.get(name, 0.0) <= time.monotonic()]
            if not here:
                return None
            # each video ranks the workers in its own way, so that when one dies its videos alone get another
            name = max(here, key=lambda n: hashlib.blake2b(f"{video}/{n}".encode(), digest_size=8).digest())
            return name, self._links[name]

    def lost(self, name: str) -> None:
        with self._lock:
            self._away[name] = time.monotonic() + AWAY_SECONDS


class Elsewhere:
    """An executor: trackers that compute at workers. Where there is none, and for what is no file, it is done here."""

    def __init__(self, engine: Engine, workers: Workers) -> None:
        self._engine = engine
        self._workers = workers

    def tracker(self, video: Reader, frames: range, store: BlobStore, reach: range) -> Tracker:
        if not isinstance(video, VideoReader):
            return Tracker(self._engine, video, frames, store, reach)
        return RemoteTracker(self._engine, video, frames, store, reach, self._workers)

    def close(self) -> None:
        self._workers.close()


class RemoteTracker(Tracker):
    """A tracker whose steps are computed by a worker."""

    def __init__(
        self, engine: Engine, video: VideoReader, frames: range, store: BlobStore, reach: range, workers: Workers
    ) -> None:
        super().__init__(engine, video, frames, store, reach)
        self._file = str(video.path.absolute())
        self._workers = workers

    def steps(
        self, anchors: Mapping[int, Anchor], focus: int, *, finish: bool = False
    ) -> Generator[TrackedFrame | Step, None, None]:
        """As Tracker does. When a worker dies, another one goes on; no frame comes twice."""
        self._validate(anchors)
        done: set[int] = set()
        while (found := self._workers.of(self._video.key)) is not None:
            name, link = found
            request = Request(
                uuid.uuid4().hex, self._file, self.frames, self._reach, pack_anchors(anchors), focus, finish
            )
            log.info("worker %s computes", name)
            try:
                yield from self._new(self._remote(link, request), done)
                return
            except WorkerLost as e:
                log.warning("worker %s: %s; its work goes on elsewhere", name, e)
                self._workers.lost(name)
        yield from self._new(super().steps(anchors, focus, finish=finish), done)

    @staticmethod
    def _new(steps: Iterable[TrackedFrame | Step], done: set[int]) -> Iterator[TrackedFrame | Step]:
        for step in steps:
            if isinstance(step, TrackedFrame):
                if step.frame in done:
                    continue
                done.add(step.frame)
            yield step

    def _remote(self, link: Link, request: Request) -> Iterator[TrackedFrame | Step]:
        messages = link.steps(request)
        try:
            for message in messages:
                if (step := self._take(link, request, message)) is not None:
                    yield step
        except GeneratorExit:
            # the caller wants no more; what is on its way is stored, and the state of the last frame with it
            with contextlib.suppress(WorkerLost):
                link.stop(request.id)
                for message in messages:
                    self._take(link, request, message)
            raise

    def _take(self, link: Link, request: Request, message: Message) -> TrackedFrame | Step | None:
        match message:
            case Need(key):
                link.supply(request.id, key, self._store.get(key))
            case Put(key, blob):
                self._store.put(key, blob)
            case Decision():
                self._engine.decided(message)
            case _:
                return message
        return None
