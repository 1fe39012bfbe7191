"""A byte-bounded, thread-safe cache in which every value is computed once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Protocol, TypeVar, cast

from tam_backend.errors import BadInput

#: Enough for the flow of about 80 frame pairs of 854x480.
DEFAULT_BYTES = 64 * 1024 * 1024


class Sized(Protocol):
    """Anything that knows its size in bytes; numpy arrays do."""

    @property
    def nbytes(self) -> int: ...


T = TypeVar("T", bound=Sized)


class FeatureStore:
    """Least recently used values leave first once ``max_bytes`` are exceeded.

    Two threads that ask for the same missing key compute it once: the second waits for the first. If the first fails,
    its error is its own (its reader may have been closed), and a waiting thread computes the value itself.
    A value larger than the whole bound is handed out but not kept.
    ``hits`` counts what was held or computed by another thread meanwhile, ``misses`` what had to be computed.
    """

    def __init__(self, max_bytes: int = DEFAULT_BYTES) -> None:
        if max_bytes < 0:
            raise BadInput(f"max_bytes must be 0 or more, got {max_bytes}")
        self.max_bytes = max_bytes
        self.hits, self.misses = 0, 0
        self._lock = threading.Lock()
        self._values: OrderedDict[Hashable, Sized] = OrderedDict()
        self._nbytes = 0
        self._computing: dict[Hashable, threading.Event] = {}

    @property
    def nbytes(self) -> int:
        """Bytes held at the moment; never more than ``max_bytes``."""
        return self._nbytes

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: Hashable, compute: Callable[[], T]) -> T:
        """The value of ``key``; ``compute`` is called where it is not held. ``compute`` may ask for other keys."""
        while True:
            with self._lock:
                if key in self._values:
                    self._values.move_to_end(key)
                    self.hits += 1
                    return cast(T, self._values[key])
                pending = self._computing.get(key)
                if pending is None:
                    self.misses += 1
                    done = self._computing[key] = threading.Event()
                    break
            pending.wait()
        try:
            value = compute()
            with self._lock:
                self._keep(key, value)
            return value
        finally:
            with self._lock:
                del self._computing[key]
            done.set()

    def _keep(self, key: Hashable, value: Sized) -> None:
        if value.nbytes > self.max_bytes:
            return
        self._values[key] = value
        self._nbytes += value.nbytes
        while self._nbytes > self.max_bytes:
            _, oldest = self._values.popitem(last=False)
            self._nbytes -= oldest.nbytes

    def clear(self) -> None:
        """Forget everything that is held."""
        with self._lock:
            self._values.clear()
            self._nbytes = 0
