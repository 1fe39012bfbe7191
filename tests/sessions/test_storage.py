"""What may be dropped, and what never is."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from tam_backend.errors import TamError
from tam_backend.sessions.blobs import DiskStore
from tam_backend.sessions.database import FILE, Database
from tam_backend.sessions.delivered import DeliveryLog
from tam_backend.sessions.owner import LOCK, own
from tam_backend.sessions.progress import JobState
from tam_backend.sessions.seen import SeenMasks
from tam_backend.sessions.storage import Storage, Wish, days_ago
from tam_backend.sessions.tracks import Track, TrackTable, Work
from tam_backend.tracking.tracker import Tracker
from tests.tracking.fakes import clicked, fake_engine, memory_video

URL = "http://ls"
FRAMES = 20
VIDEO = memory_video(FRAMES)
ENGINE = fake_engine()


class Kept(DiskStore):
    """A store that knows what was asked of it."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, 10**9)
        self.computed: list[str] = []

    def put(self, key: str, blob: bytes) -> None:
        self.computed.append(key)
        super().put(key, blob)


class Folder:
    """A database with tracked objects."""

    def __init__(self, root) -> None:
        self.database = Database(root / FILE)
        self.tracks = TrackTable(self.database)
        self.store = Kept(self.database)
        self.storage = Storage(self.database, f"{ENGINE.name}-{ENGINE.version}")

    def track(self, task: int, x: float, project: int = 1, **changes) -> Track:
        """Prompts on a task, tracked to the end."""
        anchors = {5: clicked(x), 15: clicked(x + 1)}
        track = Track(
            Work(URL, project, task), "mask", "Object", f"v{project}", range(FRAMES), 5, anchors,
            ({"id": f"p{task}"},), state=JobState.DONE, content=VIDEO.key,
        )  # fmt: skip
        track = self.tracks.insert(replace(track, **changes))
        assert self.compute(track)
        SeenMasks(self.store).set(track.work, f"p{task}", None)
        return track

    def compute(self, track: Track) -> int:
        """Track it again; how many blobs that took."""
        before = len(self.store.computed)
        with Tracker(ENGINE, VIDEO, range(FRAMES), self.store) as tracker:
            list(tracker.steps(track.anchors, 5))
            list(tracker.steps(track.anchors, 5, finish=True))
        return len([k for k in self.store.computed[before:] if "/state" not in k])

    def submit(self, track: Track) -> None:
        self.tracks.submitted(URL, track.work.task, track.ids)

    def age(self, days: float) -> None:
        self.database.run("UPDATE blobs SET used = ?", (days_ago(days),))


@pytest.fixture
def folder(tmp_path):
    folder = Folder(tmp_path)
    yield folder
    folder.database.close()


def test_old_masks_go_and_those_that_are_needed_stay(folder):
    submitted, open_one, unfinished = folder.track(1, 3.0), folder.track(2, 5.0), folder.track(3, 7.0)
    for track in (submitted, unfinished):
        folder.submit(track)
    folder.tracks.update(unfinished, state=JobState.WAITING)
    folder.age(10)
    assert folder.storage.prune(Wish(before=days_ago(11))).masks == 0
    would = folder.storage.prune(Wish(before=days_ago(9)), dry_run=True)
    assert folder.compute(submitted) == 0, "a dry run changes nothing"
    folder.age(10)
    done = folder.storage.prune(Wish(before=days_ago(9)))
    assert would == done
    assert done.mask_bytes > 0
    assert done.kept > done.masks > FRAMES
    assert folder.compute(open_one) == folder.compute(unfinished) == 0
    assert folder.compute(submitted) >= FRAMES
    assert SeenMasks(folder.store).get(submitted.work, "p1") == (True, None), "what a person saw cannot be made again"


def test_the_size_counts_and_what_is_unused_for_longest_goes_first(folder):
    first, second = folder.track(1, 3.0), folder.track(2, 5.0)
    needed = folder.track(3, 7.0)
    for track in (first, second):
        folder.submit(track)
    folder.age(10)
    folder.database.run("UPDATE blobs SET used = used - 1 WHERE rowid <= ?", (len(folder.store.computed) // 3,))
    size = folder.storage.masks()[1]
    done = folder.storage.prune(Wish(max_bytes=size * 2 // 3))
    assert folder.storage.masks()[1] <= size * 2 // 3
    assert done.mask_bytes == size - folder.storage.masks()[1]
    assert folder.compute(second) == 0
    assert folder.compute(first) > 0
    folder.storage.prune(Wish(max_bytes=0))
    assert folder.compute(needed) == 0


def test_a_project_goes_with_what_was_noted_of_its_tasks(folder):
    done, open_one = folder.track(1, 3.0, project=1), folder.track(2, 5.0, project=1)
    folder.submit(done)
    log = DeliveryLog(folder.database)
    for track in (done, open_one):
        log.record(track.work, "mask", "Object", "prompt:p", [1])
    assert folder.storage.prune(Wish(project=("", 7))).masks == 0
    pruned = folder.storage.prune(Wish(project=(URL, 1)))
    assert pruned.tasks == 1
    assert folder.compute(open_one) == 0
    assert log.batches(open_one.work, "mask", "Object")
    assert not log.batches(done.work, "mask", "Object")
    assert folder.tracks.of_task(URL, 1) == []
    assert SeenMasks(folder.store).get(done.work, "p1") == (False, None)
    assert SeenMasks(folder.store).get(open_one.work, "p2") == (True, None)
    assert folder.compute(done) > 0


def test_a_video_of_two_projects_is_not_one_projects_to_drop(folder):
    for track in (folder.track(1, 3.0, project=1, video="v"), folder.track(2, 5.0, project=2, video="v")):
        folder.submit(track)
    one, two = folder.storage.projects()
    assert (one.tasks, one.masks, one.unsubmitted) == (1, two.masks, 0)
    assert folder.storage.videos_of(("", 1)) == frozenset()
    assert folder.storage.prune(Wish(project=("", 1))).masks == 0


def test_masks_of_a_time_when_videos_were_not_noted_stay_while_one_is_needed(folder):
    track = folder.track(1, 3.0, content="")
    folder.database.run("UPDATE blobs SET video = '' WHERE lasting = 0")
    folder.age(10)
    assert folder.storage.prune(Wish(before=time.time())).masks == 0
    folder.submit(track)
    assert folder.storage.prune(Wish(before=time.time())).masks > 0


def test_a_job_that_begins_meanwhile_keeps_its_masks(folder, monkeypatch):
    old = folder.track(1, 3.0)
    folder.submit(old)
    needed = folder.storage._needed

    def begins() -> set[bytes]:
        monkeypatch.undo()
        keys = needed()
        folder.tracks.insert(replace(old, state=JobState.WAITING, id=0))
        return keys

    monkeypatch.setattr(folder.storage, "_needed", begins)
    folder.storage.prune(Wish(before=time.time()))
    assert folder.compute(old) == 0


def test_compacting_shrinks_the_file_and_needs_it_alone(folder, tmp_path):
    track = folder.track(1, 3.0)
    folder.submit(track)
    folder.store.put("track/v/big", bytes(300_000))
    folder.storage.prune(Wish(max_bytes=0))
    assert folder.storage.free_bytes() > 200_000
    server = own(tmp_path / LOCK)
    with pytest.raises(TamError, match="stop it first"):
        folder.storage.compact()
    server.close()
    assert folder.storage.compact() > 200_000
    assert (tmp_path / FILE).stat().st_size < 200_000
    assert folder.storage.free_bytes() == 0
    assert folder.compute(track) > 0


def test_a_store_counts_what_somebody_else_dropped(folder):
    store = DiskStore(folder.database, 1000)
    store.put("track/v/1", bytes(800))
    folder.storage.prune(Wish(max_bytes=0))
    store.put("track/v/2", bytes(700))
    assert store.get("track/v/2") is not None
    assert store.nbytes == 700
