"""What a person sees while ``tam track`` works, and how Ctrl-C reaches it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterable, Iterator
from types import FrameType, TracebackType
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def progress(
    items: Iterable[T] | None, total: int | None, title: str, *, unit: str = "frame", quiet: bool = False
) -> tqdm[T]:
    """A bar on stderr with the time left; invisible if that is no terminal."""
    hidden = quiet or not sys.stderr.isatty()
    return tqdm(items, total=total, desc=title, unit=unit, disable=hidden, dynamic_ncols=True, smoothing=0.1)


class Interruption:
    """Inside the block the first Ctrl-C sets ``requested``; the second one is a KeyboardInterrupt as usual.

    So the work stops where nothing is half done. To be used in the main thread, where Python's signals arrive.
    """

    def __init__(self) -> None:
        self.requested = False
        self._before: object = None

    def __enter__(self) -> Interruption:
        self._before = signal.getsignal(signal.SIGINT)
        self.rearm()
        return self

    def rearm(self) -> None:
        """Begin again: the next Ctrl-C is a first one."""
        self.requested = False
        signal.signal(signal.SIGINT, self._note)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self.requested = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        print("\nstopping after this step; Ctrl-C again stops at once", file=sys.stderr)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        signal.signal(signal.SIGINT, self._before)  # type: ignore[arg-type]

    def stoppable(self, items: Iterable[T]) -> Iterator[T]:
        """The items until Ctrl-C."""
        for item in items:
            yield item
            if self.requested:
                return
