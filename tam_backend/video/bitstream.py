"""What one packet of a coded video holds, read from its headers without decoding it.

Two questions decide whether a video can be indexed without decoding all of it, and where decoding may start:
how many pictures of this packet are shown, and whether decoding that starts here gives, from this picture on in
presentation order, exactly the pictures that decoding from the beginning gives. A container's key frame flag does not
answer the second: it is also set on the recovery points of a stream with periodic intra refresh.

Sources: ITU-T H.264 7.3.1-7.3.3 and D.2.8, ITU-T H.265 7.3.1-7.3.6, RFC 6386 9.1 (VP8),
VP9 Bitstream Specification 6.2 and Annex B, ISO/IEC 14496-15 5.3.3 and 8.3.3 (length-prefixed NAL units).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

Bytes = bytes | memoryview

_LONGEST_SEI = 4096  # bytes looked at for a recovery point


@dataclass(frozen=True, slots=True)
class Content:
    """shown: pictures that are shown. entry: decoding may start here (only meaningful if the container agrees)."""

    shown: int
    entry: bool


def inspector(codec: str, extradata: bytes | None) -> Callable[[Bytes], Content] | None:
    """A function from the bytes of a packet to its content, or None if the codec's packets cannot be judged.

    codec: FFmpeg's codec name, for example "h264". extradata: the codec's configuration from the container.
    """
    prefix = _nal_length_size(codec, extradata or b"")
    if codec == "h264":
        return lambda data: _h264(data, prefix)
    if codec == "hevc":
        return lambda data: _hevc(data, prefix)
    if codec == "vp8":
        return _vp8
    if codec == "vp9":
        return _vp9
    if codec in ("av1", "ffv1", "mjpeg", "prores"):
        return _one_picture
    return None


def _one_picture(data: Bytes) -> Content:
    """One packet is one shown picture by the codec's definition (an AV1 temporal unit) or by its lack of references."""
    return Content(int(len(data) > 0), len(data) > 0)


def _nal_length_size(codec: str, extradata: bytes) -> int:
    """Bytes of the length before every NAL unit; 0 where start codes separate them instead (Annex B)."""
    if codec == "h264" and len(extradata) > 6 and extradata[0] == 1:
        return (extradata[4] & 3) + 1
    if codec == "hevc" and len(extradata) > 22 and extradata[0] == 1:
        return (extradata[21] & 3) + 1
    return 0


def _nal_units(data: Bytes, length_size: int) -> Iterator[memoryview]:
    view = memoryview(data)
    if length_size:
        at = 0
        while at + length_size < len(view):
            size = int.from_bytes(view[at : at + length_size], "big")
            at += length_size
            yield view[at : at + size]
            at += size
        return
    raw = bytes(view)
    start = raw.find(b"\0\0\1")
    while start >= 0:
        end = raw.find(b"\0\0\1", start + 3)
        yield view[start + 3 : end if end >= 0 else len(view)]
        start = end


def _h264(data: Bytes, length_size: int) -> Content:
    pictures = 0
    idr = recovery = False
    for unit in _nal_units(data, length_size):
        if len(unit) < 2:
            continue
        kind = unit[0] & 0x1F
        if kind in (1, 2, 5):
            pictures += unit[1] >> 7  # first_mb_in_slice = 0 is coded as the single bit 1: a new picture or field
            idr = idr or kind == 5
        elif kind == 6:
            recovery = recovery or _is_exact_recovery_point(unit)
    return Content(pictures, idr or recovery)


def _is_exact_recovery_point(sei: memoryview) -> bool:
    """Whether a recovery point says that every picture from here on, in output order, comes out exactly."""
    # An emulation prevention byte follows two zero bytes and is not part of the payload.
    payload = bytes(sei[1:_LONGEST_SEI]).replace(b"\0\0\3", b"\0\0")
    at = 0
    while at + 2 < len(payload):
        kind, at = _sei_number(payload, at)
        size, at = _sei_number(payload, at)
        if kind == 6 and at < len(payload):
            # recovery_frame_cnt ue(v) = 0 is the bit 1; exact_match_flag u(1) follows it
            return payload[at] >> 6 == 0b11
        at += size
    return False


def _sei_number(payload: bytes, at: int) -> tuple[int, int]:
    value = 0
    while at < len(payload) and payload[at] == 0xFF:
        value += 255
        at += 1
    return value + (payload[at] if at < len(payload) else 0), at + 1


def _hevc(data: Bytes, length_size: int) -> Content:
    pictures = 0
    random_access = False
    for unit in _nal_units(data, length_size):
        if len(unit) < 3:
            continue
        kind = unit[0] >> 1 & 0x3F
        layer = (unit[0] & 1) << 5 | unit[1] >> 3
        if kind < 32 and layer == 0:
            pictures += unit[2] >> 7  # first_slice_segment_in_pic_flag
            random_access = random_access or 16 <= kind <= 23
    return Content(pictures, random_access)


def _vp8(data: Bytes) -> Content:
    if not len(data):
        return Content(0, False)
    return Content(data[0] >> 4 & 1, not data[0] & 1)


def _vp9(data: Bytes) -> Content:
    shown, entry, at = 0, False, 0
    for size in _vp9_frame_sizes(data):
        if not size or at >= len(data):
            continue
        head = data[at]
        reserved = 1 if head & 0x30 == 0x30 else 0  # profile 3 has one more bit before show_existing_frame
        bits = head << reserved
        show_existing, inter, show = bits >> 3 & 1, bits >> 2 & 1, bits >> 1 & 1
        shown += 1 if show_existing else show
        entry = entry or not (show_existing or inter)
        at += size
    return Content(shown, entry)


def _vp9_frame_sizes(data: Bytes) -> list[int]:
    """Sizes of the frames of a packet: several, with an index behind them, if it is a superframe."""
    if len(data):
        marker = data[-1]
        count, width = (marker & 7) + 1, (marker >> 3 & 3) + 1
        index = 2 + count * width
        if marker & 0xE0 == 0xC0 and len(data) >= index and data[-index] == marker:
            sizes = bytes(data[-index + 1 : -1])
            return [int.from_bytes(sizes[i : i + width], "little") for i in range(0, count * width, width)]
    return [len(data)]
