"""Files that are broken or made to do harm: each ends in a sentence, in time, and the server goes on.

They are opened as the server opens them, by a first look in a process of its own. ``tests/video/test_broken.py`` has
what the reader itself does with damaged files.
"""

from __future__ import annotations

import gzip
import io
import os
import resource
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from tam_backend.errors import MediaError
from tam_backend.video.container import Limits
from tam_backend.video.firstlook import FirstLook
from tests.hostile.conftest import Open
from tests.video.make import box, make_video

#: Seconds and bytes of a look; what every case must stay within.
SECONDS, MEMORY = 10.0, 600_000_000


def mp4(path: Path, **more) -> bytearray:
    return bytearray(make_video(path.with_name("made.mp4"), 12, **more).read_bytes())


def _empty(path: Path) -> bytes:
    return b""


def _text(path: Path) -> bytes:
    return b"These are my notes.\n" * 500


def _noise(path: Path) -> bytes:
    return np.random.default_rng(0).bytes(50_000)


def _error_page(path: Path) -> bytes:
    return b"<!DOCTYPE html><html><body>404 Not Found</body></html>"


def _svg_with_a_foreign_file(path: Path) -> bytes:
    return b'<?xml version="1.0"?><!DOCTYPE s [<!ENTITY x SYSTEM "file:///etc/passwd">]><svg>&x;</svg>'


def _playlist(path: Path) -> bytes:
    make_video(path.with_name("made.ts"), 12, codec="mpeg2video")
    return b"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nmade.ts\n#EXT-X-ENDLIST\n"


def _playlist_of_addresses(path: Path) -> bytes:
    return b"#EXTM3U\n#EXTINF:2,\nhttp://169.254.169.254/latest/meta-data\n#EXT-X-ENDLIST\n"


def _list_of_files(path: Path) -> bytes:
    mp4(path)
    return b"ffconcat version 1.0\nfile made.mp4\n"


def _an_image(path: Path) -> bytes:
    return png(64, 48)


def _dash(path: Path) -> bytes:
    return b'<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>http://127.0.0.1/</BaseURL></MPD>'


def _session_description(path: Path) -> bytes:
    return b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"


def _head_alone(path: Path) -> bytes:
    return b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41"


def _no_index(path: Path) -> bytes:
    data = mp4(path)
    return bytes(data[: data.index(b"moov") - 4])


def _no_fragments(path: Path) -> bytes:
    data = mp4(path, container_options={"movflags": "+frag_keyframe+empty_moov"})
    return bytes(data[: data.index(b"moof") - 4])


def _sound_alone(path: Path) -> bytes:
    made = path.with_name("made.mp4")
    with av.open(str(made), "w") as container:
        stream = container.add_stream("aac", rate=48000, layout="mono")
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        samples.sample_rate = 48000
        container.mux(stream.encode(samples))
        container.mux(stream.encode())
    return made.read_bytes()


def _unknown_codec(path: Path) -> bytes:
    data = mp4(path)
    at = data.rindex(b"avc1")
    data[at : at + 4] = b"xyz1"
    return bytes(data)


def _boxes_that_end_too_early(path: Path) -> bytes:
    data = mp4(path)
    for name in (b"moov", b"trak"):
        struct.pack_into(">I", data, data.index(name) - 4, 12)
    return bytes(data)


def _boxes_in_boxes(path: Path) -> bytes:
    data = b"\0\0\0\x08free"
    for _ in range(20_000):
        data = struct.pack(">I4s", len(data) + 8, b"moov") + data
    return b"\0\0\0\x14ftypisom\0\0\2\0isom" + data


def _four_billion_samples(path: Path) -> bytes:
    data = mp4(path)
    at = data.index(b"stsz")
    struct.pack_into(">II", data, at + 8, 1, 0xFFFFFFFF)  # all of one byte, so that no table is needed
    return bytes(data)


def _four_billion_times(path: Path) -> bytes:
    data = mp4(path)
    struct.pack_into(">I", data, data.index(b"stts") + 8, 0xFFFFFFFF)
    return bytes(data)


def _samples_behind_the_end(path: Path) -> bytes:
    data = mp4(path)
    struct.pack_into(">I", data, data.index(b"stco") + 12, 0xFFFFFF00)
    return bytes(data)


def _pictures_of_noise(path: Path) -> bytes:
    data = mp4(path)
    start = box(bytes(data), "mdat")
    end = start + struct.unpack_from(">I", data, start - 8)[0] - 8
    data[start:end] = np.random.default_rng(1).bytes(end - start)
    return bytes(data)


def _absurd_size(path: Path) -> bytes:
    data = bytearray(make_video(path.with_name("made.avi"), 3, codec="ffv1", pixel_format="bgr0").read_bytes())
    struct.pack_into("<ii", data, data.index(b"strf") + 12, 20_000, 20_000)
    return bytes(data)


def _gif_bomb(path: Path) -> bytes:
    """100 frames of 65535 x 65535, in some kilobytes."""
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0) + b"\x02\x02\x4c\x01\x00"
    screen = b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    return screen + 100 * (b"\x21\xf9\x04\0\0\0\0\0" + frame) + b";"


def _png_bomb(path: Path) -> bytes:
    """30000 x 30000 pixels of nothing; an image under the name of a video."""
    return png(30_000, 30_000)


def _gzip_bomb(path: Path) -> bytes:
    return gzip.compress(bytes(50_000_000))


def _zip_bomb(path: Path) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.mp4", bytes(50_000_000))
    return buffer.getvalue()


def _matroska_without_an_end(path: Path) -> bytes:
    """A segment of unknown size with elements that say they are larger than the file."""
    head = bytes.fromhex("1a45dfa3 84 4286 81 01") + bytes.fromhex("18538067 01ffffffffffffff")
    return head + bytes.fromhex("1f43b675 01fffffffffffffe") * 2000


def _matroska_of_noise(path: Path) -> bytes:
    data = bytearray(make_video(path.with_name("made.mkv"), 12).read_bytes())
    at = data.index(bytes.fromhex("1654ae6b"))  # the tracks
    data[at:] = np.random.default_rng(2).bytes(len(data) - at)
    return bytes(data)


def _transport_stream_of_noise(path: Path) -> bytes:
    noise = np.random.default_rng(3)
    return b"".join(b"G" + noise.bytes(187) for _ in range(3000))


def _raw_picture_of_16384(path: Path) -> bytes:
    """H.264 whose header says 16384 x 16384."""
    bits = "0100001011000000001010001001000110100"
    bits += "000000000100000000000000000000" + ue(1023) + ue(1023) + "11001"
    payload = int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")
    return b"\0\0\0\x01\x67" + payload + b"\0\0\0\x01\x65\x88\x84" + bytes(100)


def ue(value: int) -> str:
    """Exp-Golomb, as headers of H.264 have it."""
    text = bin(value + 1)[2:]
    return "0" * (len(text) - 1) + text


def png(width: int, height: int, chunks: bytes = b"") -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    row = bytes(1 + width // 8)
    data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunks + chunk(b"IDAT", data) + chunk(b"IEND", b"")


BROKEN: list[Callable[[Path], bytes]] = [
    _empty, _text, _noise, _error_page, _svg_with_a_foreign_file, _playlist, _playlist_of_addresses, _list_of_files,
    _an_image, _dash, _session_description, _head_alone, _no_index, _no_fragments, _sound_alone, _unknown_codec,
    _boxes_that_end_too_early, _boxes_in_boxes, _four_billion_samples, _four_billion_times, _samples_behind_the_end,
    _pictures_of_noise, _absurd_size, _gif_bomb, _png_bomb, _gzip_bomb, _zip_bomb, _matroska_without_an_end,
    _matroska_of_noise, _transport_stream_of_noise, _raw_picture_of_16384,
]  # fmt: skip


@pytest.mark.parametrize("make", BROKEN, ids=lambda make: make.__name__.strip("_"))
def test_broken_files(make: Callable[[Path], bytes], shelf: Path, open_local: Open):
    path = shelf / "a.mp4"
    path.write_bytes(make(path))
    before, started = peak(), time.monotonic()
    with pytest.raises(MediaError) as refused:
        open_local(f"file://{path}", first_look=FirstLook(SECONDS, MEMORY))
    assert time.monotonic() - started < SECONDS + 2
    assert peak() - before < 100_000_000, "in the process of the server"
    said = str(refused.value)
    assert "a.mp4" in said
    assert str(shelf) not in said
    assert len(said) < 300


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# ---- limits


@pytest.mark.parametrize(
    ("video", "limits", "says"),
    [
        ({"frames": 48}, {"max_frames": 47}, "more than 47 frames"),
        ({"frames": 3, "stamps": [0, 40, 36_000_000]}, {"max_seconds": 3600}, r"600\.0 minutes long; the limit is 60"),
        ({"frames": 3, "size": (640, 480)}, {"max_pixels": 300_000}, r"640x480 pixels; the limit is 0\.3 million"),
    ],
)
def test_limits(video, limits, says, shelf: Path, open_local: Open):
    path = make_video(shelf / "a.mp4", **video)
    with pytest.raises(MediaError, match=says):
        open_local(f"file://{path}", **limits)
    assert len(open_local(f"file://{path}")) == video["frames"], "without the limit"
    with pytest.raises(MediaError, match="limit"):
        open_local(f"file://{path}", **limits)  # its index is known by now


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video that takes many seconds to decode, and whose container cannot be believed: one picture 6000 times."""
    path = tmp_path_factory.mktemp("slow") / "slow.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 1920, 1080, "yuv420p"
        grey = np.full((1080, 1920, 3), 90, np.uint8)
        [packet, *_] = stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")) + stream.encode()
        for i in range(6000):
            packet.pts = packet.dts = i
            container.mux(packet)
    return path


def test_what_takes_too_long_is_ended(slow: Path):
    before = children()
    started = time.monotonic()
    with pytest.raises(MediaError, match=r"longer than 0\.5 seconds.*TAM_FIRST_LOOK_SECONDS"):
        FirstLook(seconds=0.5).video(slow, Limits())
    assert time.monotonic() - started < 5
    assert children() <= before


def test_what_takes_too_much_memory_is_ended(tmp_path: Path):
    image = np.zeros((4000, 6000, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), image)
    with pytest.raises(MediaError, match=r"a\.png"):
        FirstLook(20, memory_bytes=30_000_000).images([tmp_path / "a.png"], "k", Limits())
    FirstLook(20, memory_bytes=600_000_000).images([tmp_path / "a.png"], "k", Limits())


@pytest.mark.parametrize("end", ["SIGSEGV", "SIGABRT", "SIGKILL", "SIGILL"])
def test_the_death_of_a_decoder_is_an_error_like_others(end: str, tmp_path: Path):
    look = FirstLook(20)
    look.command = [sys.executable, "-c", f"import os, signal; os.kill(os.getpid(), signal.{end})"]
    with pytest.raises(MediaError, match=r"a\.mp4 cannot be read: its decoder ended over it"):
        look.video(make_video(tmp_path / "a.mp4"), Limits())


def test_a_look_that_ignores_all_signals_is_ended(tmp_path: Path):
    look = FirstLook(1)
    look.command = [
        sys.executable, "-c",
        "import signal, time; [signal.signal(s, signal.SIG_IGN) for s in (1, 2, 13, 14, 15)]; time.sleep(60)",
    ]  # fmt: skip
    before = children()
    started = time.monotonic()
    with pytest.raises(MediaError, match="longer than 1 seconds"):
        look.video(make_video(tmp_path / "a.mp4"), Limits())
    assert time.monotonic() - started < 5
    assert children() <= before


def test_a_fault_of_ours_is_not_put_down_to_the_file(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    look = FirstLook(20)
    look.command = [sys.executable, "-c", "raise KeyError"]
    with pytest.raises(MediaError, match=r"a\.mp4 could not be looked at"):
        look.video(make_video(tmp_path / "a.mp4"), Limits())
    assert "ended with code 1" in caplog.text


@pytest.mark.parametrize("answer", ["", "nonsense", "PK\\x03\\x04", "x" * 100_000])
def test_an_answer_that_is_none(answer: str, tmp_path: Path):
    look = FirstLook(20)
    look.command = [sys.executable, "-c", f"print({answer!r})"]
    with pytest.raises(MediaError, match=r"a\.mp4"):
        look.video(make_video(tmp_path / "a.mp4"), Limits())


def test_the_look_gets_no_secret_and_no_file_of_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TAM_LABEL_STUDIO_TOKEN", "secret")
    seen = tmp_path / "seen"
    look = FirstLook(20)
    script = "import os, sys; open(%r, 'w').write(repr((dict(os.environ), sorted(os.listdir('/proc/self/fd')))))"
    look.command = [sys.executable, "-c", script % str(seen)]
    with (tmp_path / "open").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        with pytest.raises(MediaError):
            look.video(make_video(tmp_path / "a.mp4"), Limits())
    environ, descriptors = eval(seen.read_text())
    assert "TAM_LABEL_STUDIO_TOKEN" not in environ
    assert set(descriptors) <= {"0", "1", "2", "3", "4"}  # of these, two are open for this very question


def test_limits_that_the_kernel_keeps(tmp_path: Path):
    """The process sets them before it opens the file, and cannot raise them again."""
    script = (
        "import sys, resource; from tam_backend.video import looker; looker._confine(5, 10**8, 5000);"
        "print([resource.getrlimit(getattr(resource, 'RLIMIT_' + n)) for n in ('CORE', 'FSIZE', 'NOFILE')]);"
        "sys.stdout.flush();"
        "bytearray(3 * 10**8)"
    )
    environ = {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environ)
    assert eval(done.stdout) == [(0, 0), (5000, 5000), (64, 64)]
    assert "MemoryError" in done.stderr


def test_a_look_ends_with_its_server(slow: Path):
    """Also with one that is killed."""
    script = (
        "from pathlib import Path; from tam_backend.video.container import Limits;"
        "from tam_backend.video.firstlook import FirstLook; FirstLook(300).video(Path(%r), Limits())"
    )
    environ = {"PYTHONPATH": os.pathsep.join(sys.path)}
    server = subprocess.Popen([sys.executable, "-c", script % str(slow)], env=environ)
    looks = Path(f"/proc/{server.pid}/task/{server.pid}/children")
    while not (found := looks.read_text().split()):
        time.sleep(0.02)
    time.sleep(1)  # it is at work by now
    server.kill()
    server.wait()
    until = time.monotonic() + 10
    while Path(f"/proc/{found[0]}").exists():
        assert time.monotonic() < until
        time.sleep(0.1)


def children() -> set[str]:
    """Processes of ours that still run; other tests may have left some, such as multiprocessing's own."""
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


# ---- images


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"GIF89a" + bytes(20), "not a JPEG, PNG, WebP or BMP"),
        (b"\x89PNG\r\n\x1a\n" + bytes(8) + struct.pack(">II", 60_000, 60_000) + bytes(20), "the limit is 64 million"),
        (png(64, 48)[:60], "cannot be decoded"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0\xff\xc0\0\x0b\x08\xff\xff\xff\xff\1\1\x11\0", "million"),
        (b"BM" + bytes(12) + struct.pack("<Iii", 40, 100_000, -100_000) + bytes(50), "million"),
        (b"BM" + bytes(12) + struct.pack("<Iii", 40, 100, 100) + bytes(50), "decode"),
        (b"RIFF\x20\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\x09\0\0\x09\0\0" + bytes(20), "decode"),
    ],
)
def test_broken_images(content: bytes, says: str, shelf: Path, open_local: Open):
    (shelf / "a.png").write_bytes(content)
    with pytest.raises(MediaError, match=says):
        open_local(f"file://{shelf}/a.png", "images")


def test_images_are_looked_at_once(shelf: Path, tmp_path: Path):
    (shelf / "a.png").write_bytes(png(64, 48))
    look = FirstLook(20)
    look.images([shelf / "a.png"], "key", Limits())
    look.command = [sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"]
    look.images([shelf / "a.png"], "key", Limits())
    with pytest.raises(MediaError, match="its decoder ended"):
        look.images([shelf / "a.png"], "other key", Limits())
