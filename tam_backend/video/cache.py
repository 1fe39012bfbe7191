"""What is kept between reads: decoded frames in memory, indices and content keys on disk."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import os
import threading
import time
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import astuple
from pathlib import Path
from tempfile import NamedTemporaryFile

import av
import numpy as np
from av.video.frame import VideoFrame

from tam_backend.errors import MediaError
from tam_backend.video.index import Index
from tam_backend.video.pixels import Orientation

log = logging.getLogger(__name__)

_VERSION = 1  # of the index files and of the rules that make an index
_CHUNK = 1 << 20
_SETTLED_SECONDS = 2.0  # a younger file could change again without a change of its time stamp
_ARRAYS = ("pts", "dts", "pos", "size", "packet", "start", "times")


class FrameCache:
    """The decoded frames used last, at most `budget` bytes of them, of any number of readers. Thread-safe.

    Frames stay as they were decoded, mostly YUV 4:2:0, which takes half the bytes of RGB. What one reader of a video
    has decoded, the others need not. looked_up: told of each lookup where the frame was found: memory or miss.
    """

    def __init__(self, budget: int, looked_up: Callable[[str], None] = lambda outcome: None) -> None:
        self._budget = budget
        self._looked_up = looked_up
        self._bytes = 0
        self._frames: OrderedDict[tuple[str, int], VideoFrame] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def bytes(self) -> int:
        return self._bytes

    def get(self, video: str, index: int) -> VideoFrame | None:
        """video: key of the content."""
        with self._lock:
            frame = self._frames.get((video, index))
            if frame is not None:
                self._frames.move_to_end((video, index))
        self._looked_up("miss" if frame is None else "memory")
        return frame

    def put(self, video: str, index: int, frame: VideoFrame) -> None:
        with self._lock:
            old = self._frames.pop((video, index), None)
            if old is not None:
                self._bytes -= _frame_bytes(old)
            self._frames[video, index] = frame
            self._bytes += _frame_bytes(frame)
            while self._bytes > self._budget:
                _, evicted = self._frames.popitem(last=False)
                self._bytes -= _frame_bytes(evicted)

    def clear(self) -> None:
        with self._lock:
            self._frames.clear()
            self._bytes = 0


def _frame_bytes(frame: VideoFrame) -> int:
    return sum(plane.buffer_size for plane in frame.planes)


def content_key(paths: Sequence[Path], cache_dir: Path | None) -> str:
    """32 hex digits that name the content of the files in their order, whatever their names: BLAKE2b of size and bytes.

    With a cache folder the key of files whose path, size, times and inode are unchanged is not computed again.
    Raises MediaError if a file cannot be read.
    """
    try:
        signature = _signature(paths)
        memo = cache_dir / "keys" / signature if cache_dir else None
        if memo is not None:
            with contextlib.suppress(OSError):
                key = memo.read_text("ascii")
                if len(key) == 32:
                    return key
        key = _hash_files(paths)
        settled = all(time.time() - max(_changed(path)) > _SETTLED_SECONDS for path in paths)
        if memo is not None and settled and _signature(paths) == signature:
            _write_atomically(memo, key.encode())
    except FileNotFoundError as error:
        raise MediaError(f"{Path(error.filename or '').name} does not exist") from None
    except OSError as error:
        raise MediaError(f"{Path(error.filename or paths[0]).name} cannot be read: {error.strerror}") from None
    return key


def _hash_files(paths: Sequence[Path]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for path in paths:
        with path.open("rb") as file:
            digest.update(b"%d:" % os.fstat(file.fileno()).st_size)
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    return digest.hexdigest()


def _signature(paths: Sequence[Path]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for path in paths:
        stat = path.stat()
        facts = (str(path.absolute()), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
        digest.update(repr(facts).encode())
    return digest.hexdigest()


def _changed(path: Path) -> tuple[float, float]:
    stat = path.stat()
    return stat.st_mtime, stat.st_ctime


def load_index(cache_dir: Path, key: str) -> Index | None:
    """The stored index of a content, or None if there is none of this version or it is unreadable."""
    try:
        return unpack_index(_index_path(cache_dir, key).read_bytes())
    except OSError:
        return None


def unpack_index(content: bytes) -> Index | None:
    """What ``pack_index`` wrote; None if it is of another version or damaged."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            facts = json.loads(bytes(stored["facts"]))
            if facts.pop("made_by") != _maker():
                return None
            arrays = {name: stored[name] for name in _ARRAYS}
            how = Orientation(*facts.pop("orientation"))
            index = Index(**arrays, **facts, orientation=how)
    except (OSError, ValueError, KeyError, TypeError, EOFError, AttributeError, zipfile.BadZipFile):
        return None
    return index if _is_sound(index) else None


def save_index(cache_dir: Path, key: str, index: Index) -> None:
    """Store an index; a folder that cannot be written costs time, not correctness, and is only logged."""
    _write_atomically(_index_path(cache_dir, key), pack_index(index))


def pack_index(index: Index) -> bytes:
    """An index as the content of a file."""
    facts = {name: getattr(index, name) for name in ("width", "height", "warning", "verified", "damaged")}
    facts["orientation"] = astuple(index.orientation)
    facts["made_by"] = _maker()
    buffer = io.BytesIO()
    arrays = {name: getattr(index, name) for name in _ARRAYS}
    np.savez(buffer, facts=np.frombuffer(json.dumps(facts).encode(), np.uint8), **arrays)
    return buffer.getvalue()


def _index_path(cache_dir: Path, key: str) -> Path:
    return cache_dir / f"{key}.index.npz"


def _maker() -> str:
    return f"{_VERSION} {av.ffmpeg_version_info}"


def _is_sound(index: Index) -> bool:
    packets, frames = len(index.pts), len(index)
    return (
        frames > 0
        and all(len(a) == packets for a in (index.dts, index.pos, index.size))
        and len(index.start) == len(index.times) == frames
        and 0 <= index.packet.min() <= index.packet.max() < packets
        and 0 <= index.start.min() <= index.start.max() < packets
    )


def _write_atomically(path: Path, content: bytes) -> None:
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=path.parent, prefix=".tmp-", delete=False) as file:
            temporary = Path(file.name)
            file.write(content)
        temporary.replace(path)
    except OSError as error:
        log.warning("cannot write %s: %s", path.name, error.strerror)
        if temporary is not None:
            temporary.unlink(missing_ok=True)
