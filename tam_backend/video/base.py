"""The one door through which everything reads frames."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt

Frame = npt.NDArray[np.uint8]


class Reader(Protocol):
    """A video, a folder of images or a list of images: frames by 0-based position in presentation order.

    Frames are HxWx3 uint8 RGB, full range, as a viewer shows them (rotation applied), all of one size.
    Reading is thread-safe, but one reader has one decoding position: code that walks in two directions at once opens
    two readers. Negative indices are not supported: they raise IndexError like any index outside 0..len-1.
    """

    @property
    def key(self) -> str:
        """Identifies the content: the same file gives the same key in every process."""

    @property
    def height(self) -> int: ...

    @property
    def width(self) -> int: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Frame: ...

    def __iter__(self) -> Iterator[Frame]: ...

    def __reversed__(self) -> Iterator[Frame]: ...

    def time(self, index: int) -> float:
        """Presentation time of a frame in seconds, 0 at the first frame."""

    def clone(self) -> Reader:
        """A second, independent reader of the same content that shares the index."""

    def close(self) -> None: ...
