"""When somebody last worked on a task, as far as its requests tell."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tam_backend.sessions.tracks import Work

#: Times longer ago than this are of no interest to anyone, in seconds.
_REMEMBERED = 3600.0


class Activity:
    """Notes requests by task. Thread-safe."""

    def __init__(self) -> None:
        self._open: dict[Work, int] = {}
        self._last: dict[Work, float] = {}
        self._lock = threading.Lock()

    @contextmanager
    def request(self, work: Work) -> Iterator[None]:
        """A request about a task is being answered."""
        with self._lock:
            self._open[work] = self._open.get(work, 0) + 1
        try:
            yield
        finally:
            now = time.monotonic()
            with self._lock:
                self._open[work] -= 1
                if not self._open[work]:
                    del self._open[work]
                self._last[work] = now
                for old in [w for w, t in self._last.items() if now - t > _REMEMBERED]:
                    del self._last[old]

    def idle_seconds(self, work: Work) -> float:
        """Seconds since the last answer; 0 while a request is open, infinite if there was none lately."""
        with self._lock:
            if work in self._open:
                return 0.0
            return time.monotonic() - self._last.get(work, -math.inf)
