"""Work in pieces, on all threads that PyTorch may use, where each piece is computed by one thread.

PyTorch splits every single operation among its threads, and they meet at its end. For many small operations on data
that fits into a core's cache, it is quicker if each thread takes whole pieces: they meet once, nothing moves from core
to core, and a thread that another program holds up delays its own piece alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Generic, TypeVar

import torch

T = TypeVar("T")


class Workers:
    """A pool of threads that grows to as many as PyTorch may use, and is shared by all who compute."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._size = 0

    def run(self, work: Callable[[Iterable[T]], None], pieces: Iterable[T]) -> None:
        """Call ``work`` once on each thread, with an iterator over the pieces that it is to compute. The pieces go to
        whichever thread is free. Returns when all are done; the first error of any thread is raised."""
        pieces = list(pieces)
        threads = min(torch.get_num_threads(), len(pieces))
        if threads == 1:
            work(pieces)
            return
        shared = _Shared(pieces)
        pool = self._grown(threads)
        jobs = [pool.submit(_alone, work, shared) for _ in range(threads)]
        wait(jobs)  # so that none is still at work when the first error leaves
        for job in jobs:
            job.result()

    def _grown(self, threads: int) -> ThreadPoolExecutor:
        """The pool, with at least so many threads. An outgrown one ends when its last work is done."""
        with self._lock:
            if self._pool is None or self._size < threads:
                known = torch.get_num_threads()
                pool = ThreadPoolExecutor(threads, "tam-worker", _one_thread)
                ready = threading.Barrier(threads + 1)
                for _ in range(threads):
                    pool.submit(ready.wait)
                ready.wait()
                torch.set_num_threads(known)  # a thread's number becomes that of all threads begun later
                self._pool, self._size = pool, threads
            return self._pool


class _Shared(Generic[T]):
    """An iterator that several threads may use."""

    def __init__(self, pieces: Iterable[T]) -> None:
        self._pieces, self._lock = iter(pieces), threading.Lock()

    def __iter__(self) -> _Shared[T]:
        return self

    def __next__(self) -> T:
        with self._lock:
            return next(self._pieces)


def _one_thread() -> None:
    torch.get_num_threads()  # a thread takes over the number of the process when it first asks
    torch.set_num_threads(1)


def _alone(work: Callable[[Iterable[T]], None], pieces: Iterable[T]) -> None:
    with torch.no_grad():  # which is each thread's own
        work(pieces)


#: Shared by all networks: threads are a resource of the process, not of a network.
WORKERS = Workers()
