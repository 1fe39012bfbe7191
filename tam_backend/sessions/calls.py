"""Things to do a little later, one after the other, in a thread of their own."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable

log = logging.getLogger(__name__)


class DelayedCalls:
    """Calls functions, the one due first. What is still waiting when this is closed is dropped."""

    def __init__(self, name: str) -> None:
        self._waiting: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._condition = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, seconds: float, call: Callable[[], None]) -> None:
        """Have something called some seconds from now."""
        with self._condition:
            heapq.heappush(self._waiting, (time.monotonic() + seconds, next(self._order), call))
            self._condition.notify()

    def close(self, timeout: float = 5.0) -> None:
        """End after the call that is under way; do not wait for it longer than ``timeout`` seconds."""
        with self._condition:
            self._closing = True
            self._condition.notify()
        self._thread.join(timeout)

    def _run(self) -> None:
        while True:
            with self._condition:
                while not self._closing and (not self._waiting or self._waiting[0][0] > time.monotonic()):
                    left = self._waiting[0][0] - time.monotonic() if self._waiting else None
                    self._condition.wait(left)
                if self._closing:
                    return
                _, _, call = heapq.heappop(self._waiting)
            try:
                call()
            except Exception:
                log.exception("%s failed", self._thread.name)
