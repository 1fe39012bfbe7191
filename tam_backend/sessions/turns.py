"""Whose turn it is on a device. People who wait for an answer go before work in the background."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class DeviceTurns:
    """One frame is computed at a time on a device: each uses all of it.

    Requests take turns frame by frame, first come, first served, so that all get their nearest frames soon. Background
    work gets a turn only while no request is open, so a request waits for at most the one frame that has begun.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._busy = False
        self._requests = 0
        self._queue: deque[object] = deque()

    @contextmanager
    def request(self) -> Iterator[None]:
        """While this is open, background work stands still."""
        with self._condition:
            self._requests += 1
        try:
            yield
        finally:
            with self._condition:
                self._requests -= 1
                self._condition.notify_all()

    @contextmanager
    def interactive(self) -> Iterator[None]:
        """One turn for a request."""
        me = object()
        with self._condition:
            self._queue.append(me)
            try:
                self._condition.wait_for(lambda: not self._busy and self._queue[0] is me)
                self._busy = True
            finally:
                self._queue.remove(me)
        try:
            yield
        finally:
            self._done()

    @contextmanager
    def background(self, timeout: float) -> Iterator[bool]:
        """One turn for background work. False, and no turn, if there was none within ``timeout`` seconds."""
        with self._condition:
            mine = self._condition.wait_for(lambda: not self._busy and not self._queue and self._requests == 0, timeout)
            self._busy = self._busy or mine
        try:
            yield mine
        finally:
            if mine:
                self._done()

    def _done(self) -> None:
        with self._condition:
            self._busy = False
            self._condition.notify_all()
