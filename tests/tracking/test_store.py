"""Stores: bounds, what survives, and that what comes out is what went in."""

from __future__ import annotations

import os
import struct
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tam_backend.propagators.base import Propagated
from tam_backend.tracking.filestore import FileStore, write_atomically
from tam_backend.tracking.store import MemoryStore, pack_frame, pack_state, unpack_frame, unpack_state
from tests.tracking.fakes import relaxed

OVERHEAD = MemoryStore.OVERHEAD

operations = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from("abcdef"), st.binary(max_size=900)),
        st.tuples(st.just("get"), st.sampled_from("abcdef"), st.none()),
    ),
    max_size=40,
)


@relaxed
@given(operations, st.integers(0, 5000))
def test_memory_stays_within_its_bound_and_keeps_what_was_used_last(operations, max_bytes):
    store = MemoryStore(max_bytes)
    model: dict[str, bytes] = {}  # in the order of last use
    for operation, key, blob in operations:
        if operation == "put":
            model.pop(key, None)
            if len(blob) + OVERHEAD <= max_bytes:
                model[key] = blob
            while sum(len(b) + OVERHEAD for b in model.values()) > max_bytes:
                del model[next(iter(model))]
            store.put(key, blob)
        else:
            assert store.get(key) == model.get(key)
            if key in model:
                model[key] = model.pop(key)
        assert store.nbytes == sum(len(b) + OVERHEAD for b in model.values()) <= max_bytes
    assert {k: b for k in "abcdef" if (b := store.get(k)) is not None} == model


def test_a_blob_too_large_to_keep_costs_no_other_its_place():
    store = MemoryStore(1000)
    store.put("small", b"s")
    store.put("large", bytes(1001))
    assert store.get("small") == b"s"
    assert store.get("large") is None


def test_memory_from_many_threads():
    store = MemoryStore(20 * (OVERHEAD + 100))

    def work(seed: int) -> None:
        for i in range(300):
            key = str((seed * i) % 50)
            store.put(key, key.encode() * 10)
            assert store.get(key) in (None, key.encode() * 10)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (1, 3, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kept = [b for i in range(50) if (b := store.get(str(i))) is not None]
    assert store.nbytes == sum(len(b) + OVERHEAD for b in kept) <= 20 * (OVERHEAD + 100)


@relaxed
@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=20)), st.floats(0, 1))
def test_frames_come_back(soft, quality):
    back = unpack_frame(pack_frame(Propagated(soft=soft, quality=quality)))
    assert back.quality == quality
    assert back.soft.dtype == np.uint8
    assert np.array_equal(back.soft, soft)


def test_frames_that_are_not_contiguous_come_back():
    soft = np.arange(24, dtype=np.uint8).reshape(4, 6)[::2, ::-1]
    assert np.array_equal(unpack_frame(pack_frame(Propagated(soft=soft, quality=0.5))).soft, soft)


def test_frames_stored_whole_by_older_versions_come_back():
    soft = np.arange(12, dtype=np.uint8).reshape(3, 4)
    blob = struct.pack("<dII", 0.25, 3, 4) + zlib.compress(soft.tobytes(), 1)
    back = unpack_frame(blob)
    assert back.quality == 0.25
    assert np.array_equal(back.soft, soft)


def test_an_empty_margin_costs_nothing():
    small, large = np.zeros((20, 20), np.uint8), np.zeros((2000, 3000), np.uint8)
    small[5:15, 5:15] = large[1000:1010, 700:710] = np.arange(100).reshape(10, 10)
    packed = [pack_frame(Propagated(soft=soft, quality=0.5)) for soft in (small, large)]
    assert len(packed[0]) == len(packed[1])
    assert np.array_equal(unpack_frame(packed[1]).soft, large)


def test_states_come_back():
    state = {
        "mask": np.eye(3, dtype=bool),
        "frame": np.float32(2.5),  # a name that the packing uses itself
        "empty": np.zeros((0, 4), np.int16),
    }
    frame, back = unpack_state(pack_state(123456, state))
    assert frame == 123456
    assert back.keys() == state.keys()
    for name, array in state.items():
        assert back[name].dtype == array.dtype
        assert np.array_equal(back[name], array)


# ---- files


def test_files_outlive_the_store(tmp_path: Path):
    FileStore(tmp_path / "deep" / "store").put("track/a/0", b"blob")
    store = FileStore(tmp_path / "deep" / "store")
    assert store.get("track/a/0") == b"blob"
    assert store.get("track/a/1") is None
    store.put("track/a/0", b"another")
    assert store.get("track/a/0") == b"another"


@pytest.mark.parametrize("damage", [b"", b"short", lambda c: c[:-1], lambda c: c[:20] + b"?" + c[21:]])
def test_a_damaged_file_counts_as_lost(tmp_path: Path, damage):
    store = FileStore(tmp_path)
    store.put("key", b"a blob that is long enough")
    [file] = [p for p in tmp_path.rglob("*") if p.is_file()]
    file.write_bytes(damage(file.read_bytes()) if callable(damage) else damage)
    assert store.get("key") is None
    store.put("key", b"new")
    assert store.get("key") == b"new"


def test_trimming_drops_what_was_unused_for_longest(tmp_path: Path):
    store = FileStore(tmp_path)
    for key in "abcd":
        store.put(key, bytes(84))  # 100 bytes each with the digest
    for age, path in enumerate(sorted(p for p in tmp_path.rglob("*") if p.is_file())):
        os.utime(path, (1000 - age, 1000 - age))
    store.get("b")
    store.trim(400)
    assert all(store.get(k) for k in "abcd")
    for path in (p for p in tmp_path.rglob("*") if p.is_file()):
        os.utime(path, (1000, 1000))
    store.get("b")
    store.get("d")
    store.trim(299)
    assert [k for k in "abcd" if store.get(k)] == ["b", "d"]
    store.trim(0)
    assert not any(store.get(k) for k in "abcd")


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    with pytest.raises(TypeError):
        write_atomically(path, "not bytes")  # type: ignore[arg-type]
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    with pytest.raises(OSError, match="folder"):
        write_atomically(tmp_path / "folder", b"new")
    assert path.read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


def test_large_states_are_stored_as_they_are_and_come_back_bit_for_bit():
    values = np.random.default_rng(0).standard_normal(1_500_000).astype(np.float32)
    values[:3] = (-0.0, np.inf, np.nan)
    blob = pack_state(7, {"values": values, "flags": np.array([True, False])})
    assert len(blob) < values.nbytes + 2000
    frame, state = unpack_state(blob)
    assert frame == 7
    assert state["values"].tobytes() == values.tobytes()
    assert state["flags"].tolist() == [True, False]
    small = pack_state(7, {"values": np.zeros(10_000, np.float32)})
    assert len(small) < 1000, "deflated"
