"""The sound of a video file, handed on as it is."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import av.error
from av.audio.stream import AudioStream
from av.container.input import InputContainer
from av.container.output import OutputContainer
from av.packet import Packet

from tam_backend.errors import MediaError
from tam_backend.video.container import Limits, open_sound

#: Codecs that an MP4 file may hold, and players know there.
_COPIED = frozenset({"aac", "mp3", "ac3", "eac3", "alac", "opus", "flac"})


class Sound:
    """The first sound track of a video file, to be copied packet by packet into another one.

        with Sound(path) as sound:
            if sound.there: ...

    Packets keep their times, less ``offset`` seconds; those before it and from ``end`` on are left out.
    Raises MediaError if the file cannot be opened, or if its sound cannot be in an MP4 file.
    """

    def __init__(self, path: Path, offset: Fraction, end: Fraction | None) -> None:
        self._path, self._offset, self._end = path, offset, end
        self._container: InputContainer | None = None
        self._source: AudioStream | None = None
        self._target: AudioStream | None = None
        self._packets: Iterator[Packet] = iter(())
        self._next: Packet | None = None

    def __enter__(self) -> Sound:
        self._container, self._source = open_sound(self._path, Limits())
        if self._source is not None:
            name = self._source.codec_context.name
            if name not in _COPIED:
                self._container.close()
                raise MediaError(
                    f"the sound of {self._path.name} is {name}, which an MP4 file cannot hold; leave it out with "
                    "--no-keep-audio"
                )
            self._packets = self._container.demux(self._source)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._container is not None:
            self._container.close()

    def add_to(self, container: OutputContainer) -> None:
        """Make the stream that the packets go to."""
        if self._source is not None:
            stream = container.add_stream_from_template(self._source)
            assert isinstance(stream, AudioStream)
            self._target = stream
            self._next = self._read()

    def packets(self, until: Fraction | None) -> Iterator[Packet]:
        """The packets not given yet that begin before a time in seconds; None: all the rest."""
        while self._next is not None:
            packet = self._next
            assert packet.pts is not None
            if until is not None and packet.pts * packet.time_base >= until:
                return
            self._next = self._read()
            yield packet

    def _read(self) -> Packet | None:
        assert self._source is not None
        try:
            for packet in self._packets:
                if packet.pts is None or packet.dts is None or packet.size == 0:
                    continue
                base = packet.time_base
                time = packet.pts * base - self._offset
                if time < 0 < self._offset:  # without an offset, what comes before 0 readies the decoder
                    continue
                if self._end is not None and time >= self._end:
                    return None
                shift = round(self._offset / base)
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                packet.stream = self._target
                return packet
        except av.error.FFmpegError as error:
            raise MediaError(f"the sound of {self._path.name} cannot be read: {error.strerror}") from None
        return None
