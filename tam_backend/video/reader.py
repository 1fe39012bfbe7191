"""Frames of a video file by their place in presentation order."""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import SupportsIndex

import av.error
from av.video.frame import VideoFrame

from tam_backend.errors import MediaError
from tam_backend.video.base import Frame
from tam_backend.video.cache import FrameCache, content_key, load_index, save_index
from tam_backend.video.container import DEFAULT_MAX_FRAMES, DEFAULT_MAX_PIXELS, Limits, first_bytes
from tam_backend.video.decoder import Decoder
from tam_backend.video.index import Index
from tam_backend.video.pixels import RgbConverter
from tam_backend.video.scan import build_index

DEFAULT_CACHE_BYTES = 256 << 20


class VideoReader:
    """A video file; see open_video and tam_backend.video.base.Reader.

    Reading forward decodes every frame once and never seeks. Any other frame costs at most the decoding of its group
    of pictures, so does walking backward, where the decoded frames are kept as far as cache_bytes allows: a group that
    does not fit is decoded again for every stretch that does. All frames have the size and the
    orientation of the first one.
    """

    def __init__(
        self,
        path: Path,
        index: Index,
        key: str,
        limits: Limits,
        cache_bytes: int,
        shared: FrameCache | None = None,
    ) -> None:
        self._path = path
        self._index = index
        self._key = key
        self._limits = limits
        self._cache_bytes = cache_bytes
        self._shared = shared
        self._cache = shared if shared is not None else FrameCache(cache_bytes)
        self._decoder = Decoder(path, index, limits)
        self._to_rgb = RgbConverter(index.width, index.height, index.orientation)
        self._lock = threading.Lock()
        self._damaged: set[int] = set()
        self._closed = False

    @property
    def path(self) -> Path:
        return self._path

    @property
    def key(self) -> str:
        return self._key

    @property
    def height(self) -> int:
        return self._index.height

    @property
    def width(self) -> int:
        return self._index.width

    @property
    def fps(self) -> float:
        """Frames per second on average over the video; of a single frame, 1."""
        last = float(self._index.times[-1])
        return (len(self) - 1) / last if last > 0 else 1.0

    @property
    def warning(self) -> str | None:
        """What of the file could not be read, in a sentence, or None."""
        return self._index.warning

    @property
    def packets_decoded(self) -> int:
        """How many coded pictures this reader has given to its decoder so far."""
        return self._decoder.packets_decoded

    @property
    def seeks(self) -> int:
        """How often this reader has left its decoding position for another one."""
        return self._decoder.seeks

    @property
    def cached_bytes(self) -> int:
        """Bytes of decoded frames held now, by all that share them."""
        return self._cache.bytes

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, index: SupportsIndex) -> Frame:
        """HxWx3 uint8 RGB in memory of its own.

        Raises IndexError outside 0..len-1, MediaError naming the frame if it cannot be decoded or the reader is closed.
        """
        place = self._place(index)
        with self._lock:
            frame = self._decoded(place)
            try:
                return self._to_rgb(frame)
            except (av.error.FFmpegError, ValueError):
                kind = f"{frame.width}x{frame.height} pixels of the format {frame.format.name}"
                raise MediaError(f"frame {place} of {self._path.name}, {kind}, cannot be converted to RGB") from None

    def __iter__(self) -> Iterator[Frame]:
        return (self[i] for i in range(len(self)))

    def __reversed__(self) -> Iterator[Frame]:
        return (self[i] for i in reversed(range(len(self))))

    def time(self, index: SupportsIndex) -> float:
        return float(self._index.times[self._place(index)])

    def clone(self) -> VideoReader:
        return VideoReader(self._path, self._index, self._key, self._limits, self._cache_bytes, self._shared)

    def close(self) -> None:
        """Free the file and the memory. Reading then raises MediaError; size, times and key stay known."""
        with self._lock:
            self._closed = True
            self._decoder.close()
            if self._shared is None:
                self._cache.clear()

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _place(self, index: SupportsIndex) -> int:
        place = operator.index(index)
        if not 0 <= place < len(self):
            raise IndexError(f"frame {place} of {self._path.name}: it has frames 0 to {len(self) - 1}")
        return place

    def _decoded(self, place: int) -> VideoFrame:
        if self._closed:
            raise MediaError(f"the reader of {self._path.name} is closed")
        frame = self._cache.get(self._key, place)
        if frame is not None:
            return frame
        if place not in self._damaged:
            frame = self._read_to(place)
        if frame is None:
            self._damaged.add(place)
            raise MediaError(f"frame {place} of {self._path.name} cannot be decoded: the file is damaged there")
        return frame

    def _read_to(self, place: int) -> VideoFrame | None:
        """Decode until a frame comes out; None if it is left out."""
        if not self._decoder.reaches(place):
            self._decoder.start(place)
        while (item := self._decoder.read()) is not None:
            at, frame = item
            self._cache.put(self._key, at, frame)
            if at == place:
                return frame
            if at > place:
                break
        return None


def open_video(
    path: str | Path,
    *,
    cache_dir: Path | None = None,
    cache_bytes: int = DEFAULT_CACHE_BYTES,
    shared: FrameCache | None = None,
    threads: int = 0,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    max_frames: int = DEFAULT_MAX_FRAMES,
    max_seconds: float = float("inf"),
    verify: bool = False,
    make_index: Callable[[Path, Limits], Index] | None = None,
) -> VideoReader:
    """Open a video file (MP4, MOV, WebM, MKV, AVI, MPEG, ...) as exact frames.

    Frame i is the i-th frame, in presentation order, of those that FFmpeg decodes from the whole file by default: what
    an edit list cuts off is no frame. Of several video streams the default one is read, else the first; cover pictures
    do not count. How the index is made, and when that takes a pass of decoding, stands in tam_backend.video.scan.

    cache_dir: keeps indices and content keys between runs; a damaged file in it is made anew. cache_bytes: decoded
    frames held in memory. shared: holds them in place of that, with those of other readers. threads: of the decoder,
    0 = one per core. max_pixels: width x height of the largest frame that is decoded. max_frames, max_seconds: of the
    video. verify: index by decoding everything, even if the file looks as if its packets can be believed. make_index:
    what makes the index, such as ``FirstLook.video`` for files that are not trusted; it does not verify.

    Raises MediaError in plain words: no such file, empty, not a video, no video stream, unsupported codec, too large,
    too long, nothing decodable. A file of which only a part can be read gives that part; `warning` says what is
    missing. A frame that fails only when it is read raises MediaError then; the frames after it can be read. Pictures
    that the decoder mends instead of refusing come as it mends them, which can depend on what was decoded before.
    """
    path = Path(path)
    limits = Limits(threads, max_pixels, max_frames, max_seconds)
    first_bytes(path)
    key = content_key([path], cache_dir)
    index = load_index(cache_dir, key) if cache_dir else None
    if index is None or (verify and not index.verified) or index.width * index.height > max_pixels:
        index = make_index(path, limits) if make_index else build_index(path, limits, verify=verify)
        if cache_dir:
            save_index(cache_dir, key, index)
    if len(index) > max_frames:
        raise MediaError(f"{path.name} has {len(index)} frames; the limit is {max_frames}")
    if index.times[-1] > max_seconds:
        raise MediaError(
            f"{path.name} is {index.times[-1] / 60:.1f} minutes long; the limit is {max_seconds / 60:g} minutes"
        )
    return VideoReader(path, index, key, limits, cache_bytes, shared)
