"""Every n-th frame of a video, as a video."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import SupportsIndex

from tam_backend.video.base import Frame, Reader


class EveryNth:
    """The frames ``offset``, ``offset + every``, ... of a reader as frames 0, 1, ...; see Reader.

    It closes the reader when it is closed.
    """

    def __init__(self, reader: Reader, every: int, offset: int = 0) -> None:
        self._reader = reader
        self._every = every
        self._offset = offset
        self._frames = range(offset, len(reader), every)

    @property
    def key(self) -> str:
        return f"{self._reader.key}/every-{self._every}-{self._offset}"

    @property
    def height(self) -> int:
        return self._reader.height

    @property
    def width(self) -> int:
        return self._reader.width

    @property
    def warning(self) -> str | None:
        """What is wrong with the video as a whole."""
        return getattr(self._reader, "warning", None)

    def original(self, index: SupportsIndex) -> int:
        """The number of a frame in the video itself. Raises IndexError outside 0..len-1."""
        place = operator.index(index)
        if not 0 <= place < len(self._frames):
            raise IndexError(f"frame {place}: there are frames 0 to {len(self._frames) - 1}")
        return self._frames[place]

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: SupportsIndex) -> Frame:
        return self._reader[self.original(index)]

    def __iter__(self) -> Iterator[Frame]:
        return (self[i] for i in range(len(self)))

    def __reversed__(self) -> Iterator[Frame]:
        return (self[i] for i in reversed(range(len(self))))

    def time(self, index: SupportsIndex) -> float:
        return self._reader.time(self.original(index)) - self._reader.time(self._offset)

    def clone(self) -> EveryNth:
        return EveryNth(self._reader.clone(), self._every, self._offset)

    def close(self) -> None:
        self._reader.close()


def original_frame(reader: Reader, index: int) -> int:
    """The number of a reader's frame in the video itself."""
    return reader.original(index) if isinstance(reader, EveryNth) else index
