"""Who does a list of work: this process, or workers on Ray. The work is the same code and knows nothing of either.

What is to be done comes as a function ``start``, called once in each worker: it loads what all work needs (an engine
with its weights) and returns a function that does one item and yields messages about it, the last one its result.
``start`` and the items go to other machines, so they have to be picklable.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

T = TypeVar("T")

#: Does one item.
Do = Callable[[T], Iterator[Any]]


@dataclass(frozen=True, slots=True)
class Event(Generic[T]):
    """Something about an item. kind: ``began``; ``message``, with what the work said; ``done``; ``failed``, with the
    error; ``lost``: its worker died in the middle. worker: from 1. where: the machine and process of the worker."""

    kind: str
    item: T
    worker: int
    where: str
    message: Any = None
    error: BaseException | None = None


class Executor(Protocol[T]):
    """workers: how many work at once."""

    workers: int

    def run(self, items: deque[T]) -> Iterator[Event[T]]:
        """Take the items, from the left, and do them, until none is left and none is under way.

        The caller may put some back at any event: what failed may be tried once more.
        """
        ...

    def close(self) -> None: ...


class InProcess(Generic[T]):
    """One item after the other, here."""

    def __init__(self, start: Callable[[], Do[T]]) -> None:
        self.workers = 1
        self._do = start()

    def run(self, items: deque[T]) -> Iterator[Event[T]]:
        where = this_process()
        while items:
            item = items.popleft()
            yield Event("began", item, 1, where)
            try:
                for message in self._do(item):
                    yield Event("message", item, 1, where, message)
            except Exception as e:
                yield Event("failed", item, 1, where, error=e)
            else:
                yield Event("done", item, 1, where)

    def close(self) -> None:
        pass


def this_process() -> str:
    """Machine and process, for people."""
    return f"{socket.gethostname()}, process {os.getpid()}"
