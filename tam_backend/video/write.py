"""Writing frames as a video that browsers play."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import TracebackType
from uuid import uuid4

import av
import av.codec
import av.error
import numpy as np
from av.container.output import OutputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from av.video.stream import VideoStream

from tam_backend.errors import BadInput, MediaError
from tam_backend.video.audio import Sound
from tam_backend.video.base import Frame

_HD_HEIGHT = 720
_BT709, _BT601 = 1, 6  # in ITU-T H.273 the same number names the matrix, the primaries and the transfer function
_CODECS = {
    # cpu-independent: without it the same pictures came out as different bytes, and visibly different, from run to run
    "libx264": {"crf": "20", "preset": "veryfast", "x264-params": "cpu-independent=1"},
    "mpeg4": {"flags": "+qscale", "global_quality": str(3 * 118)},
}


class VideoWriter:
    """Writes an MP4 file: H.264 4:2:0, or MPEG-4 Part 2 where FFmpeg has no H.264 encoder.

        with VideoWriter(path, reader.fps, (reader.width, reader.height)) as video:
            for frame in frames:
                video.write(frame)

    The rate is constant, unless ``time_base`` is given: then each frame comes with its time, in whole multiples of it.
    sound: put beside the pictures. comment: in the file's metadata.

    path: ends in .mp4. size: (width, height) of the frames; an odd side is padded by repeating its last pixels. The
    file appears under its name only when it is complete: at the end of the block, also if that is left by Ctrl-C, with
    the frames written so far. If it is left by any other error, or without a frame, there is no file.

    Raises BadInput for a path, rate, size or frame that cannot be written, MediaError if the file cannot be.
    """

    def __init__(
        self,
        path: str | Path,
        fps: float,
        size: tuple[int, int],
        *,
        time_base: Fraction | None = None,
        sound: Sound | None = None,
        comment: str = "",
    ) -> None:
        self._time_base, self._sound, self._comment = time_base, sound, comment
        self._path = Path(path)
        self._temporary = self._path.with_name(f".{self._path.stem}.{uuid4().hex[:8]}.part")
        if self._path.suffix.lower() != ".mp4":
            raise BadInput(f"a video is written as .mp4, not as {self._path.suffix or 'a file without an ending'}")
        if not 0.01 <= fps <= 1000:
            raise BadInput(f"frames per second must be from 0.01 to 1000, not {fps}")
        self._rate = Fraction(fps).limit_denominator(1001)  # exact for 30000/1001 and its like
        self._width, self._height = size
        if self._width < 1 or self._height < 1:
            raise BadInput(f"the size of a video must be at least 1x1, not {self._width}x{self._height}")
        self._container: OutputContainer | None = None
        self._stream: VideoStream | None = None
        self._reformatter = VideoReformatter()
        self._frames = 0

    def __enter__(self) -> VideoWriter:
        try:
            self._temporary.touch()  # FFmpeg opens the file only with the first frame
            self._container = av.open(str(self._temporary), "w", format="mp4", options={"movflags": "+faststart"})
        except (av.error.FFmpegError, OSError) as error:
            raise MediaError(f"{self._path.name} cannot be written: {error.strerror}") from None
        codec = next(name for name in _CODECS if name in av.codec.codecs_available)
        stream = self._container.add_stream(codec, rate=self._rate, options=_CODECS[codec])
        assert isinstance(stream, VideoStream)
        stream.width = self._width + self._width % 2
        stream.height = self._height + self._height % 2
        stream.pix_fmt = "yuv420p"
        named = _BT709 if self._matrix == Colorspace.ITU709 else _BT601
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = named
        context.color_range = ColorRange.MPEG
        if self._time_base is not None:
            context.time_base = stream.time_base = self._time_base
        if self._comment:
            self._container.metadata["comment"] = self._comment
        self._stream = stream
        if self._sound is not None:
            self._sound.add_to(self._container)
        return self

    @property
    def _matrix(self) -> Colorspace:
        """The matrix that viewers expect of a picture of this height, which is named in the file as well."""
        return Colorspace.ITU709 if self._height >= _HD_HEIGHT else Colorspace.ITU601

    def write(self, frame: Frame, time: int | None = None) -> None:
        """frame: HxWx3 uint8 RGB of the size given. time: in units of the time base, later than the frame before."""
        if self._container is None or self._stream is None:
            raise BadInput("frames are written inside the writer's with block")
        if frame.shape != (self._height, self._width, 3) or frame.dtype != np.uint8:
            came = f"{'x'.join(map(str, frame.shape))} {frame.dtype}"
            raise BadInput(f"a frame must be {self._height}x{self._width}x3 uint8, not {came}")
        if self._height % 2 or self._width % 2:
            frame = np.pad(frame, ((0, self._height % 2), (0, self._width % 2), (0, 0)), mode="edge")
        picture = self._reformatter.reformat(
            VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24"),
            format="yuv420p",
            src_colorspace=self._matrix,
            dst_colorspace=self._matrix,
            src_color_range=ColorRange.JPEG,
            dst_color_range=ColorRange.MPEG,
        )
        picture.pts = self._frames if time is None else time
        picture.time_base = 1 / self._rate if self._time_base is None else self._time_base
        self._mux_sound(picture.pts * picture.time_base)
        self._encode(picture)
        self._frames += 1

    def _encode(self, picture: VideoFrame | None) -> None:
        assert self._container is not None
        assert self._stream is not None
        try:
            for packet in self._stream.encode(picture):
                self._container.mux(packet)
        except (av.error.FFmpegError, OSError) as error:
            raise MediaError(f"{self._path.name} cannot be written: {error.strerror}") from None

    def _mux_sound(self, until: Fraction | None) -> None:
        assert self._container is not None
        try:
            for packet in self._sound.packets(until) if self._sound is not None else ():
                self._container.mux(packet)
        except (av.error.FFmpegError, OSError) as error:
            raise MediaError(f"{self._path.name} cannot be written: {error.strerror}") from None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._container is None:
            return
        keep = self._frames > 0 and (kind is None or issubclass(kind, KeyboardInterrupt))
        try:
            if keep:
                self._encode(None)
                self._mux_sound(None)
            self._close()
            if keep:
                self._temporary.replace(self._path)
        finally:
            self._container = None
            self._temporary.unlink(missing_ok=True)

    def _close(self) -> None:
        assert self._container is not None
        try:
            self._container.close()
        except (av.error.FFmpegError, OSError) as error:
            if self._frames:
                raise MediaError(f"{self._path.name} cannot be written: {error.strerror}") from None
