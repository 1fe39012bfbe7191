"""Finished masks on disk, and in memory in front of it."""

from __future__ import annotations

import hashlib
import logging
import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from tam_backend.sessions.database import Database
from tam_backend.tracking.keys import video_of
from tam_backend.tracking.store import BlobStore

log = logging.getLogger(__name__)

#: Keys of blobs that cannot be computed again: what people saw before they clicked.
_LASTING = "seen/"


def lasting_key(content: object, kind: str = "") -> str:
    """The key of a blob that is never dropped. content: what it is about, with a ``repr`` that is always the same."""
    return f"{_LASTING}{kind}{hashlib.blake2b(repr(content).encode(), digest_size=16).hexdigest()}"


#: The time of use is noted this exactly, in seconds: a read should not cost a write.
_USE_NOTED_EVERY = 3600.0
#: When space is short, so much more than necessary is freed, so that it is not looked for at every blob.
_FREED_AT_ONCE = 0.05
#: Blobs that a disk which cannot be written gets later, and seconds until that is tried again.
_OWED = 100_000
_AGAIN_SECONDS = 2.0


class DiskStore:
    """A BlobStore in the database. Beyond ``max_bytes`` the blobs unused for longest are dropped, except lasting ones.

    Raises sqlite3.Error when the disk fails; see ``LayeredStore``.
    """

    def __init__(self, database: Database, max_bytes: int) -> None:
        self._database = database
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        # What was used while the clock was ahead would else be the last to go, whatever is used from now on.
        now = time.time()
        database.run("UPDATE blobs SET used = ? WHERE used > ?", (now, now + _USE_NOTED_EVERY))
        self._bytes = self._count()

    @property
    def nbytes(self) -> int:
        return self._bytes

    def _count(self) -> int:
        return int(self._database.rows("SELECT COALESCE(SUM(LENGTH(blob)), 0) FROM blobs")[0][0])

    def get(self, key: str) -> bytes | None:
        digest = blob_digest(key)
        rows = self._database.rows("SELECT blob, used FROM blobs WHERE key = ?", (digest,))
        if not rows:
            return None
        blob, used = rows[0]
        if abs(time.time() - used) > _USE_NOTED_EVERY:  # also when the clock was set back
            self._database.run("UPDATE blobs SET used = ? WHERE key = ?", (time.time(), digest))
        return bytes(blob)

    def put(self, key: str, blob: bytes) -> None:
        digest = blob_digest(key)
        lasting = key.startswith(_LASTING)
        with self._lock:
            old = self._database.rows("SELECT LENGTH(blob) FROM blobs WHERE key = ?", (digest,))
            self._database.run(
                "INSERT INTO blobs (key, lasting, used, blob, video) VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT (key) DO UPDATE SET used = excluded.used, blob = excluded.blob, video = excluded.video",
                (digest, lasting, time.time(), blob, "" if lasting else video_of(key)),
            )
            self._bytes += len(blob) - (old[0][0] if old else 0)
            if self._bytes > self._max_bytes:
                self._bytes = self._count()  # `tam storage` may have dropped some
            if self._bytes > self._max_bytes:
                self._free(self._bytes - round(self._max_bytes * (1 - _FREED_AT_ONCE)))

    def _free(self, wanted: int) -> None:
        """Drop about ``wanted`` bytes of what was not used for longest."""
        freed, dropped = 0, []
        for row, size in self._database.rows(
            "SELECT rowid, LENGTH(blob) FROM blobs WHERE lasting = 0 ORDER BY used LIMIT 10000"
        ):
            if freed >= wanted:
                break
            freed += size
            dropped.append((row,))
        with self._database.transaction():
            for row in dropped:
                self._database.run("DELETE FROM blobs WHERE rowid = ?", row)
        self._bytes -= freed


class LayeredStore:
    """A BlobStore with memory in front of a disk.

    When the disk cannot be written (full, read-only), work goes on in memory: a click must be answered. What memory
    still has when the disk can be written again goes there then. Each kind of failure is logged once until a write
    succeeds again.

    looked_up: told of each lookup where the blob was found: memory, disk or miss.
    """

    def __init__(
        self, memory: BlobStore, disk: BlobStore, looked_up: Callable[[str], None] = lambda outcome: None
    ) -> None:
        self._memory = memory
        self._disk = disk
        self._looked_up = looked_up
        self._failing = ""
        self._owed: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()
        self._later: threading.Timer | None = None

    @property
    def failing(self) -> str:
        """Why the disk cannot be used now, "" if it can."""
        return self._failing

    def get(self, key: str) -> bytes | None:
        blob = self._memory.get(key)
        if blob is not None:
            self._looked_up("memory")
            return blob
        try:
            blob = self._disk.get(key)
        except sqlite3.Error as e:
            self._tell(e)
        if blob is not None:
            self._memory.put(key, blob)
        self._looked_up("miss" if blob is None else "disk")
        return blob

    def put(self, key: str, blob: bytes) -> None:
        self._memory.put(key, blob)
        try:
            self._disk.put(key, blob)
            self._failing = ""
        except sqlite3.Error as e:
            self._tell(e)
            self._owe(key)

    def _owe(self, key: str) -> None:
        with self._lock:
            self._owed[key] = None
            if len(self._owed) > _OWED:
                self._owed.popitem(last=False)
            if self._later is None:
                self._later = threading.Timer(_AGAIN_SECONDS, self._settle)
                self._later.daemon = True
                self._later.start()

    def _settle(self) -> None:
        """Write what could not be written at its time."""
        with self._lock:
            self._later = None
            keys = list(self._owed)
            self._owed.clear()
        for i, key in enumerate(keys):
            blob = self._memory.get(key)
            try:
                if blob is not None:
                    self._disk.put(key, blob)
            except sqlite3.Error:
                for rest in keys[i:]:
                    self._owe(rest)
                return
        self._failing = ""

    def _tell(self, error: sqlite3.Error) -> None:
        if str(error) != self._failing:
            self._failing = str(error)
            log.error("finished masks cannot be stored on disk (%s); a restart would lose those of now", error)


def blob_digest(key: str) -> bytes:
    """The name in the database of what a store has under ``key``."""
    return hashlib.blake2b(key.encode(), digest_size=16).digest()
