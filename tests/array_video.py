"""A video that is an array."""

from __future__ import annotations

from collections.abc import Iterator

from tam_backend.video.base import Frame


class ArrayVideo:
    """Frames in memory."""

    def __init__(self, frames: Frame, key: str = "video") -> None:
        self._frames, self.key = frames, key
        self.height, self.width = (int(n) for n in frames.shape[1:3])

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> Frame:
        return self._frames[index]

    def __iter__(self) -> Iterator[Frame]:
        return iter(self._frames)

    def __reversed__(self) -> Iterator[Frame]:
        return iter(self._frames[::-1])

    def time(self, index: int) -> float:
        return index / 25

    def clone(self) -> ArrayVideo:
        return self

    def close(self) -> None:
        pass
