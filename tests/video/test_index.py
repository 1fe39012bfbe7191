"""When packets are believed, where decoding starts, and what is kept on disk."""

from __future__ import annotations

import os
import shutil
import time

import numpy as np
import pytest

from tam_backend.video import open_video
from tam_backend.video.cache import content_key, load_index, save_index
from tam_backend.video.container import Limits
from tam_backend.video.index import NONE, starts
from tam_backend.video.scan import build_index
from tests.video.conftest import KINDS, x264
from tests.video.make import make_video, number_of, packets_of, sequential, set_composition_offset


@pytest.mark.parametrize("name", KINDS)
def test_only_files_that_could_lie_are_decoded_for_their_index(video, name):
    assert build_index(video(name), Limits()).verified == KINDS[name].decoded


def test_pictures_that_are_not_shown_are_no_frames(tmp_path):
    """Behind the frames that are decoded as a check."""
    path = make_video(tmp_path / "a.webm", 60, codec="libvpx", options={"g": "24"})
    data = bytearray(path.read_bytes())
    for position, _ in packets_of(path)[40:43]:
        assert data[position] & 0x10
        data[position] &= ~0x10 & 0xFF  # VP8's show_frame bit
    path.write_bytes(data)
    shown = [*range(40), *range(43, 60)]
    expected = sequential(path)
    assert [number_of(frame) for frame in expected] == shown
    with open_video(path) as reader:
        assert [number_of(frame) for frame in reader] == shown
        assert reader.time(40) == pytest.approx(43 / 25)
        np.testing.assert_array_equal(reader.clone()[50], expected[50])


B_FRAMES = x264("keyint=48:bframes=2:b-adapt=0:scenecut=0")


@pytest.mark.parametrize(
    ("plain", "middle"),
    [
        pytest.param(0, None, id="no offsets"),
        pytest.param(40, None, id="no offsets, and B-frames only far behind"),
        pytest.param(0, 1024 + 5 * 512 + 256, id="wrong offsets"),
    ],
)
def test_timestamps_that_contradict_the_order_of_the_pictures_are_not_believed(tmp_path, plain, middle):
    """B-frames in a file whose composition offsets were lost (pts = dts) or garbled, as careless remuxing does."""
    path = make_video(tmp_path / "a.mp4", options=B_FRAMES, plain=plain)
    set_composition_offset(path, 1024, middle)
    with open_video(path) as reader:
        assert [number_of(frame) for frame in reader] == list(range(48))
        assert number_of(reader.clone()[44]) == 44
        times = [reader.time(i) for i in range(48)]
    assert times == sorted(times)
    np.testing.assert_allclose(times[:20], np.arange(20) / 25, atol=1e-9)


def test_timestamps_are_not_invented(video):
    index = build_index(video("avi without timestamps"), Limits())
    assert (index.pts == NONE).all()
    np.testing.assert_allclose(index.times, np.arange(48) / 25)


def test_times_are_those_of_the_file_not_of_a_rate(video):
    stamps = KINDS["variable rate"].arguments["stamps"]
    with open_video(video("variable rate")) as reader:
        times = [reader.time(i) for i in range(len(reader))]
        assert reader.fps == pytest.approx(47 / (stamps[-1] / 1000), rel=1e-3)
    np.testing.assert_allclose(times, np.array(stamps) / 1000, atol=1e-3)


def test_times_count_from_the_first_frame(video):
    for name in ("start offset", "start offset in mkv", "edit list"):
        with open_video(video(name)) as reader:
            assert [reader.time(i) for i in (0, 1, 10)] == pytest.approx([0, 0.04, 0.4], abs=1e-3)
            assert reader.fps == pytest.approx(25)


def test_a_frame_starts_at_the_last_entry_before_it_in_the_file_and_on_the_screen():
    # Packet 3 is a key frame shown at place 4; packet 4 follows it in the file and leads it on the screen, at place 3.
    packet = np.array([0, 2, 1, 4, 3, 5, 6])
    entries = np.array([0, 3, 6])
    assert starts(packet, entries).tolist() == [0, 0, 0, 0, 3, 3, 6]
    # A picture shown behind the key frame but stored in front of it does not start there.
    assert starts(np.array([0, 2, 1]), np.array([0, 2])).tolist() == [0, 2, 0]
    # A packet that shows nothing is no entry.
    assert starts(np.array([0, 2]), np.array([1])).tolist() == [0, 0]


def test_the_key_is_of_the_content(video, tmp_path):
    path = video("closed groups")
    copy = shutil.copy(path, tmp_path / "renamed.mp4")
    with open_video(path) as reader, open_video(copy) as other, open_video(video("open groups")) as different:
        assert reader.key == other.key == reader.clone().key
        assert reader.key != different.key
        assert reader.key == content_key([path], None)


def test_the_key_of_a_changed_file_is_computed_again(tmp_path):
    path, cache = tmp_path / "a.bin", tmp_path / "cache"
    path.write_bytes(b"one")
    past = time.time() - 60
    os.utime(path, (past, past))
    first = content_key([path], cache)
    path.write_bytes(b"two")
    os.utime(path, (past, past))  # same size, same modification time
    assert content_key([path], cache) != first
    assert content_key([path], cache) == content_key([path], None)


def test_a_settled_file_is_hashed_once(tmp_path, monkeypatch):
    path, cache = tmp_path / "a.bin", tmp_path / "cache"
    path.write_bytes(b"one")
    monkeypatch.setattr("tam_backend.video.cache._SETTLED_SECONDS", -1.0)
    first = content_key([path], cache)
    monkeypatch.setattr("tam_backend.video.cache._hash_files", lambda paths: pytest.fail("hashed again"))
    assert content_key([path], cache) == first


def test_the_index_is_kept_on_disk(video, tmp_path, monkeypatch):
    path = video("mpeg4 in avi")
    with open_video(path, cache_dir=tmp_path) as reader:
        expected = [number_of(frame) for frame in reader]
        key, warning = reader.key, reader.warning
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == [f"{key}.index.npz"]
    monkeypatch.setattr("tam_backend.video.reader.build_index", lambda *a, **k: pytest.fail("indexed again"))
    with open_video(path, cache_dir=tmp_path) as reader:
        assert [number_of(frame) for frame in reader] == expected
        assert (reader.key, reader.warning) == (key, warning)
        assert number_of(reader.clone()[40]) == 40


@pytest.mark.parametrize("damage", ["empty", "cut", "garbage", "flipped", "other arrays", "other version"])
def test_a_damaged_index_on_disk_is_made_anew(video, tmp_path, damage, monkeypatch):
    path = video("closed groups")
    with open_video(path, cache_dir=tmp_path) as reader:
        key = reader.key
    stored = tmp_path / f"{key}.index.npz"
    good = stored.read_bytes()
    if damage == "other arrays":
        index = load_index(tmp_path, key)
        object.__setattr__(index, "start", index.start + 1000)
        save_index(tmp_path, key, index)
    elif damage == "other version":
        monkeypatch.setattr("tam_backend.video.cache._VERSION", -1)
    else:
        middle = len(good) // 2
        flipped = good[:middle] + bytes([good[middle] ^ 0xFF]) + good[middle + 1 :]
        bad = {"empty": b"", "cut": good[:middle], "garbage": b"garbage" * 100, "flipped": flipped}[damage]
        stored.write_bytes(bad)
    assert load_index(tmp_path, key) is None
    with open_video(path, cache_dir=tmp_path) as reader:
        assert [number_of(frame) for frame in reader] == list(range(48))
    assert load_index(tmp_path, key) is not None


def test_a_believed_index_on_disk_does_not_serve_for_a_verified_one(video, tmp_path):
    path = video("closed groups")
    key = open_video(path, cache_dir=tmp_path).key
    assert not load_index(tmp_path, key).verified
    open_video(path, cache_dir=tmp_path, verify=True)
    assert load_index(tmp_path, key).verified


def test_a_cache_folder_that_cannot_be_written_costs_nothing_but_time(video, tmp_path, caplog):
    folder = tmp_path / "a file"
    folder.write_bytes(b"")
    with open_video(video("closed groups"), cache_dir=folder) as reader:
        assert number_of(reader[7]) == 7
    assert "cannot write" in caplog.text
