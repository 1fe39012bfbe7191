"""Programs that we start and stop: free ports, waiting until they answer, stopping just them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import NoReturn

from tamdev import DevError

_STOP_SECONDS = 15.0


def free_port(*preferred: int) -> int:
    """The first of the preferred ports that nobody listens on, else any free one, on the loopback address."""
    for port in (*preferred, 0):
        with socket.socket() as s:
            if os.name != "nt":  # there it would let us share a port that is in use
                s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(s.getsockname()[1])
    raise DevError("no free port on 127.0.0.1")


def local_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """The environment of a program that talks to others on this machine: as ours, without a proxy for those."""
    bypass = ",".join(filter(None, [os.environ.get("NO_PROXY") or os.environ.get("no_proxy"), "127.0.0.1,localhost"]))
    return {**os.environ, "NO_PROXY": bypass, "no_proxy": bypass, **extra}


def stop_on_signals() -> None:
    """Let SIGTERM and a closed terminal end the program as Ctrl-C does, so that what it started is stopped too."""

    def stop(signum: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:  # nohup
            signal.signal(number, stop)


class Program:
    """A program running beside us, stopped at the end of the ``with`` block, together with what it started itself.

    It runs in a process group of its own: Ctrl-C reaches only us, and we stop one after the other.
    """

    def __init__(self, name: str, command: Sequence[str | Path], env: Mapping[str, str], log: Path) -> None:
        self.name = name
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [str(c) for c in command],
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> Program:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return self._process.pid

    def check(self) -> None:
        """Raise DevError with the end of its log if it has ended."""
        code = self._process.poll()
        if code is not None:
            raise DevError(f"{self.name} ended with exit code {code}. The end of {self.log}:\n{self.last_lines()}")

    def last_lines(self, count: int = 15) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:])

    def wait_until(self, ready: Callable[[], bool], seconds: float, progress: str = "") -> None:
        """Wait until ``ready()`` is true, telling what we wait for. Raises DevError if it ends or takes too long."""
        started = time.monotonic()
        told = 0.0
        while not ready():
            self.check()
            waited = time.monotonic() - started
            if waited > seconds:
                raise DevError(f"{self.name} does not answer after {seconds:.0f} s. Its log:\n{self.last_lines()}")
            if progress and waited - told >= (1 if sys.stdout.isatty() else 20):
                told = waited
                self._tell(f"  {progress} {waited:.0f} s")
            time.sleep(0.3)
        if told and sys.stdout.isatty():
            self._tell("")

    @staticmethod
    def _tell(text: str) -> None:
        sys.stdout.write(f"\r\033[K{text}" if sys.stdout.isatty() else f"{text}\n")
        sys.stdout.flush()

    def stop(self) -> None:
        """Ask the group to end; after a while, or when interrupted once more, end it."""
        try:
            self._signal(signal.SIGTERM)
            self._process.wait(_STOP_SECONDS)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            pass
        finally:
            self._signal(getattr(signal, "SIGKILL", signal.SIGTERM))  # also what outlived its parent
            self._process.wait()

    def _signal(self, number: int) -> None:
        if os.name == "nt":
            if self._process.poll() is None:
                self._process.terminate()
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):  # empty group; macOS says so with the second
            os.killpg(self._process.pid, number)
