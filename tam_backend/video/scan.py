"""Making the index of a video.

Reading a file's packets takes milliseconds where decoding it takes seconds, but packets alone can lie: pictures that
are never shown, fields, frames without a timestamp, timestamps that contradict the order of the pictures. So packets
are believed only if

1. the container is of the MP4/MOV or Matroska/WebM family, which store a presentation timestamp for every frame,
2. the headers in every packet say that it holds exactly one shown picture,
3. every packet has a timestamp, no two the same, and none is marked as discarded (cut off by an edit list) or corrupt,
4. the first packet is a key frame and nothing is shown before it,
5. the timestamps reorder pictures if and only if the decoder says that it does,
6. the first frames, decoded, are the predicted ones, and none is interlaced.

Otherwise the whole file is decoded once, and the frames are those that come out: what FFmpeg decodes by default, edit
lists applied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import av.error
import numpy as np
from av.container.input import InputContainer
from av.packet import Packet
from av.stream import Discard
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from tam_backend.errors import MediaError
from tam_backend.video.bitstream import Content, inspector
from tam_backend.video.container import Limits, is_isom, is_matroska, open_stream
from tam_backend.video.index import NONE, Index, Ints, starts
from tam_backend.video.pixels import orientation

_PROBE = 32  # frames decoded to check a prediction
_DURATION_TOLERANCE = 0.5  # seconds by which a file may end before the duration that it declares


def coded_packets(container: InputContainer, stream: VideoStream) -> Iterator[Packet[VideoStream]]:
    """The packets of a stream that hold data, until the end or until the file cannot be read on.

    Empty packets (a dropped frame in AVI) would tell the decoder that the stream has ended. PyAV raises IndexError
    behind the last packet of a file in which streams appeared on the way.
    """
    try:
        for packet in container.demux(stream):
            if packet.size:
                yield packet
    except (av.error.FFmpegError, IndexError):
        return


def decode_numbered(stream: VideoStream, packet: Packet[VideoStream] | None, number: int) -> list[VideoFrame]:
    """Decode a packet so that the frame it holds, whenever the decoder puts it out, has pts = the packet's number.

    packet=None puts out what the decoder still holds.

    The decoder orders frames by what is in the stream and hands timestamps through, so this identifies frames where
    the container's timestamps cannot. Raises av.error.FFmpegError.
    """
    if packet is not None:
        packet.pts = number
    return stream.codec_context.decode(packet)


def build_index(path: Path, limits: Limits, *, verify: bool = False) -> Index:
    """Index a video; verify=True decodes it all whatever its packets say. Raises MediaError if no frame is readable."""
    scan = _scan(path, limits)
    if not scan.pts:
        raise MediaError(f"{path.name} holds no frames")
    order = scan.predict()
    verified = verify or order is None
    if order is not None and not verify:
        probe = _decode(path, limits, frame_threads=True, count=_PROBE)
        verified = not probe.clean or probe.interlaced or probe.order != order[:_PROBE]
    if verified:
        probe = _decode(path, limits, frame_threads=True)
        if not probe.clean or len(probe.order) < len(scan.pts):
            # With frame threads what is left after an error depends on chance, and one at the end goes unreported.
            probe = _decode(path, limits, frame_threads=False)
        order = probe.order
    assert order is not None
    if probe.first is None:
        raise MediaError(
            f"no frame of {path.name} can be decoded: it is damaged, its codec is not supported here, "
            f"or its frames have more than {limits.max_pixels / 1e6:g} million pixels"
        )
    packet = np.array(order, np.int64)
    entries = [e for e in scan.entries if scan.judged or e in probe.key_frames]
    how = orientation(probe.first)
    width, height = how.size(probe.first.width, probe.first.height)
    return Index(
        pts=np.array(scan.pts, np.int64),
        dts=np.array(scan.dts, np.int64),
        pos=np.array(scan.pos, np.int64),
        size=np.array(scan.size, np.int64),
        packet=packet,
        start=starts(packet, np.array(entries, np.int64)),
        times=scan.times(packet),
        width=width,
        height=height,
        orientation=how,
        warning=_warning(scan, len(order), probe.errors if verified else 0),
        verified=verified,
        damaged=not probe.clean,
    )


@dataclass
class _Scan:
    """What the packets of a file say.

    indexed_container: rule 1. reorders: the decoder puts frames out in another order than it gets them. judged: the
    codec's packets can be inspected. suspicious: a packet broke rule 2 or 3, or reading failed. dropped: empty packets.
    announced: about how many packets there would be if the file did not end early, 0 if it does not.
    """

    time_base: float
    rate: float
    indexed_container: bool
    reorders: bool
    judged: bool
    pts: list[int] = field(default_factory=list)
    dts: list[int] = field(default_factory=list)
    pos: list[int] = field(default_factory=list)
    size: list[int] = field(default_factory=list)
    entries: list[int] = field(default_factory=list)
    suspicious: bool = False
    dropped: int = 0
    announced: int = 0

    def predict(self) -> list[int] | None:
        """Packets in presentation order, or None if the packets cannot be believed."""
        n = len(self.pts)
        if self.suspicious or not (self.indexed_container and self.judged):
            return None
        if NONE in self.pts or len(set(self.pts)) < n or self.entries[:1] != [0]:
            return None
        order = sorted(range(n), key=self.pts.__getitem__)
        if order[0] != 0 or self.reorders != (order != list(range(n))):
            return None
        return order

    def times(self, packet: Ints) -> np.ndarray:
        """Seconds from the first frame. The n-th frame shown has the n-th smallest timestamp of the shown packets."""
        for stamps in (self.pts, self.dts):
            shown = np.array(stamps, np.int64)[packet]
            if not (shown == NONE).any():
                shown.sort()
                return (shown - shown[0]) * self.time_base
        return np.arange(len(packet)) / self.rate


def _scan(path: Path, limits: Limits) -> _Scan:
    container, stream = open_stream(path, limits)
    with container:
        context = stream.codec_context
        inspect = inspector(context.codec.canonical_name, context.extradata)
        scan = _Scan(
            time_base=float(stream.time_base or 1),
            rate=float(stream.average_rate or 0) or 25.0,
            indexed_container=is_isom(container) or is_matroska(container),
            reorders=bool(context.has_b_frames),
            judged=inspect is not None,
        )
        if is_matroska(container):
            for other in container.streams:
                other.discard = Discard.default  # the declared duration is that of the longest stream
        end = 0.0  # of the packets of all streams, seconds
        try:
            for packet in container.demux(*container.streams):
                stamp = packet.pts if packet.pts is not None else packet.dts
                if stamp is not None:
                    end = max(end, float((stamp + (packet.duration or 0)) * packet.time_base))
                if packet.stream_index != stream.index:
                    continue
                if packet.size:
                    _add(scan, packet, inspect)
                elif stamp is not None:
                    scan.dropped += 1
                if len(scan.pts) > limits.max_frames:
                    raise MediaError(f"{path.name} has more than {limits.max_frames} frames, which is the limit")
        except (av.error.FFmpegError, IndexError):
            scan.suspicious = True
        scan.announced = _announced(path, container, stream, scan, end)
    return scan


def _add(scan: _Scan, packet: Packet, inspect: Callable[[memoryview], Content] | None) -> None:
    if inspect is not None:
        content = inspect(memoryview(packet))
        if content.shown != 1:
            scan.suspicious = True
        if content.entry and packet.is_keyframe:
            scan.entries.append(len(scan.pts))
    elif packet.is_keyframe:
        scan.entries.append(len(scan.pts))
    if packet.is_discard or packet.is_corrupt:
        scan.suspicious = True
    scan.pts.append(NONE if packet.pts is None else packet.pts)
    scan.dts.append(NONE if packet.dts is None else packet.dts)
    scan.pos.append(NONE if packet.pos is None else packet.pos)
    scan.size.append(packet.size)


def _announced(path: Path, container: InputContainer, stream: VideoStream, scan: _Scan, end: float) -> int:
    packets = len(scan.pts)
    if is_isom(container):
        file_size = path.stat().st_size
        if any(entry.pos + entry.size > file_size for entry in stream.index_entries):
            return len(stream.index_entries)
    elif container.format.name == "avi":
        return stream.frames if stream.frames > packets + scan.dropped else 0
    elif is_matroska(container) and container.duration and end > 0:
        declared = container.duration / 1_000_000
        if declared - end > _DURATION_TOLERANCE:
            return round(packets * declared / end)
    return 0


def _warning(scan: _Scan, frames: int, errors: int) -> str | None:
    parts = []
    if scan.announced > frames:
        parts.append(f"the file ends early: {frames} of about {scan.announced} frames could be read")
    if errors:
        parts.append(f"the file is damaged: {errors} of its {len(scan.pts)} coded pictures could not be decoded")
    return "; ".join(parts) or None


@dataclass
class _Decoded:
    """What came out of a decoder: packet numbers in order of appearance, and whether all went well."""

    order: list[int] = field(default_factory=list)
    key_frames: set[int] = field(default_factory=set)
    first: VideoFrame | None = None
    errors: int = 0
    corrupt: bool = False
    interlaced: bool = False

    @property
    def clean(self) -> bool:
        return not (self.errors or self.corrupt)

    def take(self, frame: VideoFrame) -> None:
        if frame.pts is None:
            self.errors += 1
            return
        self.first = self.first or frame
        self.order.append(frame.pts)
        if frame.key_frame:
            self.key_frames.add(frame.pts)
        self.corrupt = self.corrupt or frame.is_corrupt
        self.interlaced = self.interlaced or frame.interlaced_frame


def _decode(path: Path, limits: Limits, *, frame_threads: bool, count: int | None = None) -> _Decoded:
    """Decode a file from the beginning: all of it, or its first `count` frames."""
    result = _Decoded()
    container, stream = open_stream(path, limits, frame_threads=frame_threads)
    with container:
        packets: Iterator[tuple[int, Packet[VideoStream] | None]]
        packets = chain(enumerate(coded_packets(container, stream)), [(-1, None)])
        for number, packet in packets:
            try:
                frames = decode_numbered(stream, packet, number)
            except av.error.FFmpegError:
                result.errors += 1
                continue
            for frame in frames:
                result.take(frame)
                if count is not None and len(result.order) == count:
                    return result
    return result
