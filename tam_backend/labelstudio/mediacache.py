"""The disk space of downloaded videos: bounded, and never taken from under a reader.

Whoever uses a video holds a shared lock on a file beside it, a download also an exclusive one on another. Videos are
dropped under an exclusive lock on the first, so only if nobody uses them, in this process or in another.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tam_backend.errors import MediaError

log = logging.getLogger(__name__)

#: What a disk should have left.
_SPARE = 200 << 20
_DROPPED = ".dropped-"
#: A scan of what is on the disk is trusted for so long; where room is short, for the second.
_SCAN_SECONDS = (60.0, 2.0)


class MediaCache:
    """Videos in ``<root>/<video>/media``, together at most ``limit`` bytes as far as they are not in use. Thread-safe.

    release: called with a video that is about to be dropped, to give up readers that are kept for convenience only.
    """

    def __init__(self, root: Path, limit: int, release: Callable[[str], None]) -> None:
        self._root = root
        self._limit = limit
        self._release = release
        self._lock = threading.Lock()
        self._promised: dict[str, int] = {}
        self._slack = 0
        self._scanned = float("-inf")

    def folder(self, video: str) -> Path:
        return self._root / video / "media"

    def hold(self, video: str) -> int:
        """Keep a video from being dropped until the returned file descriptor, and every copy of it, is closed."""
        return self._flock(video, "in-use", fcntl.LOCK_SH)

    def touch(self, video: str) -> None:
        """Note that a video is used now."""
        with contextlib.suppress(OSError):
            os.utime(self.folder(video))

    def sizes(self, before: float | None = None) -> dict[str, int]:
        """Bytes of each video that is here; with ``before``, of those last used before that Unix time."""
        videos = [p.parent.name for p in self._root.glob("*/media") if not p.parent.name.startswith(_DROPPED)]
        return {v: _size(self.folder(v)) for v in videos if before is None or self._last_used(v) < before}

    @contextlib.contextmanager
    def filling(self, video: str) -> Iterator[Callable[[int], None]]:
        """Download a video, alone among all processes; hold it meanwhile. Gives what makes room for further bytes."""
        descriptor = self._flock(video, "download", fcntl.LOCK_EX)
        try:
            with self._lock:
                self._promised[video] = _size(self.folder(video))
            yield lambda size: self._make_room(video, size)
        finally:
            with self._lock:
                self._promised.pop(video, None)
                self._scanned = float("-inf")
            os.close(descriptor)

    def _make_room(self, video: str, size: int) -> None:
        """Raises MediaError if the disk is full even so."""
        with self._lock:
            self._promised[video] += size
            self._slack -= size
            disk = shutil.disk_usage(self._root).free - size - _SPARE
            if time.monotonic() - self._scanned > _SCAN_SECONDS[self._slack < 0 or disk < 0]:
                self._drop(disk)
        free = shutil.disk_usage(self._root).free
        if free < size + _SPARE:
            raise MediaError(f"only {free >> 20} MB of disk space are left; free some and open the task again")

    def _drop(self, disk: int) -> None:
        """Drop videos, those not used for longest first, until the rest is within the limit and the disk has room."""
        sizes = {}
        for path in self._root.iterdir():
            if path.name.startswith(_DROPPED):
                shutil.rmtree(path, ignore_errors=True)  # left by a process that ended
            elif (path / "media").is_dir():
                sizes[path.name] = _size(path / "media")
        self._slack = self._limit - sum((sizes | self._promised).values())
        for video in sorted(sizes.keys() - self._promised.keys(), key=self._last_used):
            if self._slack >= 0 and disk >= 0:
                break
            if sizes[video] and self.drop(video):
                log.info("dropped video %s (%.0f MB) to make room", video, sizes[video] / 1e6)
                self._slack += sizes[video]
                disk += sizes[video]
        if self._slack < 0:
            log.warning("the videos in use take %.0f MB more than TAM_MEDIA_CACHE_MB allows", -self._slack / 1e6)
        self._scanned = time.monotonic()

    def drop(self, video: str) -> bool:
        """Drop a video unless somebody uses it. Returns whether it was dropped."""
        self._release(video)
        try:
            descriptor = self._flock(video, "in-use", fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        try:
            dropped = self._root / f"{_DROPPED}{video}-{os.getpid()}"
            self.folder(video).rename(dropped)
        except FileNotFoundError:
            return False
        finally:
            os.close(descriptor)
        shutil.rmtree(dropped, ignore_errors=True)
        return True

    def _last_used(self, video: str) -> float:
        try:
            return self.folder(video).stat().st_mtime
        except OSError:
            return 0.0

    def _flock(self, video: str, name: str, operation: int) -> int:
        (self._root / video).mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._root / video / name, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, operation)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor


def _size(folder: Path) -> int:
    """Bytes of all files below; those that vanish meanwhile count nothing."""
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += (Path(path) / name).stat().st_size
    return total
