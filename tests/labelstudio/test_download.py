"""Downloads from servers that break off, stall, fail, and lie about length."""

import gzip
import json
import logging
import socket
import time
import zlib
from pathlib import Path

import numpy as np
import pytest

from tam_backend.errors import MediaError
from tam_backend.labelstudio.connections import Connection
from tam_backend.labelstudio.fetching import Patience
from tam_backend.labelstudio.media import MAX_IMAGES, Downloader
from tests.labelstudio.hostile import File, Server

CONTENT = np.random.default_rng(3).bytes(700_001)
LEGACY = "0123456789abcdef0123456789abcdef01234567"


def quick(**changes: float) -> Patience:
    given = {"seconds": 20, "bytes_per_second": 1000, "window": 0.4, "headers_seconds": 0.6, "attempts": 3, "pause": 0}
    return Patience(**given | changes)


def downloader(max_bytes: int = 10**6, max_image_bytes: int = 10**6, **patience: float) -> Downloader:
    return Downloader(("127.0.0.1",), max_bytes, max_image_bytes=max_image_bytes, patience=quick(**patience))


def failure(server: Server, tmp_path: Path, path: str = "/v.mp4", **options: float) -> str:
    """What a failed download says. Nothing stands under the file's name then."""
    with pytest.raises(MediaError) as error:
        downloader(**options).fetch(server.url + path, None, tmp_path / "v.mp4")
    assert not (tmp_path / "v.mp4").exists()
    return str(error.value)


def left(tmp_path: Path) -> list[str]:
    return sorted(p.name for p in tmp_path.iterdir())


@pytest.mark.parametrize(
    "file",
    [
        File(CONTENT, etag='"a"'),
        File(CONTENT, modified="Wed, 21 Oct 2015 07:28:00 GMT"),
        File(CONTENT, etag='W/"a"'),
        File(CONTENT, length=False),  # as Label Studio's uploads: no length without Range, nothing to know it by
        File(CONTENT, ranges=False),
    ],
)
def test_cut_connections_are_resumed(file, server, tmp_path):
    cuts = [int(n) for n in np.random.default_rng(7).integers(70_000, 230_000, 3)]
    file.cuts = list(cuts)
    server.answers["/v.mp4"] = file
    downloader(attempts=5).fetch(server.url + "/v.mp4", None, tmp_path / "v.mp4")
    assert (tmp_path / "v.mp4").read_bytes() == CONTENT
    assert left(tmp_path) == ["v.mp4"]
    if file.ranges:  # what came was not asked for again
        assert [int(s.headers["range"][6:-1]) for s in server.seen] == [0, *np.cumsum(cuts)]


def test_a_download_goes_on_after_a_restart(server, tmp_path):
    server.answers["/v.mp4"] = File(CONTENT, cuts=[300_000, 0, 0, 0], etag='"a"')
    assert "0.3 MB that came are kept" in failure(server, tmp_path)
    assert left(tmp_path) == ["v.mp4.part", "v.mp4.part.json"]
    del server.seen[:]
    downloader().fetch(server.url + "/v.mp4", None, tmp_path / "v.mp4")  # another process could do this
    assert (tmp_path / "v.mp4").read_bytes() == CONTENT
    assert [(s.headers["range"], s.headers["if-range"]) for s in server.seen] == [("bytes=300000-", '"a"')]
    assert left(tmp_path) == ["v.mp4"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"etag": '"a"'}, {"etag": '"b"'}),
        ({"modified": "Wed, 21 Oct 2015 07:28:00 GMT"}, {"modified": "Thu, 22 Oct 2015 07:28:00 GMT"}),
        ({"etag": 'W/"a"'}, {"etag": 'W/"b"'}),
        ({}, {}),  # only the length tells
    ],
)
def test_another_file_under_the_same_address_is_fetched_anew(before, after, server, tmp_path):
    server.answers["/v.mp4"] = File(CONTENT, cuts=[300_000, 0, 0, 0], **before)
    failure(server, tmp_path)
    changed = CONTENT[::-1] + (b"" if after else b"!")
    server.answers["/v.mp4"] = File(changed, **after)
    downloader().fetch(server.url + "/v.mp4", None, tmp_path / "v.mp4")
    assert (tmp_path / "v.mp4").read_bytes() == changed


def test_a_part_of_another_address_or_a_damaged_note_is_not_continued(server, tmp_path):
    for note in ('{"source": "http://elsewhere/v.mp4"}', "{", "[]", json.dumps({"source": server.url + "/v.mp4"})[:-4]):
        (tmp_path / "v.mp4.part").write_bytes(b"x" * 1000)
        (tmp_path / "v.mp4.part.json").write_text(note)
        server.answers["/v.mp4"] = File(CONTENT)
        downloader().fetch(server.url + "/v.mp4", None, tmp_path / "v.mp4")
        assert (tmp_path / "v.mp4").read_bytes() == CONTENT


def test_servers_that_hand_out_little_at_a_time_are_asked_on(server, tmp_path):
    """Label Studio, where it passes on what is in cloud storage, gives at most 8 MB to a request that is not the first,
    and ends the first after 20 s."""

    def capped(handler):
        start = int(handler.headers["Range"][6:-1])
        part = CONTENT[start : start + 200_000]
        where = f"bytes {start}-{start + len(part) - 1}/{len(CONTENT)}"
        handler.answer(206, {"Content-Range": where, "Content-Length": str(len(part))}, part)

    server.answers["/v.mp4"] = capped
    downloader().fetch(server.url + "/v.mp4", None, tmp_path / "v.mp4")
    assert (tmp_path / "v.mp4").read_bytes() == CONTENT
    assert len(server.seen) == 4


def test_servers_that_recover(server, tmp_path):
    server.answers["/v.mp4"] = File(CONTENT, statuses=[500, 503])
    downloader().fetch(server.url + "/v.mp4", None, tmp_path / "v.mp4")
    assert (tmp_path / "v.mp4").read_bytes() == CONTENT


def test_servers_that_do_not_recover(server, tmp_path):
    server.answers["/v.mp4"] = File(CONTENT, statuses=[503] * 9)
    assert "answered 503 (3 times in a row)" in failure(server, tmp_path)
    assert len(server.seen) == 3
    assert left(tmp_path) == []


def test_a_server_may_ask_for_a_pause(server, tmp_path):
    def busy(handler):
        server.answers["/v.mp4"] = File(CONTENT)
        handler.answer(503, {"Retry-After": "1"})

    server.answers["/v.mp4"] = busy
    began = time.monotonic()
    downloader().fetch(server.url + "/v.mp4", None, tmp_path / "v.mp4")
    assert time.monotonic() - began > 1


@pytest.mark.parametrize("status", [400, 403, 404, 410, 304])
def test_refusals_are_final(status, server, tmp_path):
    server.answers["/v.mp4"] = File(CONTENT, statuses=[status])
    assert f"answered {status}" in failure(server, tmp_path)
    assert len(server.seen) == 1


def test_nobody_there(server, tmp_path):
    with socket.socket() as bound:  # and never listening
        bound.bind(("127.0.0.1", 0))
        server.url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        assert "cannot be connected to (3 times" in failure(server, tmp_path)


LIES = {
    "more is announced than comes": lambda h: h.begin(200, {"Content-Length": "150"}) or h.raw(b"x" * 100),
    "a range, and more announced than comes": lambda h: h.answer(
        206, {"Content-Range": "bytes 0-99/100", "Content-Length": "100"}, b"x" * 60
    ),
    "range and length contradict each other": lambda h: h.answer(
        206, {"Content-Range": "bytes 0-99/100", "Content-Length": "50"}, b"x" * 50
    ),
    "more comes than the range says": lambda h: h.begin(206, {"Content-Range": "bytes 0-99/100"}) or h.raw(b"x" * 150),
    "a range beyond the whole": lambda h: h.answer(206, {"Content-Range": "bytes 0-99/10"}, b"x" * 100),
    "a range that begins elsewhere": lambda h: h.answer(206, {"Content-Range": "bytes 7-99/100"}, b"x" * 93),
    "a part without saying which": lambda h: h.answer(206, {}, b"x" * 60),
    "two lengths": lambda h: h.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 9\r\n\r\n123456789"),
    "a length that is no number": lambda h: h.raw(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n12345"),
    "an empty file": lambda h: h.answer(416, {"Content-Range": "bytes */0"}),
    "no such part of anything": lambda h: h.answer(416),
    "not HTTP": lambda h: h.raw(b"SSH-2.0-OpenSSH_9.0\r\n"),
    "nothing": lambda h: h.cut(),
    "broken chunks": lambda h: h.raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc"),
    "chunks without an end": lambda h: h.raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"),
    "endless headers": lambda h: h.raw(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 50_000),
    "packing that nobody knows": File(CONTENT, extra={"Content-Encoding": "br"}),
    "packed, but not really": File(CONTENT, extra={"Content-Encoding": "gzip"}),
    "packed and cut off": File(gzip.compress(CONTENT)[:-900], extra={"Content-Encoding": "gzip"}),
}


@pytest.mark.parametrize("lie", LIES)
def test_lies_end_in_an_error(lie, server, tmp_path):
    server.answers["/v.mp4"] = LIES[lie]
    text = failure(server, tmp_path)
    assert text.startswith(f"cannot download {server.url}/v.mp4: ")
    assert "Error" not in text
    assert len(server.seen) <= 4


def test_no_more_is_read_than_was_announced(server, tmp_path):
    """By HTTP, a body is as long as its Content-Length; what follows is not part of anything."""
    server.answers["/v.mp4"] = lambda h: h.answer(200, {"Content-Length": "100"}, b"x" * 150)
    downloader().fetch(server.url + "/v.mp4", None, tmp_path / "v.mp4")
    assert (tmp_path / "v.mp4").read_bytes() == b"x" * 100


@pytest.mark.parametrize("packed", [gzip.compress(CONTENT), zlib.compress(CONTENT)])
def test_packed_files_are_unpacked(packed, server, tmp_path):
    """The way out for storages that keep files packed; it was asked for as it is."""
    name = "gzip" if packed[:2] == b"\x1f\x8b" else "deflate"
    server.answers["/v.mp4"] = File(packed, cuts=[100_000], extra={"Content-Encoding": name})
    downloader().fetch(server.url + "/v.mp4", None, tmp_path / "v.mp4")
    assert (tmp_path / "v.mp4").read_bytes() == CONTENT
    assert {s.headers["accept-encoding"] for s in server.seen} == {"identity"}
    assert left(tmp_path) == ["v.mp4"]


def test_a_small_file_that_unpacks_to_a_huge_one(server, tmp_path):
    server.answers["/v.mp4"] = File(gzip.compress(bytes(30_000_000)), extra={"Content-Encoding": "gzip"})
    assert "larger than 1 MB once unpacked" in failure(server, tmp_path)
    assert left(tmp_path) == []


def endless(handler):
    handler.begin(200, {})
    while True:
        handler.wfile.write(b"x" * 65536)


def test_too_large_is_said_before_it_is_fetched(server, tmp_path):
    server.answers["/v.mp4"] = File(CONTENT)
    assert "larger than 0.5 MB (setting TAM_MAX_VIDEO_MB)" in failure(server, tmp_path, max_bytes=500_000)
    assert left(tmp_path) == []


def test_endless_files_end_at_the_limit(server, tmp_path):
    server.answers["/v.mp4"] = endless
    assert "larger than 1 MB" in failure(server, tmp_path)
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    "drip",
    [
        pytest.param(lambda h: b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000, id="headers"),
        pytest.param(lambda h: b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n" + b"x" * 999, id="body"),
        pytest.param(
            lambda h: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"x" * 999, id="between chunks"
        ),
    ],
)
def test_slow_servers_are_given_up(drip, server, tmp_path):
    def slowly(handler):
        for byte in drip(handler):
            handler.wfile.write(bytes([byte]))
            handler.wfile.flush()
            time.sleep(0.01)

    server.answers["/v.mp4"] = slowly
    began = time.monotonic()
    text = failure(server, tmp_path, attempts=2)
    assert "stopped sending (2 times" in text or "slower than 1 KB a second" in text
    assert time.monotonic() - began < 4


def test_slow_but_steady_is_fine(server, tmp_path):
    server.answers["/v.mp4"] = File(CONTENT[:40_000], pause=0.05, piece=2000)  # 40 KB a second
    downloader(bytes_per_second=10_000).fetch(server.url + "/v.mp4", None, tmp_path / "v.mp4")
    assert (tmp_path / "v.mp4").stat().st_size == 40_000


def test_an_answer_may_begin_late(server, tmp_path):
    """Label Studio reads the whole of an upload before it sends the first byte."""

    def late(handler):
        time.sleep(0.9)
        File(CONTENT)(handler)

    server.answers["/v.mp4"] = late
    downloader(window=0.2, headers_seconds=5).fetch(server.url + "/v.mp4", None, tmp_path / "v.mp4")
    assert len(server.seen) == 1


def test_a_download_has_an_end_in_time(server, tmp_path):
    server.answers["/v.mp4"] = File(CONTENT, pause=0.05, piece=10_000)
    began = time.monotonic()
    text = failure(server, tmp_path, seconds=0.6, bytes_per_second=1)
    assert "TAM_DOWNLOAD_MINUTES" in text
    assert "are kept" in text
    assert time.monotonic() - began < 2


def test_long_downloads_are_logged(server, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("tam_backend.labelstudio.fetching._LOG_SECONDS", 0.0)
    server.answers["/v.mp4"] = File(CONTENT)
    with caplog.at_level(logging.INFO):
        downloader().fetch(server.url + "/v.mp4?Signature=secret", None, tmp_path / "v.mp4")
    assert f"downloading {server.url}/v.mp4: 1 of 1 MB" in caplog.text
    assert "secret" not in caplog.text


# ---- the images of a task


def images(server: Server, tmp_path: Path, count: int, size: int = 1000) -> list[tuple[str, Path]]:
    for i in range(count):
        server.answers[f"/{i}.jpg"] = File(CONTENT[i : i + size])
    return [(f"{server.url}/{i}.jpg", tmp_path / f"{i:05d}" / f"{i}.jpg") for i in range(count)]


def test_images_are_fetched_side_by_side_over_few_connections(server, tmp_path):
    files = images(server, tmp_path, 60)
    for i in range(60):
        server.answers[f"/{i}.jpg"].pause = 0.05
    began = time.monotonic()
    downloader().fetch_images(files, None)
    assert time.monotonic() - began < 60 * 0.05
    assert all(path.read_bytes() == CONTENT[i : i + 1000] for i, (_, path) in enumerate(files))


def test_images_that_are_here_are_not_fetched_again(server, tmp_path):
    files = images(server, tmp_path, 8)
    downloader().fetch_images(files[:5], None)
    del server.seen[:]
    downloader().fetch_images(files, None)
    assert sorted(s.path for s in server.seen) == ["/5.jpg", "/6.jpg", "/7.jpg"]


def test_images_have_limits_each_and_together(server, tmp_path):
    files = images(server, tmp_path, 10)
    with pytest.raises(MediaError, match=r"larger than 0.0009 MB \(setting TAM_MAX_IMAGE_MB\)"):
        downloader(max_image_bytes=900).fetch_images(files, None)
    with pytest.raises(MediaError, match=r"all images of the task together are larger than 0\.0095 MB"):
        downloader(max_bytes=9500).fetch_images(files, None)
    with pytest.raises(MediaError, match=f"at most {MAX_IMAGES}"):
        downloader().fetch_images(files * 1001, None)
    downloader(max_bytes=10_000).fetch_images(files, None)


def test_one_missing_image_stops_the_others(server, tmp_path):
    files = images(server, tmp_path, 40)
    del server.answers["/3.jpg"]
    with pytest.raises(MediaError, match=r"cannot download http://127.0.0.1:\d+/3.jpg: .* answered 404"):
        downloader().fetch_images(files, None)
    assert len(server.seen) < 40


def test_images_are_checked_like_videos(server, other, tmp_path):
    """A task from elsewhere can list anything."""
    here = Connection(server.url, LEGACY)
    other.answers["/a.jpg"] = File(CONTENT[:9])
    server.answers["/data/a.jpg"] = File(CONTENT[:9])
    both = [(server.url + "/data/a.jpg", tmp_path / "0" / "a.jpg"), (other.url + "/a.jpg", tmp_path / "1" / "a.jpg")]
    with pytest.raises(MediaError, match=rf"127.0.0.1:{other.port} to TAM_MEDIA_HOSTS"):
        Downloader((), 10**6, patience=quick()).fetch_images(both, here)
    assert other.seen == []
    Downloader((f"127.0.0.1:{other.port}",), 10**6, patience=quick()).fetch_images(both, here)
    assert server.tokens[-1] == f"Token {LEGACY}"
    assert [s.path for s in other.seen] == ["/a.jpg"]
