"""Whose turn it is on a device. People who wait for an answer go before work in the background."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

#: People, and seconds within which they had a turn, that make a crowd. One person who goes quickly from task to task
#: may count as several: until a draft is saved, requests do not say whose they are.
CROWD = (8, 60.0)
#: People whose last turn is remembered.
_REMEMBERED = 1000


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    person: Hashable


class DeviceTurns:
    """So many frames are computed at once on a device as it has ``places``: one where each uses all of it.

    Requests take turns frame by frame: of the people who wait, the one whose last turn was longest ago, so that all get
    their nearest frames soon, whoever asks for much. Background work gets a turn only while no request is open, so a
    request waits for at most the frame that has begun. waited: told of the seconds that a request waited for a turn.
    """

    def __init__(self, places: int = 1, waited: Callable[[float], None] = lambda seconds: None) -> None:
        self._waited = waited
        self._condition = threading.Condition()
        self._free = places
        self._requests = 0
        self._queue: list[_Waiting] = []
        self._served: OrderedDict[Hashable, float] = OrderedDict()  # person -> time of the last turn

    @contextmanager
    def request(self) -> Iterator[int]:
        """While this is open, background work stands still. Gives the number of requests that were open before."""
        with self._condition:
            ahead = self._requests
            self._requests += 1
        try:
            yield ahead
        finally:
            with self._condition:
                self._requests -= 1
                self._condition.notify_all()

    @contextmanager
    def interactive(self, person: Hashable = None) -> Iterator[None]:
        """One turn for a request of a person."""
        me = _Waiting(person)
        asked = time.monotonic()
        with self._condition:
            self._queue.append(me)
            try:
                self._condition.wait_for(lambda: self._free and self._first() is me)
                self._free -= 1
                self._served[person] = time.monotonic()
                self._served.move_to_end(person)
                while len(self._served) > _REMEMBERED:
                    self._served.popitem(last=False)
            finally:
                self._queue.remove(me)
                self._condition.notify_all()  # there may be a place for the next, too
        self._waited(time.monotonic() - asked)
        try:
            yield
        finally:
            self._done()

    @property
    def waiting(self) -> int:
        """How many requests wait for their turn just now."""
        return len(self._queue)

    @property
    def crowded(self) -> bool:
        """Whether many people share the device. Few can do so without haste."""
        with self._condition:
            since = time.monotonic() - CROWD[1]
            return sum(last > since for last in self._served.values()) >= CROWD[0]

    @contextmanager
    def background(self, timeout: float) -> Iterator[bool]:
        """One turn for background work. False, and no turn, if there was none within ``timeout`` seconds."""
        with self._condition:
            mine = self._condition.wait_for(lambda: self._free > 0 and not self._queue and self._requests == 0, timeout)
            self._free -= mine
        try:
            yield mine
        finally:
            if mine:
                self._done()

    def _first(self) -> _Waiting:
        """Who is next; of one person's requests, the oldest."""
        return min(self._queue, key=lambda waiting: self._served.get(waiting.person, 0))

    def _done(self) -> None:
        with self._condition:
            self._free += 1
            self._condition.notify_all()
