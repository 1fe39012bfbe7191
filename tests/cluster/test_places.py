"""Folders that several machines reach, and the store of unfinished work in them."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

from tam_backend.cluster import segments
from tam_backend.cluster.places import Place, local_copy
from tam_backend.cluster.segments import SegmentStore, pack_segment, unpack_segment
from tam_backend.errors import BadInput, MediaError


@pytest.fixture(params=["disk", "bucket"])
def place(request, tmp_path: Path) -> Place:
    """A folder on a disk, and one in what stands for a bucket: fsspec's file system in memory."""
    if request.param == "disk":
        return Place(str(tmp_path / "place"))
    memory = fsspec.filesystem("memory")
    if memory.exists("/place"):
        memory.rm("/place", recursive=True)
    return Place("memory://place")


def test_files_come_and_go(place):
    assert place.read("a/b") is None
    assert place.names("a") == []
    place.write("a/b", b"one")
    place.write("a/b", b"two")
    place.write("a/c", b"three")
    assert place.read("a/b") == b"two"
    assert place.names("a") == ["a/b", "a/c"]
    assert place.names("") == ["a"]
    place.remove("a")
    place.remove("a")
    assert place.names("a") == []


def test_a_folder_replaces_the_one_before(place, tmp_path):
    for name in ("x", "y"):
        source = tmp_path / name
        (source / "deep").mkdir(parents=True)
        (source / "deep" / name).write_text(name)
        place.put_folder("masks", source)
    if place.folder is None:
        (tmp_path / "got.zip").write_bytes(place.read("masks.zip"))
        import zipfile

        assert zipfile.ZipFile(tmp_path / "got.zip").namelist() == ["deep/y"]
    else:
        assert [p.name for p in (place.folder / "masks").rglob("*")] == ["deep", "y"]
        assert [p.name for p in place.folder.iterdir()] == ["masks"], "something is left over"


def test_addresses_that_cannot_be_used_say_why(tmp_path):
    with pytest.raises(BadInput, match="nosuch://a"):
        Place("nosuch://a")
    with pytest.raises(BadInput, match="s3fs"):
        Place("s3://bucket/folder")
    with pytest.raises(BadInput, match="s3fs"):
        local_copy("s3://bucket/a.mp4", tmp_path)
    with pytest.raises(MediaError, match="there is no file"):
        local_copy(str(tmp_path / "none.mp4"), tmp_path)
    with pytest.raises(MediaError, match=r"there is no file memory://none\.mp4"):
        local_copy("memory://none.mp4", tmp_path)


def test_a_video_in_a_bucket_is_copied_and_one_on_a_disk_is_not(tmp_path):
    fsspec.filesystem("memory").pipe_file("/films/a.mp4", b"film")
    copy = local_copy("memory://films/a.mp4", tmp_path / "in")
    assert (copy.name, copy.read_bytes()) == ("a.mp4", b"film")
    assert local_copy(str(copy), tmp_path / "elsewhere") == copy


def test_who_takes_work_over_finds_what_was_finished(place, tmp_path, monkeypatch):
    monkeypatch.setattr(segments, "SEGMENT_SECONDS", 0.0)
    first = SegmentStore(place, "work/a", tmp_path / "1")
    first.put("frame/0", b"zero")
    first.put("state", b"old")
    monkeypatch.setattr(segments, "SEGMENT_SECONDS", 1e9)
    first.put("state", b"new")
    first.put("frame/1", b"one")
    first.flush()
    first.put("frame/2", b"lost with its machine")
    assert first.get("frame/2") == b"lost with its machine"
    second = SegmentStore(place, "work/a", tmp_path / "2")
    assert [second.get(k) for k in ("frame/0", "frame/1", "frame/2", "state")] == [b"zero", b"one", None, b"new"]
    assert SegmentStore(place, "work/b", tmp_path / "3").get("frame/0") is None
    second.drop()
    assert SegmentStore(place, "work/a", tmp_path / "4").get("frame/0") is None


def test_much_at_once_does_not_wait(place, tmp_path, monkeypatch):
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 1000)
    store = SegmentStore(place, "work/a", tmp_path / "1")
    for i in range(30):
        store.put(f"k{i}", b"x" * 100)
    assert len(place.names("work/a")) == 3


def test_without_a_place_nothing_is_kept_for_others(tmp_path):
    store = SegmentStore(None, "work/a", tmp_path / "1")
    store.put("k", b"v")
    store.flush()
    assert store.get("k") == b"v"
    store.drop()


def test_a_damaged_segment_counts_as_lost():
    whole = pack_segment({"a": b"1", "b": b"22"})
    assert unpack_segment(whole) == {"a": b"1", "b": b"22"}
    for damaged in (whole[:-1], whole + b"x", b"", b"\x00", whole[:5], b"\xff" * 30):
        assert unpack_segment(damaged) == {}
