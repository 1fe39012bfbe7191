"""A BlobStore for one piece of work on a place that all machines reach: whoever takes the work over goes on from there.

Blobs are small and many, and neither buckets nor network disks like that. So they are kept on this machine, and go to
the place together, some seconds' worth in one file, a *segment*. Segments are never changed. Who begins reads them all.
"""

from __future__ import annotations

import json
import struct
import threading
import time
import uuid
from pathlib import Path

from tam_backend.cluster.places import Place
from tam_backend.tracking.filestore import FileStore

#: A segment is written when so much has come together, or when so many seconds have passed since the last one. As much
#: is lost when a machine dies.
SEGMENT_BYTES, SEGMENT_SECONDS = 8_000_000, 5.0


class SegmentStore:
    """folder: of the segments, in the place. local: a folder of this machine alone. Thread-safe.

    place: None: nothing is kept for others.
    """

    def __init__(self, place: Place | None, folder: str, local: Path) -> None:
        self._place = place
        self._folder = folder
        self._local = FileStore(local)
        self._lock = threading.Lock()
        self._fresh: dict[str, bytes] = {}
        self._bytes = 0
        self._flushed = time.monotonic()
        for name in place.names(folder) if place else []:
            segment = place.read(name) if place else None
            for key, blob in (unpack_segment(segment) if segment is not None else {}).items():
                self._local.put(key, blob)

    def get(self, key: str) -> bytes | None:
        return self._local.get(key)

    def put(self, key: str, blob: bytes) -> None:
        self._local.put(key, blob)
        if self._place is None:
            return
        with self._lock:
            self._bytes += len(blob) - len(self._fresh.get(key, b""))
            self._fresh[key] = blob
            due = self._bytes >= SEGMENT_BYTES or time.monotonic() - self._flushed >= SEGMENT_SECONDS
        if due:
            self.flush()

    def flush(self) -> None:
        """Write what has come together. Raises OSError; then it is written with the next."""
        with self._lock:
            if self._place is None or not self._fresh:
                return
            # by time, so that of two blobs of a key the later one counts
            name = f"{self._folder}/{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.segment"
            self._place.write(name, pack_segment(self._fresh))
            self._fresh, self._bytes, self._flushed = {}, 0, time.monotonic()

    def drop(self) -> None:
        """Forget it all: the work is done."""
        with self._lock:
            self._fresh, self._bytes = {}, 0
            if self._place is not None:
                self._place.remove(self._folder)


def pack_segment(blobs: dict[str, bytes]) -> bytes:
    """The length of a table, the table (JSON: key and length of each blob), and the blobs."""
    table = json.dumps([[key, len(blob)] for key, blob in blobs.items()]).encode()
    return b"".join([struct.pack("<I", len(table)), table, *blobs.values()])


def unpack_segment(content: bytes) -> dict[str, bytes]:
    """What ``pack_segment`` was given; nothing where it is damaged: that is computed again."""
    try:
        (length,) = struct.unpack_from("<I", content)
        table = json.loads(content[4 : 4 + length])
        offset, blobs = 4 + length, {}
        for key, size in table:
            blobs[str(key)] = content[offset : offset + size]
            offset += size
    except (struct.error, ValueError, TypeError):
        return {}
    return blobs if offset == len(content) else {}
