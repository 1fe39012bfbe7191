"""Where finished frames are kept, addressed by what they were computed from.

A key names the content that decides a mask (video, engine, prompts of the bracketing frames), never who asked. So two
people who gave different prompts cannot get each other's masks, identical requests share one computation, and nothing
has to be invalidated: a changed prompt is a different key.
"""

from __future__ import annotations

import json
import math
import struct
import threading
import zlib
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from tam_backend.propagators.base import Propagated

#: Bytes up to which a state is deflated.
_DEFLATED_STATE = 4_000_000
#: Marks the blob of a frame of which a part is stored. What zlib makes never begins with it.
_PART = b"p"


class BlobStore(Protocol):
    """Bytes by key. Thread-safe. A blob may disappear when space is short; a later ``put`` replaces it whole."""

    def get(self, key: str) -> bytes | None: ...

    def put(self, key: str, blob: bytes) -> None: ...


class MemoryStore:
    """A BlobStore in memory that drops the least recently used blobs beyond ``max_bytes``.

    A blob that is larger than that by itself is not kept, and costs no other blob its place.
    """

    #: What one entry costs beside its blob: key string, dict slot, bytes header.
    OVERHEAD = 250

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._blobs: OrderedDict[str, bytes] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        return self._bytes

    def shrink(self, max_bytes: int) -> None:
        """Drop the least recently used blobs until the rest fits."""
        with self._lock:
            self._fit(max_bytes)

    def _fit(self, max_bytes: int) -> None:
        while self._bytes > max_bytes:
            _, dropped = self._blobs.popitem(last=False)
            self._bytes -= len(dropped) + self.OVERHEAD

    def get(self, key: str) -> bytes | None:
        with self._lock:
            blob = self._blobs.get(key)
            if blob is not None:
                self._blobs.move_to_end(key)
            return blob

    def put(self, key: str, blob: bytes) -> None:
        with self._lock:
            old = self._blobs.pop(key, None)
            if old is not None:
                self._bytes -= len(old) + self.OVERHEAD
            if len(blob) + self.OVERHEAD > self._max_bytes:
                return
            self._blobs[key] = blob
            self._bytes += len(blob) + self.OVERHEAD
            self._fit(self._max_bytes)


def pack_frame(result: Propagated) -> bytes:
    """A finished frame as a blob: quality, height, width, a mark, and the soft mask deflated.

    Only repetitions of one value are looked for: masks are flat, and it takes half of the time, and 8 % less space, of
    deflate's level 1. Of the mask only the rows and columns between its first and last value that is not 0: top, left,
    height and width. Deflating nothing but zeros would take longer than all the rest.
    """
    soft = result.soft
    left, top, width, height = cv2.boundingRect(soft)  # all 0 for an empty one
    part = np.array([top, left, height, width], "<u4").tobytes()
    header = np.array([result.quality], "<f8").tobytes() + np.array(soft.shape, "<u4").tobytes()
    deflate = zlib.compressobj(1, strategy=zlib.Z_RLE)
    content = deflate.compress(soft[top : top + height, left : left + width].tobytes()) + deflate.flush()
    return header + _PART + part + content


def unpack_frame(blob: bytes) -> Propagated:
    quality = float(np.frombuffer(blob, "<f8", 1)[0])
    height, width = (int(n) for n in np.frombuffer(blob, "<u4", 2, 8))
    if blob[16:17] != _PART:  # of the time when the whole mask was stored
        soft = np.frombuffer(zlib.decompress(blob[16:]), np.uint8).reshape(height, width)
        return Propagated(soft=soft, quality=quality)
    top, left, rows, columns = (int(n) for n in np.frombuffer(blob, "<u4", 4, 17))
    soft = np.zeros((height, width), np.uint8)
    part = np.frombuffer(zlib.decompress(blob[33:]), np.uint8).reshape(rows, columns)
    soft[top : top + rows, left : left + columns] = part
    return Propagated(soft=soft, quality=quality)


def pack_state(frame: int, state: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """The state of a propagation after ``frame`` as a blob: a mark, the length of a header, the header (JSON: dtypes
    and shapes), then the arrays one after the other.

    Not a file of ``np.savez``: to read one, numpy has Python parse its headers, and parsing in several threads at once
    can fail in CPython 3.11 ("AST constructor recursion depth mismatch"). Large states are the floats of a network,
    which deflate makes 8 % smaller in twenty times the time: they stay as they are.
    """
    arrays = [np.ascontiguousarray(a) for a in state.values()]
    facts = [[name, a.dtype.str, np.shape(state[name])] for name, a in zip(state, arrays, strict=True)]
    header = json.dumps([frame, facts]).encode()
    content = b"".join([struct.pack("<I", len(header)), header, *(a.tobytes() for a in arrays)])
    return b"z" + zlib.compress(content, 1) if len(content) <= _DEFLATED_STATE else b"-" + content


def unpack_state(blob: bytes) -> tuple[int, dict[str, npt.NDArray[Any]]]:
    content = memoryview(zlib.decompress(blob[1:])) if blob[:1] == b"z" else memoryview(blob)[1:]
    (length,) = struct.unpack_from("<I", content)
    frame, facts = json.loads(bytes(content[4 : 4 + length]))
    state, offset = {}, 4 + length
    for name, dtype, shape in facts:
        count = math.prod(shape)
        array = np.frombuffer(content, np.dtype(dtype), count, offset).reshape(shape)
        state[name] = array.copy()  # aligned, writable, and not holding on to the whole blob
        offset += array.nbytes
    return frame, state
