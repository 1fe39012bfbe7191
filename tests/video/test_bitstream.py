"""What packets say about their pictures."""

from __future__ import annotations

import numpy as np
import pytest

from tam_backend.video.bitstream import Content, inspector
from tests.video.conftest import KINDS

AVCC = bytes([1, 100, 0, 31, 0xFF, 0xE1, 0])  # NAL units with lengths of 4 bytes
HVCC = bytes([1] + [0] * 20 + [0xFF] + [0] * 5)

IDR, SLICE, SECOND_SLICE = b"\x65\x88\x84", b"\x41\x9a\x00", b"\x41\x4d\x00"
SPS = b"\x67\x64\x00"
EXACT_RECOVERY = b"\x06\x06\x01\xc4\x80"  # recovery_frame_cnt 0, exact_match_flag 1
INEXACT_RECOVERY = b"\x06\x06\x01\x84\x80"  # recovery_frame_cnt 0, exact_match_flag 0
LATE_RECOVERY = b"\x06\x06\x02\x0a\x40\x80"  # recovery_frame_cnt 19
OTHER_THEN_RECOVERY = b"\x06\x05\x03abc\x06\x01\xc4\x80"


def with_lengths(*units: bytes) -> bytes:
    return b"".join(len(unit).to_bytes(4, "big") + unit for unit in units)


def with_start_codes(*units: bytes) -> bytes:
    return b"".join((b"\0\0\0\1" if i == 0 else b"\0\0\1") + unit for i, unit in enumerate(units))


@pytest.mark.parametrize(
    ("units", "shown", "entry"),
    [
        ([SPS, IDR], 1, True),
        ([IDR, SECOND_SLICE], 1, True),
        ([SLICE], 1, False),
        ([SLICE, SECOND_SLICE, SECOND_SLICE], 1, False),
        ([SLICE, SLICE], 2, False),  # two fields, or two frames
        ([SPS], 0, False),
        ([EXACT_RECOVERY, SLICE], 1, True),
        ([OTHER_THEN_RECOVERY, SLICE], 1, True),
        ([INEXACT_RECOVERY, SLICE], 1, False),
        ([LATE_RECOVERY, SLICE], 1, False),
    ],
)
@pytest.mark.parametrize("framing", [with_lengths, with_start_codes])
def test_h264(units, shown, entry, framing):
    inspect = inspector("h264", AVCC if framing is with_lengths else b"\0\0\0\1\x67")
    assert inspect(framing(*units)) == Content(shown, entry)
    assert inspect(memoryview(framing(*units))) == Content(shown, entry)


@pytest.mark.parametrize(
    ("units", "shown", "entry"),
    [
        ([b"\x40\x01\x0c", b"\x26\x01\xaf"], 1, True),  # VPS, IDR_W_RADL
        ([b"\x2a\x01\xaf", b"\x2a\x01\x4f"], 1, True),  # CRA in two slices
        ([b"\x02\x01\xd0"], 1, False),  # TRAIL_R
        ([b"\x26\x01\xaf", b"\x26\x09\xaf"], 1, True),  # a second layer (stereo) shows nothing of its own
        ([b"\x02\x01\xd0", b"\x02\x01\xd0"], 2, False),
    ],
)
def test_hevc(units, shown, entry):
    assert inspector("hevc", HVCC)(with_lengths(*units)) == Content(shown, entry)


def test_vp8():
    inspect = inspector("vp8", None)
    assert inspect(b"\x10\0\0") == Content(1, True)
    assert inspect(b"\x11\0\0") == Content(1, False)
    assert inspect(b"\x01\0\0") == Content(0, False)
    assert inspect(b"") == Content(0, False)


def test_vp9():
    inspect = inspector("vp9", None)
    key, inter, hidden, existing, deep = b"\x82\x49", b"\x86\x00", b"\x84\x00", b"\x88\x00", b"\xb1\x00"
    assert inspect(key) == Content(1, True)
    assert inspect(inter) == Content(1, False)
    assert inspect(hidden) == Content(0, False)
    assert inspect(existing) == Content(1, False)
    assert inspect(deep) == Content(1, True)  # profile 3 has a reserved bit
    superframe = hidden + inter + bytes([0xC1, 2, 2, 0xC1])
    assert inspect(superframe) == Content(1, False)
    assert inspect(hidden + hidden + bytes([0xC1, 2, 2, 0xC1])) == Content(0, False)


def test_codecs_whose_packets_say_nothing_certain():
    assert inspector("mpeg4", None) is None
    assert inspector("wmv3", b"") is None


@pytest.mark.parametrize("codec", ["h264", "hevc", "vp8", "vp9", "av1"])
def test_no_bytes_break_it(codec):
    rng = np.random.default_rng(3)
    extradata = {"h264": AVCC, "hevc": HVCC}.get(codec)
    for size in [*range(12), 100, 1000]:
        for data in (rng.bytes(size), bytes(size), b"\xff" * size, b"\xc0" * size):
            assert inspector(codec, extradata)(data).shown >= 0
            assert inspector(codec, None)(data).shown >= 0


def test_real_streams_are_covered(video):
    """Otherwise every video would be decoded for its index, and nobody would notice."""
    assert {KINDS[name].decoded for name in ("vp9", "hevc, open groups", "closed groups", "10 bit")} == {False}
