"""The videos that tasks refer to: registered under an id, downloaded once, opened when needed."""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
import time
import weakref
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

from tam_backend.errors import LabelStudioError, MediaError
from tam_backend.labelstudio.addresses import cloud_uri, origin_of
from tam_backend.labelstudio.connections import Connection, Connections
from tam_backend.labelstudio.localfiles import LocalFiles, is_local
from tam_backend.labelstudio.media import MAX_IMAGES, Downloader
from tam_backend.labelstudio.mediacache import MediaCache
from tam_backend.tracking.filestore import write_atomically
from tam_backend.video import open_images, open_video
from tam_backend.video.base import Reader
from tam_backend.video.cache import FrameCache
from tam_backend.video.container import Limits
from tam_backend.video.firstlook import FirstLook
from tam_backend.video.subsample import EveryNth

#: How many readers stay open. Each holds its decoder.
OPEN_READERS = 4
#: After a failure the same video is not tried again for this long.
RETRY_SECONDS = 20.0
#: Bytes of decoded frames of all readers together, unless said otherwise.
FRAME_BYTES = 1 << 30
_UPLOADS = "/data/upload/"
#: Bytes of disk for downloads, unless said otherwise.
CACHE_BYTES = 50_000_000_000


@dataclass(frozen=True, slots=True)
class Source:
    """Where a video comes from. urls: one for a video file, or one for each frame. host: the Label Studio's address.

    every, offset: which of its frames count (see EveryNth).
    """

    kind: str
    urls: tuple[str, ...]
    host: str
    every: int = 1
    offset: int = 0

    @property
    def id(self) -> str:
        content = json.dumps([self.kind, self.urls, self.host, *([self.every, self.offset] if self.every > 1 else [])])
        return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()


class VideoLibrary:
    """Videos by id, below ``root``. Thread-safe; two callers of one video wait for one download.

    cache_bytes: disk space for downloads. Those not used for longest are dropped first, and fetched again when they are
    opened; one that somebody has a reader of is not dropped. local: files of this machine that may be read. limits: of
    what is opened. first_look: takes the first look at every file. looked_up: see FrameCache.
    """

    def __init__(
        self,
        root: Path,
        downloader: Downloader,
        connections: Connections,
        cache_bytes: int = CACHE_BYTES,
        frame_bytes: int = FRAME_BYTES,
        *,
        local: LocalFiles | None = None,
        limits: Limits | None = None,
        first_look: FirstLook | None = None,
        looked_up: Callable[[str], None] = lambda outcome: None,
    ) -> None:
        self.frames = FrameCache(frame_bytes, looked_up)
        self._root = root
        self._downloader = downloader
        self._connections = connections
        self._local = local or LocalFiles()
        self._limits = limits or Limits()
        self._first_look = first_look or FirstLook()
        self._cache = MediaCache(root, cache_bytes, self._release)
        self._readers: OrderedDict[str, Reader] = OrderedDict()
        self._failures: dict[str, tuple[float, str]] = {}
        self._lock = threading.Lock()
        self._video_locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def register(
        self, kind: str, urls: Sequence[str], connection: Connection | None, every: int = 1, first: int = 0
    ) -> str:
        """Note where a video comes from and return its id. Nothing is downloaded. kind: "video", "images", or "error"
        for an address that cannot be resolved. every, first: only every so many-th frame counts, ``first`` among them.
        """
        source = Source(kind, tuple(urls), connection.url if connection else "", every, first % every)
        path = self._root / source.id / "source.json"
        if not path.exists():
            try:
                _write(path, json.dumps(asdict(source)))
            except OSError as e:
                raise MediaError(f"the backend's data directory cannot be written ({e.strerror})") from e
        return source.id

    def open(self, video: str) -> Reader:
        """An independent reader of a registered video; the caller closes it. Downloads it first where needed.

        Raises MediaError when it cannot be fetched or read.
        """
        held = self._cache.hold(video)
        try:
            return _holding(self.shared(video).clone(), os.dup(held))
        finally:
            os.close(held)

    def shared(self, video: str) -> Reader:
        """The library's own reader, for single frames; the caller does not close it. Otherwise as ``open``.

        It remembers where it is and what it decoded, so that paging through a video decodes each frame once.
        """
        with self._lock:
            video_lock = self._video_locks[video]
        with video_lock:
            with self._lock:
                reader = self._readers.pop(video, None)
            if reader is None:
                reader = self._open(video)
            self._cache.touch(video)
            with self._lock:
                self._readers[video] = reader
                while len(self._readers) > OPEN_READERS:
                    self._readers.popitem(last=False)  # not closed: someone may be reading from it
            return reader

    def _release(self, video: str) -> None:
        with self._lock:
            self._readers.pop(video, None)

    def host(self, video: str) -> str:
        """Address of the Label Studio whose task named a video, "" if that does not matter. Raises MediaError."""
        return self._source(video).host

    def set_error(self, video: str, message: str) -> None:
        """Remember what is wrong with a video, for the picture that is shown in its place."""
        _write(self._root / video / "error.txt", message)

    def error(self, video: str) -> str | None:
        """What ``set_error`` said."""
        try:
            return (self._root / video / "error.txt").read_text()
        except OSError:
            return None

    def _open(self, video: str) -> Reader:
        failed = self._failures.get(video)
        if failed and time.monotonic() - failed[0] < RETRY_SECONDS:
            raise MediaError(failed[1])
        try:
            source = self._source(video)
            if source.kind == "error":
                raise MediaError(self.error(video) or "this video cannot be read")
            held = self._cache.hold(video)
            try:
                files = self._files(video, source)
                if source.kind == "images":
                    reader: Reader = self._open_images(files)
                else:
                    reader = self._open_video(files[0], source)
                if source.every > 1:
                    reader = EveryNth(reader, source.every, source.offset)
                return _holding(reader, os.dup(held))
            finally:
                os.close(held)
        except MediaError as e:
            self._failures[video] = (time.monotonic(), str(e))
            raise

    def _open_images(self, files: list[Path]) -> Reader:
        reader = open_images(files, cache_dir=self._root / "index", max_pixels=self._limits.max_pixels)
        self._first_look.images(files, reader.key, self._limits)
        return reader

    def _open_video(self, file: Path, source: Source) -> Reader:
        limits = self._limits
        try:
            return open_video(
                file, cache_dir=self._root / "index", shared=self.frames, threads=1, max_pixels=limits.max_pixels,
                max_frames=limits.max_frames, max_seconds=limits.max_seconds, make_index=self._first_look.video,
            )  # fmt: skip
        except MediaError:
            # Uploads never change; anything else may be mended where it is. A local file is not ours.
            if _UPLOADS not in source.urls[0] and not is_local(source.urls[0]):
                file.unlink(missing_ok=True)
            raise

    def _source(self, video: str) -> Source:
        try:
            fields = json.loads((self._root / video / "source.json").read_text())
            every, offset = int(fields.get("every", 1)), int(fields.get("offset", 0))
            return Source(fields["kind"], tuple(fields["urls"]), fields["host"], every, offset)
        except (OSError, ValueError, KeyError) as e:
            raise MediaError(f"video {video} is not known here; open its task in Label Studio again") from e

    def _files(self, video: str, source: Source) -> list[Path]:
        """The downloaded files, or the local ones. They keep their names, which messages show to people."""
        if any(is_local(url) for url in source.urls):
            if len(source.urls) > MAX_IMAGES:
                raise MediaError(f"the task lists {len(source.urls)} images; at most {MAX_IMAGES} are read")
            return [self._local.find(url, image=source.kind == "images") for url in source.urls]
        folder = self._cache.folder(video)
        files = [(url, folder / f"{i:05d}" / _file_name(url)) for i, url in enumerate(source.urls)]
        if not all(path.exists() for _, path in files):
            connection = self._connection(source)
            with self._cache.filling(video) as room:
                if source.kind == "images":
                    self._downloader.fetch_images(files, connection, room)
                elif not files[0][1].exists():  # another process may have fetched it while this one waited
                    self._downloader.fetch(files[0][0], connection, files[0][1], room)
        return [path for _, path in files]

    def _connection(self, source: Source) -> Connection | None:
        """The Label Studio that a source is on, if it is on one. Raises MediaError if that is not the current one."""
        origin = origin_of(source.host)
        if origin is None or not any(origin_of(url) == origin for url in source.urls):
            return None
        try:
            return self._connections.get(source.host)
        except LabelStudioError as e:
            raise MediaError(str(e)) from e


def _holding(reader: Reader, descriptor: int) -> Reader:
    """The reader, with the descriptor (see MediaCache.hold) closed once nobody has it any more."""
    weakref.finalize(reader, os.close, descriptor)
    return reader


def _write(path: Path, text: str) -> None:
    """Write a small file so that it exists whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text.encode())


def _file_name(url: str) -> str:
    """The file name in a URL, also in Label Studio's for local files and for cloud storage, fit for any disk."""
    parts = urlsplit(url)
    arguments = parse_qs(parts.query)
    path = arguments.get("d", [parts.path])[0]
    if parts.path.endswith(("/presign/", "/resolve/")) and "fileuri" in arguments:
        path = urlsplit(cloud_uri(arguments["fileuri"][0])).path
    name = PurePosixPath(unquote(path)).name
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)[-100:].lstrip(".") or "file"
