"""Opening a video file with FFmpeg, within limits, and saying in plain words why it cannot be opened."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import av.error
from av.audio.stream import AudioStream
from av.container.input import InputContainer
from av.stream import Discard, Disposition
from av.video.stream import VideoStream

from tam_backend.errors import MediaError

# Only containers that hold their own data: a playlist or a pattern could name other files and hosts.
_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,ivf,obu,h264,hevc,m4v,gif"
_NOT_FOOTAGE = Disposition.attached_pic | Disposition.timed_thumbnails
DEFAULT_MAX_PIXELS = 64_000_000
DEFAULT_MAX_FRAMES = 4_000_000  # 18 hours at 60 frames per second
_ALIGNMENT = 64 << 16  # FFmpeg compares its limit with rows of up to 63 more pixels, and there are at most 65,535 rows
_GENERATE_PTS = 0x0001  # AVFMT_FLAG_GENPTS, set by PyAV: it invents timestamps, for AVI files with B-frames wrong ones


@dataclass(frozen=True, slots=True)
class Limits:
    """threads: decoder threads, 0 = as many as there are cores. max_pixels: largest width x height that is decoded.
    max_frames, max_seconds: of a whole video."""

    threads: int = 0
    max_pixels: int = DEFAULT_MAX_PIXELS
    max_frames: int = DEFAULT_MAX_FRAMES
    max_seconds: float = float("inf")


def open_stream(path: Path, limits: Limits, *, frame_threads: bool = True) -> tuple[InputContainer, VideoStream]:
    """Open a file at its start; the stream is the default video stream, else the first, never a cover picture.

    frame_threads=False decodes one frame at a time: slower, but after an error no later frame is lost with it.
    Raises MediaError: no such file, empty, not a video, no video stream, unsupported codec, beyond max_pixels.
    """
    container = _open_container(path, limits)
    try:
        stream = _footage(path, container, limits)
    except BaseException:
        container.close()
        raise
    context = stream.codec_context
    # The limit also holds, roughly, for a size that changes inside the stream.
    context.options = {"max_pixels": str(limits.max_pixels + _ALIGNMENT)}
    context.thread_count = limits.threads
    stream.thread_type = "AUTO" if frame_threads else "SLICE"
    return container, stream


def open_sound(path: Path, limits: Limits) -> tuple[InputContainer, AudioStream | None]:
    """Open a file at its start, for its first audio stream; None: it has none.

    Raises MediaError if it cannot be opened.
    """
    container = _open_container(path, limits)
    stream = next(iter(container.streams.audio), None)
    for other in container.streams:
        if other is not stream:
            other.discard = Discard.all
    return container, stream


def timing(path: Path, limits: Limits) -> tuple[Fraction, Fraction]:
    """Of the footage: the unit of its times, and the time of its first frame as the container counts, in seconds."""
    container, stream = open_stream(path, limits)
    with container:
        base = stream.time_base
        assert base is not None
        return base, (stream.start_time or 0) * base


def is_isom(container: InputContainer) -> bool:
    """Whether this is the MP4/MOV family, whose index lists every frame before any is read."""
    return "mp4" in container.format.name.split(",")


def is_matroska(container: InputContainer) -> bool:
    return "matroska" in container.format.name.split(",")


def first_bytes(path: Path) -> bytes:
    """The first 12 bytes of a file. Raises MediaError if it is missing, unreadable, empty or not a file."""
    try:
        if not path.is_file():
            raise MediaError(f"{path.name} is not a file" if path.exists() else f"{path.name} does not exist")
        with path.open("rb") as file:
            head = file.read(12)
    except OSError as error:
        raise MediaError(f"{path.name} cannot be read: {error.strerror}") from None
    if not head:
        raise MediaError(f"{path.name} is empty (0 bytes)")
    return head


def _open_container(path: Path, limits: Limits) -> InputContainer:
    try:
        container = av.open(
            f"file:{path.absolute()}",
            options={
                "format_whitelist": _FORMATS,
                "protocol_whitelist": "file",
                "max_pixels": str(limits.max_pixels + _ALIGNMENT),
            },
            metadata_errors="replace",
        )
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise MediaError(_why_not(path)) from error
    container.flags &= ~_GENERATE_PTS
    return container


def _why_not(path: Path) -> str:
    head = first_bytes(path)
    if head[4:8] == b"ftyp":
        return f"{path.name} is an MP4 file without a readable index: it is incomplete (cut off) or damaged"
    return f"{path.name} is not a video in a supported format (MP4, MOV, WebM, MKV, AVI, ...), or it is damaged"


def _footage(path: Path, container: InputContainer, limits: Limits) -> VideoStream:
    streams = [s for s in container.streams if s.type == "video" and not s.disposition & _NOT_FOOTAGE]
    if not streams:
        raise MediaError(f"{path.name} has no video stream")
    stream = next((s for s in streams if s.disposition & Disposition.default), streams[0])
    assert isinstance(stream, VideoStream)
    if stream.codec_context is None:
        raise MediaError(f"{path.name} uses a video codec that is not supported here")
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > limits.max_pixels:
        raise MediaError(
            f"{path.name} is {width}x{height} pixels; the limit is {limits.max_pixels / 1e6:g} million pixels"
        )
    for other in container.streams:
        if other is not stream:
            other.discard = Discard.all
    return stream
