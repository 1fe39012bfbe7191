"""Embeddings of frames, in memory and on disk: a frame is encoded once, also for the process after the next restart."""

from __future__ import annotations

import io
import logging
import sqlite3
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import diskcache
import numpy as np

from tam_backend.features import FeatureStore
from tam_backend.segmenters.sam.predictor import Embedding

log = logging.getLogger(__name__)

#: Enough for about 250 frames: an embedding takes 2.1 MB.
MEMORY_BYTES = 512 * 1024 * 1024

_DISK_ERRORS = (OSError, sqlite3.Error, diskcache.Timeout)


class EmbeddingCache:
    """Thread-safe. Of two threads that ask for the same frame, one encodes it and the other waits.

    The least recently used embeddings leave first, from memory beyond ``memory_bytes`` and from disk beyond
    ``disk_bytes``. A disk that fails costs a warning and the time to encode again, nothing else.

    ``hits`` counts frames that were in memory, or being encoded by another thread; ``disk_hits`` those read from disk;
    ``misses`` those that were encoded.
    """

    def __init__(
        self, memory_bytes: int = MEMORY_BYTES, folder: Path | None = None, disk_bytes: int = 0, encoder: str = ""
    ) -> None:
        """folder: where embeddings are kept on disk; several processes may share it. encoder: names the weights and
        the precision, whose embeddings are never taken for those of others."""
        self._memory = FeatureStore(memory_bytes)
        self._encoder = encoder
        self._lock = threading.Lock()
        self._read = 0
        self._failing = ""
        self._disk: diskcache.Cache | None = None
        if folder is not None and disk_bytes > 0:
            try:
                self._disk = diskcache.Cache(str(folder), size_limit=disk_bytes, eviction_policy="least-recently-used")
            except _DISK_ERRORS as e:
                self._tell(e)

    @property
    def hits(self) -> int:
        return self._memory.hits

    @property
    def disk_hits(self) -> int:
        return self._read

    @property
    def misses(self) -> int:
        return self._memory.misses - self._read

    @property
    def nbytes(self) -> int:
        """Bytes held in memory."""
        return self._memory.nbytes

    def __len__(self) -> int:
        """How many embeddings are held in memory."""
        return len(self._memory)

    def get(self, video: str, frame: int, encode: Callable[[], Embedding]) -> Embedding:
        """The embedding of a frame of the video with this key; ``encode`` is called where there is none."""

        def find() -> Embedding:
            found = self._load(video, frame)
            if found is not None:
                with self._lock:
                    self._read += 1
                return found
            made = encode()
            self._store(video, frame, made)
            return made

        return self._memory.get((video, frame), find)

    def clear(self) -> None:
        """Forget what is held in memory; what is on disk stays."""
        self._memory.clear()

    def close(self) -> None:
        if self._disk is not None:
            self._disk.close()

    def _key(self, video: str, frame: int) -> str:
        return f"{self._encoder}/{video}/{frame}"

    def _load(self, video: str, frame: int) -> Embedding | None:
        if self._disk is None:
            return None
        try:
            content = self._disk.get(self._key(video, frame))
        except _DISK_ERRORS as e:
            self._tell(e)
            return None
        return None if content is None else unpack_embedding(content)

    def _store(self, video: str, frame: int, embedding: Embedding) -> None:
        if self._disk is None:
            return
        try:
            self._disk.set(self._key(video, frame), pack_embedding(embedding))
            self._failing = ""
        except _DISK_ERRORS as e:
            self._tell(e)

    def _tell(self, error: Exception) -> None:
        """Once for each kind of failure, until a write succeeds again."""
        if str(error) != self._failing:
            self._failing = str(error)
            log.warning("embeddings of frames cannot be kept on disk (%s); a restart will encode frames again", error)


def pack_embedding(embedding: Embedding) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, codes=embedding.codes, scale=embedding.scale, frame=np.array(embedding.frame, np.int64))
    return buffer.getvalue()


def unpack_embedding(content: bytes) -> Embedding | None:
    """What ``pack_embedding`` was given; None if the content is damaged."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            height, width = (int(n) for n in arrays["frame"])
            return Embedding(arrays["codes"], arrays["scale"], (height, width))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
