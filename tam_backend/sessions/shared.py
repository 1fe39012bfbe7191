"""One computation for all who ask for the same thing at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class Shared(Generic[T]):
    """Thread-safe. Keeps nothing: who asks when the answer is out has it computed anew."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[Hashable, Future[T]] = {}

    def get(self, key: Hashable, compute: Callable[[], T]) -> T:
        """What ``compute`` returns, or raises, called by the first of those who ask for ``key`` at once."""
        with self._lock:
            future = self._open.get(key)
            if mine := future is None:
                future = self._open[key] = Future()
        assert future is not None
        if mine:
            try:
                future.set_result(compute())
            except BaseException as e:
                future.set_exception(e)
            finally:
                with self._lock:
                    del self._open[key]
        return future.result()
