"""Videos by id: one download each, into a cache that stays within its bound and takes nothing from under a reader."""

import gc
import os
import shutil
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from tam_backend.errors import MediaError
from tam_backend.labelstudio.connections import Connection, Connections
from tam_backend.labelstudio.fetching import Patience
from tam_backend.labelstudio.library import Source, VideoLibrary
from tam_backend.labelstudio.media import Downloader, absolute_url
from tam_backend.settings import Settings
from tests.fakes import make_video
from tests.labelstudio.hostile import File, Server

LEGACY = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return make_video(tmp_path_factory.mktemp("video") / "a.mp4").read_bytes()


class Shelf:
    """A library whose Label Studio is ``server``; ``room`` videos of this size fit."""

    def __init__(self, root: Path, server: Server, content: bytes, room: float = 1000) -> None:
        self.root, self.server, self.content = root, server, content
        connections = Connections(Settings())
        connections.remember(server.url, LEGACY)
        self.connection = connections.current()
        downloader = Downloader((), 10**9, patience=Patience(seconds=20, attempts=2, pause=0))
        self.library = VideoLibrary(root, downloader, connections, cache_bytes=int(room * len(content)))

    def add(self, name: str) -> str:
        self.server.answers[f"/data/{name}"] = File(self.content)
        return self.library.register("video", [absolute_url(f"/data/{name}", self.connection)], self.connection)

    def fetched(self) -> list[str]:
        names = [s.path.rpartition("/")[2] for s in self.server.seen]
        del self.server.seen[:]
        return names

    def on_disk(self) -> set[str]:
        return {p.name for p in self.root.glob("*/media/*/*")}


@pytest.fixture
def shelf(tmp_path, server, content) -> Shelf:
    return Shelf(tmp_path, server, content, room=2.5)


def test_ids_of_sources_stay():
    """They are in the frame URLs of tasks."""
    assert Source("video", ("http://ls/data/a.mp4",), "http://ls").id == "f33bb52371fa02c25c9ae99185705490"


def test_a_second_reader_needs_no_second_download(shelf):
    video = shelf.add("a.mp4")
    readers = [shelf.library.open(video), shelf.library.open(video), shelf.library.shared(video)]
    assert [len(r) for r in readers] == [12] * 3
    assert shelf.fetched() == ["a.mp4"]
    assert len(Shelf(shelf.root, shelf.server, shelf.content).library.open(video)) == 12  # after a restart
    assert shelf.fetched() == []


def test_callers_of_one_video_wait_for_one_download(shelf):
    video, lengths = shelf.add("a.mp4"), []
    shelf.server.answers["/data/a.mp4"].pause = 0.2
    threads = [threading.Thread(target=lambda: lengths.append(len(shelf.library.open(video)))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lengths == [12] * 6
    assert shelf.fetched() == ["a.mp4"]


def test_another_process_waits_for_the_download_too(shelf):
    video = shelf.add("a.mp4")
    shelf.server.answers["/data/a.mp4"].pause = 0.5
    thread = threading.Thread(target=shelf.library.open, args=(video,))
    thread.start()
    time.sleep(0.2)
    assert len(Shelf(shelf.root, shelf.server, shelf.content).library.open(video)) == 12  # locks as another process
    thread.join()
    assert shelf.fetched() == ["a.mp4"]


def test_the_video_not_used_for_longest_is_dropped_and_fetched_again(shelf):
    a, b, c = (shelf.add(f"{n}.mp4") for n in "abc")
    shelf.library.open(a)
    shelf.library.open(b)
    os.utime(shelf.root / a / "media", (1, 1))
    os.utime(shelf.root / b / "media", (2, 2))
    shelf.library.shared(a)
    shelf.library.open(c)
    assert shelf.on_disk() == {"a.mp4", "c.mp4"}
    shelf.fetched()
    assert len(shelf.library.open(b)) == 12
    assert shelf.fetched() == ["b.mp4"]
    assert len(shelf.on_disk()) == 2


def test_a_video_that_is_read_is_not_dropped(shelf, caplog):
    a, b, c, d = (shelf.add(f"{n}.mp4") for n in "abcd")
    first, second = shelf.library.open(a), shelf.library.shared(b)
    shelf.library.open(c)
    assert shelf.on_disk() == {"a.mp4", "b.mp4", "c.mp4"}
    assert "more than TAM_MEDIA_CACHE_MB allows" in caplog.text
    assert [first[11].shape, second[11].shape] == [(48, 64, 3)] * 2
    first.close()
    del first
    gc.collect()
    shelf.library.open(d)
    assert "a.mp4" not in shelf.on_disk()
    assert "b.mp4" in shelf.on_disk()


def test_a_video_that_another_process_reads_is_not_dropped(shelf):
    a, b, c = (shelf.add(f"{n}.mp4") for n in "abc")
    shelf.library.open(a)
    shelf.library.open(b)
    script = f"""
        import fcntl, sys
        lock = open({str(shelf.root / a / "in-use")!r})
        fcntl.flock(lock, fcntl.LOCK_SH)
        print("held", flush=True)
        sys.stdin.read()
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        shelf.library.open(c)
        assert shelf.on_disk() == {"a.mp4", "c.mp4"}
        process.stdin.close()


def test_a_video_that_is_being_fetched_is_not_dropped(shelf):
    a, b, c = (shelf.add(f"{n}.mp4") for n in "abc")
    shelf.server.answers["/data/a.mp4"].pause = 0.1
    shelf.server.answers["/data/a.mp4"].piece = len(shelf.content) // 6
    lengths = []
    thread = threading.Thread(target=lambda: lengths.append(len(shelf.library.open(a))))
    thread.start()
    time.sleep(0.2)
    shelf.library.open(b)
    shelf.library.open(c)
    thread.join()
    assert lengths == [12]
    assert sorted(shelf.fetched()) == ["a.mp4", "b.mp4", "c.mp4"]


def test_a_full_disk_is_said_and_videos_make_room(shelf, monkeypatch):
    a, b = shelf.add("a.mp4"), shelf.add("b.mp4")
    shelf.library.open(a)
    usage = shutil.disk_usage("/")

    def tight(path):
        taken = len(shelf.content) if "a.mp4" in shelf.on_disk() else 0
        return usage._replace(free=(200 << 20) + len(shelf.content) + 10 - taken)

    monkeypatch.setattr(shutil, "disk_usage", tight)
    shelf.library.open(b)
    assert shelf.on_disk() == {"b.mp4"}
    monkeypatch.setattr("tam_backend.labelstudio.library.RETRY_SECONDS", 0.0)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100 << 20))
    with pytest.raises(MediaError, match="only 100 MB of disk space are left"):
        shelf.library.open(a)


def test_images_of_a_task_from_elsewhere(shelf):
    pictures = [cv2.imencode(".png", np.full((8, 10, 3), 20 * i, np.uint8))[1].tobytes() for i in range(7)]
    for i, picture in enumerate(pictures):
        shelf.server.answers[f"/data/{i}.png"] = File(picture)
    urls = [absolute_url(f"/data/{i}.png", shelf.connection) for i in range(7)]
    reader = shelf.library.open(shelf.library.register("images", urls, shelf.connection))
    assert [int(frame[0, 0, 0]) for frame in reader] == [20 * i for i in range(7)]
    assert sorted(shelf.fetched()) == [f"{i}.png" for i in range(7)]


def test_a_failure_is_told_to_all_for_a_while_and_then_tried_again(shelf, monkeypatch):
    video = shelf.add("a.mp4")
    shelf.server.answers["/data/a.mp4"].statuses = [404]
    for _ in range(3):
        with pytest.raises(MediaError, match="answered 404"):
            shelf.library.open(video)
    assert shelf.fetched() == ["a.mp4"]
    monkeypatch.setattr("tam_backend.labelstudio.library.RETRY_SECONDS", 0.0)
    assert len(shelf.library.open(video)) == 12


def test_what_is_no_video_is_fetched_again_unless_it_cannot_change(shelf, server, monkeypatch):
    """A server may answer 200 with an error page, once."""
    monkeypatch.setattr("tam_backend.labelstudio.library.RETRY_SECONDS", 0.0)
    video = shelf.add("a.mp4")
    server.answers["/data/a.mp4"] = server.answers["/data/upload/1/b.mp4"] = File(b"<html>come back later</html>")
    upload = shelf.library.register("video", [server.url + "/data/upload/1/b.mp4"], shelf.connection)
    for broken in (video, upload):
        with pytest.raises(MediaError, match="not a video"):
            shelf.library.open(broken)
    server.answers["/data/a.mp4"] = File(shelf.content)
    assert len(shelf.library.open(video)) == 12
    with pytest.raises(MediaError, match="not a video"):
        shelf.library.open(upload)
    assert shelf.fetched() == ["a.mp4", "b.mp4", "a.mp4"]


def test_a_label_studio_that_has_not_connected_again_is_said(shelf, server):
    """After a restart, when a page that is still open asks for frames."""
    video = shelf.add("a.mp4")
    for url, match in (
        ("", "has not connected since"),
        ("http://ls:8080", r"works for http://ls:8080.*clear the task"),
    ):
        connections = Connections(Settings(label_studio_url=url))
        again = VideoLibrary(shelf.root, Downloader((), 10**9), connections)
        with pytest.raises(MediaError, match=match):
            again.open(video)
    assert server.seen == []


def test_files_keep_their_names(shelf, server):
    here = Connection(server.url, LEGACY)
    server.answers["/projects/5/presign/"] = server.answers["/data/local-files/"] = File(shelf.content)
    for address in ("s3://bucket/films/my film.mp4", "/data/local-files/?d=films/my film.mp4"):
        video = shelf.library.register("video", [absolute_url(address, here, 5)], here)
        shelf.library.open(video)
        assert [p.name for p in shelf.root.glob(f"{video}/media/*/*")] == ["my_film.mp4"]
