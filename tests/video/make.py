"""Small videos whose frames say which one they are, and changes to files that no encoder makes."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import av.error
import cv2
import numpy as np
from av.video.frame import PictureType

from tam_backend.video.base import Frame

BITS = 8  # of the frame number
_TOP, _BAND = 8, 16


def picture(number: int, width: int = 96, height: int = 64) -> Frame:
    """A moving texture with the number as a row of black and white blocks, and its complement below."""
    noise = np.random.default_rng(7).integers(60, 200, (height, 2 * width, 3), dtype=np.uint8)
    texture = cv2.GaussianBlur(noise, (0, 0), 3)
    shift = 3 * number % width
    image = np.ascontiguousarray(texture[:, shift : shift + width])
    block = width // BITS
    for bit in range(BITS):
        value = 235 if number >> bit & 1 else 20
        columns = slice(bit * block + 1, (bit + 1) * block - 1)
        image[_TOP : _TOP + _BAND, columns] = value
        image[_TOP + _BAND : _TOP + 2 * _BAND, columns] = 255 - value
    return image


def number_of(image: Frame) -> int:
    """The number that picture() put in; the row and its complement must agree."""
    block = image.shape[1] // BITS
    number = complement = 0
    for bit in range(BITS):
        columns = slice(bit * block + 3, (bit + 1) * block - 3)
        number |= int(image[_TOP + 2 : _TOP + _BAND - 2, columns].mean() > 128) << bit
        complement |= int(image[_TOP + _BAND + 2 : _TOP + 2 * _BAND - 2, columns].mean() > 128) << bit
    assert number ^ complement == (1 << BITS) - 1, "this is not a numbered picture"
    return number


def make_video(
    path: Path,
    frames: int = 48,
    *,
    size: tuple[int, int] = (96, 64),
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    pixel_format: str = "yuv420p",
    stamps: Sequence[int] | None = None,
    rate: int = 25,
    matrix: int | None = None,
    colour_range: int | None = None,
    audio_first: bool = False,
    container_options: dict[str, str] | None = None,
    paint: Callable[[int], Frame] | None = None,
    plain: int = 0,
) -> Path:
    """Write picture(0), picture(1), ... as a video.

    stamps: presentation times in milliseconds instead of a constant rate. plain: frames at the beginning that are not
    to be coded as B-frames.
    """
    width, height = size
    paint = paint or (lambda number: picture(number, width, height))
    with av.open(str(path), "w", options=container_options or {}) as container:
        audio = container.add_stream("aac", rate=48000, layout="mono") if audio_first else None
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
        context = stream.codec_context
        context.thread_count = 1  # the same file every time
        context.time_base = Fraction(1, 1000) if stamps else Fraction(1, rate)
        if matrix is not None:
            context.colorspace = matrix
        if colour_range is not None:
            context.color_range = colour_range
        if audio is not None:
            add_silence(container, audio, frames / rate)
        for i in range(frames):
            frame = av.VideoFrame.from_ndarray(paint(i), format="rgb24")
            frame.pts = stamps[i] if stamps else i
            if 0 < i < plain:
                frame.pict_type = PictureType.P
            frame.time_base = context.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def add_silence(container: av.container.OutputContainer, stream: av.AudioStream, seconds: float) -> None:
    """Encode silence into an open container."""
    for start in range(0, int(seconds * 48000), 1024):
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        samples.sample_rate = 48000
        samples.pts = start
        container.mux(stream.encode(samples))
    container.mux(stream.encode())


def box(data: bytes, *path: str) -> int:
    """Where the payload of an MP4 box begins, following the first box of each name."""
    start, end = 0, len(data)
    for name in path:
        while start < end:
            size, kind = struct.unpack_from(">I4s", data, start)
            if kind == name.encode():
                break
            start += size
        else:
            raise LookupError(name)
        start, end = start + 8, start + size
    return start


def set_display_matrix(path: Path, matrix: tuple[int, int, int, int]) -> None:
    """Make an MP4 file's track be shown turned: (a, b, c, d) maps (x, y) to (a x + c y, b x + d y)."""
    data = bytearray(path.read_bytes())
    a, b, c, d = (value << 16 for value in matrix)
    at = box(data, "moov", "trak", "tkhd") + 40  # version 0: behind times, ids, duration, layer and volume
    struct.pack_into(">9i", data, at, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


def set_edit(path: Path, skip: int, keep: int, rate: int = 25) -> None:
    """Make an MP4 file's edit list show `keep` frames after the first `skip`; written by make_video, with B-frames."""
    data = bytearray(path.read_bytes())
    (movie_scale,) = struct.unpack_from(">I", data, box(data, "moov", "mvhd") + 12)
    (media_scale,) = struct.unpack_from(">I", data, box(data, "moov", "trak", "mdia", "mdhd") + 12)
    at = box(data, "moov", "trak", "edts", "elst")
    version, entries, _, first = struct.unpack_from(">IIIi", data, at)
    assert (version, entries) == (0, 1)
    struct.pack_into(">Ii", data, at + 8, keep * movie_scale // rate, first + skip * media_scale // rate)
    path.write_bytes(data)


def set_composition_offset(path: Path, offset: int, middle: int | None = None) -> None:
    """Make all frames of an MP4 file be shown this long after their decoding time; a run in the middle by `middle`."""
    data = bytearray(path.read_bytes())
    at = box(data, "moov", "trak", "mdia", "minf", "stbl", "ctts")
    (runs,) = struct.unpack_from(">I", data, at + 4)
    for run in range(runs):
        struct.pack_into(">I", data, at + 12 + 8 * run, offset)
    if middle is not None:
        struct.pack_into(">I", data, at + 12 + 8 * (runs // 2), middle)
    path.write_bytes(data)


def packets_of(path: Path) -> list[tuple[int, int]]:
    """Where the bytes of every packet of the first video stream are in the file, and how many."""
    data = path.read_bytes()
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        return [(data.index(bytes(packet), packet.pos), packet.size) for packet in packets]


def sequential(path: Path, stream: int = 0) -> list[Frame]:
    """Every frame that PyAV decodes by default, with PyAV's own conversion to RGB."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24").copy() for frame in container.decode(video=stream)]


def decodable(path: Path) -> int:
    """How many frames come out if packets that fail are passed over."""
    count = 0
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        for packet in container.demux(video=0):
            try:
                count += len(packet.decode())
            except av.error.InvalidDataError:
                continue
    return count
