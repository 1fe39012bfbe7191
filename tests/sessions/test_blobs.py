import sqlite3
import time

import pytest

from tam_backend.sessions.blobs import DiskStore, LayeredStore
from tam_backend.sessions.database import Database
from tam_backend.tracking.store import MemoryStore


@pytest.fixture
def db(tmp_path):
    database = Database(tmp_path / "state.sqlite3")
    yield database
    database.close()


def test_what_was_put_is_there_after_a_restart(tmp_path):
    db = Database(tmp_path / "state.sqlite3")
    store = DiskStore(db, 1000)
    assert store.get("a") is None
    store.put("a", b"one")
    store.put("a", b"other")
    assert store.nbytes == 5
    db.close()
    db = Database(tmp_path / "state.sqlite3")
    store = DiskStore(db, 1000)
    assert store.get("a") == b"other"
    assert store.nbytes == 5
    db.close()


def test_space_is_bounded_and_the_unused_go_first(db, monkeypatch):
    now = [1_000_000.0]
    monkeypatch.setattr("tam_backend.sessions.blobs.time.time", lambda: now[0])
    store = DiskStore(db, 1000)
    for i in range(10):
        now[0] += 7200
        store.put(f"track/{i}", bytes(100))
    now[0] += 7200
    assert store.get("track/0") is not None  # used just now
    now[0] += 7200
    store.put("track/new", bytes(100))
    assert store.nbytes <= 1000
    assert store.get("track/0") is not None
    assert store.get("track/new") is not None
    assert store.get("track/1") is None
    assert store.get("track/9") is not None


def test_what_people_saw_is_never_dropped(db):
    store = DiskStore(db, 1000)
    store.put("seen/x", bytes(900))
    for i in range(20):
        store.put(f"track/{i}", bytes(100))
    assert store.get("seen/x") == bytes(900)


def test_memory_answers_and_disk_remembers(db):
    disk = DiskStore(db, 10_000)
    LayeredStore(MemoryStore(10_000), disk).put("a", b"x")
    assert disk.get("a") == b"x"
    memory = MemoryStore(10_000)
    store = LayeredStore(memory, disk)
    assert store.get("a") == b"x"
    assert memory.get("a") == b"x"
    assert store.get("b") is None


def test_what_the_disk_could_not_take_is_written_later(db, monkeypatch):
    monkeypatch.setattr("tam_backend.sessions.blobs._AGAIN_SECONDS", 0.02)
    disk = DiskStore(db, 10_000)
    put, full = disk.put, [True]

    def failing(key, blob):
        if full[0]:
            raise sqlite3.OperationalError("database or disk is full")
        put(key, blob)

    monkeypatch.setattr(disk, "put", failing)
    store = LayeredStore(MemoryStore(10_000), disk)
    for i in range(3):
        store.put(f"track/v/{i}", b"x")
    time.sleep(0.1)
    assert disk.get("track/v/0") is None
    full[0] = False
    deadline = time.monotonic() + 5
    while any(disk.get(f"track/v/{i}") is None for i in range(3)):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_clock_that_was_ahead_does_not_keep_what_is_old(db, monkeypatch):
    now = time.time()
    monkeypatch.setattr("tam_backend.sessions.blobs.time.time", lambda: now + 86400)
    DiskStore(db, 1000).put("track/v/old", bytes(600))
    monkeypatch.setattr("tam_backend.sessions.blobs.time.time", lambda: now)
    store = DiskStore(db, 1000)
    monkeypatch.setattr("tam_backend.sessions.blobs.time.time", lambda: now + 60)
    store.put("track/v/new", bytes(600))
    assert store.get("track/v/new") is not None
    assert store.get("track/v/old") is None


def test_a_full_disk_does_not_stop_the_work(caplog):
    class Full:
        def get(self, key):
            raise sqlite3.OperationalError("disk I/O error")

        def put(self, key, blob):
            raise sqlite3.OperationalError("database or disk is full")

    store = LayeredStore(MemoryStore(10_000), Full())
    for i in range(3):
        store.put(f"a{i}", b"x")
    assert store.get("a0") == b"x"
    assert caplog.text.count("database or disk is full") == 1
    assert store.get("elsewhere") is None
