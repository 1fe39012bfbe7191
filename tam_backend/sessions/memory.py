"""How much memory this process takes, and what to do when it comes near its limit."""

from __future__ import annotations

import ctypes
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

log = logging.getLogger(__name__)

#: Shares of the limit: caches are dropped beyond the first, until less than the second is taken.
_HIGH, _LOW = 0.85, 0.75
_LOOK_EVERY = 0.5
_TELL_EVERY = 60.0
#: The share of this machine's memory that is the limit unless one is set.
_OF_MACHINE = 0.75
_PAGE = os.sysconf("SC_PAGE_SIZE")


def resident_bytes() -> int:
    """What this process takes of the machine's memory now (RSS); 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE
    except (OSError, ValueError, IndexError):
        return 0


def default_limit() -> int:
    """Three quarters of the memory of this machine, or of the container that this runs in."""
    sizes = [os.sysconf("SC_PHYS_PAGES") * _PAGE]
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            sizes.append(int(Path(path).read_text()))
        except (OSError, ValueError):  # no such file; or it says "max"
            continue
    return round(_OF_MACHINE * min(sizes))


class MemoryWatch:
    """Drops caches when the process takes too much. Watches in a thread of its own until closed.

    drop: what gives memory back, that whose loss costs least first.
    """

    def __init__(
        self, limit: int, drop: Sequence[Callable[[], None]], taken: Callable[[], int] = resident_bytes
    ) -> None:
        self.limit = limit
        self._drop = drop
        self._taken = taken
        self._told = -_TELL_EVERY
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closed.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closed.wait(_LOOK_EVERY):
            try:
                self.look()
            except Exception:
                log.exception("memory could not be given back")

    def look(self) -> None:
        """Once."""
        before = self._taken()
        if before <= _HIGH * self.limit:
            return
        for drop in self._drop:
            drop()
            _give_back()
            if self._taken() <= _LOW * self.limit:
                break
        now = self._taken()
        if time.monotonic() - self._told > _TELL_EVERY:
            self._told = time.monotonic()
            level = logging.WARNING if now > _HIGH * self.limit else logging.INFO
            log.log(
                level, "memory: %.0f MB, with caches dropped %.0f MB; the limit is %.0f MB (TAM_MEMORY_MB)",
                before / 1e6, now / 1e6, self.limit / 1e6,
            )  # fmt: skip


def _give_back() -> None:
    """Have the C library hand freed memory to the system; it keeps much of it else."""
    if sys.platform == "linux":
        try:
            ctypes.CDLL(None).malloc_trim(0)
        except (AttributeError, OSError):  # another C library
            return
