"""Workers on Ray: one actor for each GPU, or for every so many cores. This module alone imports Ray."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Generic, TypeVar

from tam_backend.cluster.executors import Do, Event, this_process
from tam_backend.cluster.sessions import Host, Message, Request, WorkerLost, Workers
from tam_backend.engines import Engine, load_engine
from tam_backend.errors import BadInput, TamError
from tam_backend.settings import Settings

log = logging.getLogger(__name__)

T = TypeVar("T")

LOCAL = "local"
#: Ports of a cluster of our own, beside that of its head.
_PORTS = (
    "dashboard-agent-listen-port", "dashboard-agent-grpc-port", "metrics-export-port", "runtime-env-agent-port",
    "node-manager-port", "object-manager-port",
)  # fmt: skip
#: Memory of it for what goes between its processes, and seconds in which it must be there, and gone.
_OBJECT_BYTES, _START_SECONDS, _END_SECONDS = 200_000_000, 120.0, 8.0
#: What a worker of the server reserves of a core, and what is left for a batch: both fit on every core. The priority of
#: the processes, not this, says who goes first there.
_SESSION_SHARE, _BATCH_SHARE = 0.1, 0.9
#: Computations that one of the server's workers has open at once; most of them wait for their next turn.
_SESSIONS_AT_ONCE = 64
#: Seconds within which the server's workers must have loaded their engines.
_WORKERS_START = 300.0
#: Seconds until something that happened is noticed at the latest.
_LOOK_EVERY = 1.0
_INSTALL = "Ray is not installed: pip install 'tam-backend[cluster]', or pip install -r requirements-cluster.txt"


@dataclass(frozen=True, slots=True)
class Cluster:
    """Ray itself, connected. process: the cluster, if it is this process's own."""

    ray: Any
    address: str
    process: subprocess.Popen[bytes] | None = None

    def close(self) -> None:
        self.ray.shutdown()
        if self.process is not None:
            _end(self.process)


def connect(address: str, cores: int = 0) -> Cluster:
    """address: ``local``, a cluster of this machine alone, which ends with this process; ``auto``, the one that was
    started here; else that of its head, HOST:PORT. cores: that a local one should have at least, even if the machine
    has fewer.

    Raises TamError if Ray is not installed or there is no such cluster.
    """
    # Ray reads these when it is imported
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent to anybody
    if address == LOCAL and not _token_known():
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)  # this process and its cluster alone know it
    if _token_known():
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # strangers are refused, and we show ours
    try:
        import ray
    except ImportError as e:
        raise TamError(_INSTALL) from e
    process = None
    if address == LOCAL:
        address, process = _start(max(cores, os.cpu_count() or 1))
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as e:
        if process is not None:
            _end(process)
        raise TamError(f"no Ray cluster answers at {address}: {e}. Start one with: ray start --head") from e
    return Cluster(ray, ray.get_runtime_context().gcs_address, process)


def _token_known() -> bool:
    """Whether Ray has a token to show, where it looks for one."""
    named = any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    return named or (Path.home() / ".ray" / "auth_token").exists()


def _start(cores: int) -> tuple[str, subprocess.Popen[bytes]]:
    """A cluster of this machine alone. Raises TamError if it does not start.

    ``ray.init`` could start one, too, but its parts wait only 15 s for each other's ports, which is short where the
    machine is busy. Ports that they are told they need not wait for.
    """
    port, *ports = _free_ports(len(_PORTS) + 1)
    command = [
        sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats",
        "--include-dashboard=false", "--node-ip-address=127.0.0.1", f"--port={port}", f"--num-cpus={cores}",
        f"--object-store-memory={_OBJECT_BYTES}",
        *(f"--{name}={number}" for name, number in zip(_PORTS, ports, strict=True)),
    ]  # fmt: skip
    process = subprocess.Popen(  # noqa: S603 (our own interpreter, and numbers)
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    atexit.register(_end, process)
    until = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return f"127.0.0.1:{port}", process
        time.sleep(0.1)
    _end(process)
    raise TamError("Ray does not start on this machine; try it with: ray start --head --block")


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ray ends its parts when it is told to; what is left after a while is ended with it."""
    atexit.unregister(_end)
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_END_SECONDS)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _let_others_go_first() -> None:
    """Have this thread, and those that it begins, compute while nobody else of this cluster wants the core.

    Ray begins all workers at nice 15, from where more niceness hardly tells.
    """
    if sys.platform == "linux":
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    else:
        os.nice(19)


class _Worker(Generic[T]):
    """What runs on an actor."""

    def __init__(self, start: Callable[[], Do[T]], cores: int) -> None:
        import cv2

        _let_others_go_first()
        cv2.setNumThreads(cores)  # OpenCV does not know how many of the machine's cores are this worker's
        self._do = start()

    def where(self) -> str:
        return this_process()

    def do(self, item: T) -> Iterator[Any]:
        yield from self._do(item)


@dataclass(eq=False)
class _Seat(Generic[T]):
    """An actor and what it does. starting: its answer that it is ready, until that has come."""

    number: int
    actor: Any
    starting: Any
    where: str = ""
    item: T | None = None
    messages: Any = None


class RayWorkers(Generic[T]):
    """Actors of one kind. One that dies is begun anew by Ray, where there is room; what it did is reported as lost.

    cores: that each takes, beside a GPU if ``gpus``. workers: how many; 0: as many as the cluster has room for.
    gpus: a GPU for each; None: if the cluster has any.
    """

    def __init__(
        self, start: Callable[[], Do[T]], address: str, workers: int = 0, cores: int = 1, gpus: bool | None = False
    ) -> None:
        self._cluster = connect(address, workers * cores)
        self._ray = ray = self._cluster.ray
        there = ray.cluster_resources()
        gpus = there.get("GPU", 0) > 0 if gpus is None else gpus
        room = int(there.get("GPU", 0) if gpus else there.get("CPU", 0) // cores)
        if not room or workers > room:
            what = "GPUs" if gpus else f"times {cores} cores"
            self.close()
            raise BadInput(f"--workers {workers or 1}: the cluster at {address} has {room} {what}")
        self.workers = workers or room
        share = round(cores * _BATCH_SHARE, 4)
        actor = ray.remote(_Worker).options(num_cpus=share, num_gpus=int(gpus), max_restarts=-1)
        code = ray.put(start)
        self._seats: list[_Seat[T]] = []
        for number in range(1, self.workers + 1):
            made = actor.remote(code, cores)
            self._seats.append(_Seat(number, made, made.where.remote()))

    def run(self, items: deque[T]) -> Iterator[Event[T]]:
        """Raises TamError if a worker cannot be started at all: no other could."""
        while True:
            for seat in self._seats:
                if items and seat.item is None and seat.starting is None:
                    seat.item = items.popleft()
                    seat.messages = seat.actor.do.options(num_returns="streaming").remote(seat.item)
                    yield Event("began", seat.item, seat.number, seat.where)
            if not items and all(s.item is None for s in self._seats):
                return  # nobody waits for a worker that is only starting again
            waiting = {s.starting or s.messages: s for s in self._seats if s.starting or s.messages}
            ready, _ = self._ray.wait(list(waiting), num_returns=1, timeout=_LOOK_EVERY)
            for reference in ready:
                seat = waiting[reference]
                if seat.item is None:
                    self._started(seat)
                else:
                    yield self._next(seat, seat.item)

    def _started(self, seat: _Seat[T]) -> None:
        errors = self._ray.exceptions
        try:
            seat.where = self._ray.get(seat.starting)
        except errors.RayTaskError as e:
            raise _cause(e) from None
        except errors.RayActorError as e:
            if not seat.where:
                raise TamError(f"a worker cannot be started: {e}") from e
            seat.starting = seat.actor.where.remote()  # it has worked before: there may be room again
        else:
            seat.starting = None

    def _next(self, seat: _Seat[T], item: T) -> Event[T]:
        errors = self._ray.exceptions
        error: BaseException | None = None
        try:
            return Event("message", item, seat.number, seat.where, self._ray.get(next(seat.messages)))
        except StopIteration:
            kind = "done"
        except errors.RayActorError:
            kind, error = "lost", TamError(f"its worker died ({seat.where})")
            seat.starting = seat.actor.where.remote()  # answers when Ray has begun it anew
        except errors.RayTaskError as e:
            kind, error = "failed", _cause(e)
        seat.item = seat.messages = None
        return Event(kind, item, seat.number, seat.where, error=error)

    def close(self) -> None:
        self._cluster.close()


class _SessionActor:
    """What runs on an actor that computes for annotators."""

    def __init__(self, settings: Settings, engine: str, cores: int) -> None:
        import cv2

        cv2.setNumThreads(cores)
        self._folder = TemporaryDirectory(prefix="tam-worker-")  # as long as this process
        self._host = Host(load_engine(engine, settings), Path(self._folder.name))

    def where(self) -> str:
        return this_process()

    def steps(self, request: Request) -> Iterator[Message]:
        yield from self._host.steps(request)

    def supply(self, request: str, key: str, blob: bytes | None) -> None:
        self._host.supply(request, key, blob)

    def stop(self, request: str) -> None:
        self._host.stop(request)


@dataclass(frozen=True, slots=True)
class _RayLink:
    """The way to an actor (see ``Link``)."""

    ray: Any
    actor: Any

    def steps(self, request: Request) -> Iterator[Message]:
        # the worker must not compute ahead: between two steps somebody else may have to go first
        options = {"num_returns": "streaming", "_generator_backpressure_num_objects": 1}
        messages = self.actor.steps.options(**options).remote(request)
        try:
            for message in messages:
                yield self.ray.get(message)
        except self.ray.exceptions.RayActorError as e:
            raise WorkerLost(f"it died ({type(e).__name__})") from None
        except self.ray.exceptions.RayTaskError as e:
            raise _cause(e) from None

    def supply(self, request: str, key: str, blob: bytes | None) -> None:
        self.actor.supply.remote(request, key, blob)

    def stop(self, request: str) -> None:
        self.actor.stop.remote(request)


def session_workers(settings: Settings, engine: Engine) -> tuple[Workers, int]:
    """The workers of ``tam serve`` on the cluster of the settings, and how many. Raises TamError if there are none."""
    cluster = connect(settings.cluster, settings.cluster_workers)
    ray = cluster.ray
    there = ray.cluster_resources()
    gpus = engine.name == "sam-xmem" and there.get("GPU", 0) > 0
    count = settings.cluster_workers or int(there.get("GPU" if gpus else "CPU", 0))
    actor = ray.remote(_SessionActor).options(
        num_cpus=_SESSION_SHARE, num_gpus=int(gpus), max_restarts=-1, max_concurrency=_SESSIONS_AT_ONCE,
        scheduling_strategy="SPREAD",  # else so small a share would have them all on one machine
    )  # fmt: skip
    actors = [actor.remote(settings.without_secrets(), engine.name, 1) for _ in range(count)]
    try:
        for i, where in enumerate(ray.get([a.where.remote() for a in actors], timeout=_WORKERS_START), 1):
            log.info("worker %d: %s", i, where)
    except ray.exceptions.RayTaskError as e:
        raise _cause(e) from None
    except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError) as e:
        raise TamError(f"TAM_CLUSTER={settings.cluster}: {count} workers cannot be started there: {e}") from e
    return Workers({f"{i}": _RayLink(ray, a) for i, a in enumerate(actors, 1)}, cluster.close), count


def _cause(error: Any) -> BaseException:
    """What the work itself raised."""
    cause = error.cause
    return cause if isinstance(cause, BaseException) else TamError(str(error))
