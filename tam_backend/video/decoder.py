"""Decoding forward from any place of an indexed video, every frame known by its place in presentation order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

import av.error
import numpy as np
from av.container.input import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from tam_backend.errors import MediaError
from tam_backend.video.container import Limits, open_stream
from tam_backend.video.index import NONE, Index
from tam_backend.video.scan import coded_packets, decode_numbered

_STRANGERS = 64  # unknown packets after a seek before another place is tried


class Decoder:
    """One decoding position in one file. Not thread-safe.

    packets_decoded counts coded pictures given to the decoder, seeks the times that decoding began anew elsewhere.
    """

    def __init__(self, path: Path, index: Index, limits: Limits) -> None:
        self._path = path
        self._index = index
        self._limits = limits
        self._frame_threads = not index.damaged
        self._seekable = bool(index.packet_names)
        self._container: InputContainer | None = None
        self._stream: VideoStream | None = None
        self._packets: Iterator[Packet[VideoStream]] = iter(())
        self._ready: deque[tuple[int, VideoFrame]] = deque()
        self._entry = 0  # the packet where decoding started
        self._next_packet = 0
        self._floor = 0  # frames below it are not put out
        self._drained = True
        self._taken = -1  # the last frame that came out of the decoder
        self.last = -1  # the last frame that was read
        self.packets_decoded = 0
        self.seeks = 0

    def reaches(self, frame: int) -> bool:
        """Whether reading on, instead of starting anew, is the shortest way to a frame."""
        if self._container is None or frame <= self.last:
            return False
        return frame == self.last + 1 or int(self._index.start[frame]) < self._next_packet

    def start(self, frame: int) -> None:
        """Go to where decoding for a frame starts."""
        self.seeks += self._container is not None
        self._start(int(self._index.start[frame]))

    def read(self) -> tuple[int, VideoFrame] | None:
        """The next frame in presentation order with its index, or None at the end. Damaged frames are missing.

        Raises MediaError if the file is not the one that was indexed.
        """
        while not self._ready:
            packet = next(self._packets, None)
            if packet is None and self._drained:
                return None
            self._decode(packet)
        self.last, frame = self._ready.popleft()
        return self.last, frame

    def close(self) -> None:
        """Free the file; start() opens it again."""
        self._packets = iter(())
        self._ready.clear()
        self._drained = True
        if self._container is not None:
            self._container.close()
            self._container = None
            self._stream = None

    def _decode(self, packet: Packet[VideoStream] | None) -> None:
        assert self._stream is not None
        if packet is None:
            self._drained = True
        elif not self._expected(packet):
            if self._next_packet == 0 or not self._seekable:
                raise MediaError(f"{self._path.name} changed while it was read")
            self._seekable = False
            self._again()
            return
        else:
            self._next_packet += 1
            self.packets_decoded += 1
        try:
            frames = decode_numbered(self._stream, packet, self._next_packet - 1)
        except av.error.FFmpegError:
            frames = []
            self._distrust_threads()
        for frame in frames:
            self._take(frame)
        if self._drained and self._taken < len(self._index) - 1:
            self._distrust_threads()

    def _distrust_threads(self) -> None:
        """A frame is missing: with frame threads what else is lost depends on chance, so from here on without them."""
        if self._frame_threads:
            self._frame_threads = False
            self.close()
            self._again()

    def _take(self, frame: VideoFrame) -> None:
        number = frame.pts
        if number is None or not 0 <= number < len(self._index.pts):
            return
        place = int(self._index.frame_of_packet[number])
        if place <= self._taken:
            # A damaged file can show a picture again. What else comes too late is not in the index: it is left out.
            later = np.flatnonzero(self._index.packet[self._taken + 1 :] == number)
            place = self._taken + 1 + int(later[0]) if len(later) else -1
        if place >= self._floor:
            self._taken = place
            self._ready.append((place, frame))

    def _start(self, entry: int) -> None:
        self._ready.clear()
        self._entry = entry
        # Frames shown before the entry come out incomplete, if at all: what they refer to was not decoded.
        self._floor = max(0, int(self._index.frame_of_packet[entry])) if entry else 0
        self.last = self._taken = self._floor - 1
        self._drained = False
        if not self._seek(entry):
            self._open()
            self._packets = islice(self._packets, entry, None)
        self._next_packet = entry

    def _again(self) -> None:
        """Start once more at the same place and go on behind the last frame read."""
        last = self.last
        self._start(self._entry)
        self._floor = max(self._floor, last + 1)
        self.last = self._taken = self._floor - 1

    def _open(self) -> None:
        self.close()
        self._container, self._stream = open_stream(self._path, self._limits, frame_threads=self._frame_threads)
        self._packets = coded_packets(self._container, self._stream)
        self._drained = False

    def _seek(self, entry: int) -> bool:
        """Go to a packet; False if the container cannot do it, or is at its beginning already.

        Opening the file again would do as well for the first packet, but each decoder has a pool of memory of its own,
        which is not freed before the last of its frames is.
        """
        if not self._seekable or (self._container is None and not entry):
            return False
        if self._container is None:
            self._open()
        assert self._container is not None
        for stamp in self._stamps(entry):
            try:
                self._container.seek(stamp, stream=self._stream)
            except av.error.FFmpegError:
                continue
            if self._walk(entry):
                return True
        return False

    def _stamps(self, entry: int) -> Iterator[int]:
        """Timestamps to seek to: the packet's own, then those of earlier and earlier entries."""
        entries = self._index.entries
        at = int(np.searchsorted(entries, entry))
        back = 0
        while back <= at:
            packet = int(entries[at - back])
            for stamps in (self._index.pts, self._index.dts):
                if stamps[packet] != NONE:
                    yield int(stamps[packet])
            back = 2 * back or 1

    def _walk(self, entry: int) -> bool:
        """Read on to a packet without decoding; False if reading began behind it."""
        assert self._container is not None
        assert self._stream is not None
        strangers = 0
        packets = coded_packets(self._container, self._stream)
        for packet in packets:
            number = self._index.packet_names.get(_name(packet))
            if number == entry:
                self._packets = chain([packet], packets)
                return True
            strangers += number is None
            if strangers > _STRANGERS or (number is not None and number > entry):
                return False
        return False

    def _expected(self, packet: Packet[VideoStream]) -> bool:
        n, index = self._next_packet, self._index
        return n < len(index.pts) and _name(packet) == (index.pts[n], index.pos[n], index.size[n])


def _name(packet: Packet[VideoStream]) -> tuple[int, int, int]:
    """What identifies a packet wherever reading starts, as in Index.packet_names."""
    return (
        NONE if packet.pts is None else packet.pts,
        NONE if packet.pos is None else packet.pos,
        packet.size,
    )
