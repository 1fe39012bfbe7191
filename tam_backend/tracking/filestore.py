"""A BlobStore in a folder: results outlive the process that computed them."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from tam_backend.errors import TamError

try:
    import fcntl
except ImportError:  # Windows: two processes at once in one folder are not noticed there
    fcntl = None  # type: ignore[assignment]

_DIGEST_SIZE = 16


class FileStore:
    """One file for each blob, named by a digest of its key.

    A file appears whole or not at all, so a process may be killed at any moment and several may share the folder. The
    blob's own digest goes in front of it: a file damaged on disk counts as lost. Raises OSError when the folder cannot
    be written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def get(self, key: str) -> bytes | None:
        path = self._path(key)
        try:
            content = path.read_bytes()
            os.utime(path)  # ``trim`` keeps what was used last
        except FileNotFoundError:
            return None
        digest, blob = content[:_DIGEST_SIZE], content[_DIGEST_SIZE:]
        return blob if digest == _digest(blob) else None

    def put(self, key: str, blob: bytes) -> None:
        path = self._path(key)
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, _digest(blob) + blob)

    def trim(self, max_bytes: int) -> None:
        """Drop the blobs unused for longest until at most ``max_bytes`` are left."""
        files = [(path, path.stat()) for path in self._folder.rglob("*") if path.is_file()]
        total = sum(stat.st_size for _, stat in files)
        for path, stat in sorted(files, key=lambda f: f[1].st_mtime):
            if total <= max_bytes:
                break
            path.unlink(missing_ok=True)
            total -= stat.st_size

    def _path(self, key: str) -> Path:
        name = _digest(key.encode()).hex()
        return self._folder / name[:2] / name[2:]


def write_atomically(path: Path, content: bytes | Iterable[bytes]) -> None:
    """Write a file so that whoever reads it, now or after a crash of this process, sees the old or the new content.

    content: all of it, or pieces, which are made while the file is written.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.partial")
    try:
        with partial.open("wb") as file:
            file.writelines([content] if isinstance(content, bytes) else content)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def hold_lock(path: Path, busy: str) -> IO[str]:
    """Make a file and hold its lock until it is closed, or until this process ends in whatever way.

    busy: what to say where another process holds it. Raises TamError with that text, OSError if it cannot be made.
    """
    file = path.open("w")
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise TamError(busy) from None
        except OSError:  # a file system without locks
            pass
    return file


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=_DIGEST_SIZE).digest()
