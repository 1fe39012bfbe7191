import time
from dataclasses import replace

import numpy as np
import pytest

from tam_backend.prompts import Box, Click, FramePrompts
from tam_backend.sessions.database import Database
from tam_backend.sessions.progress import JobState
from tam_backend.sessions.tracks import Track, TrackTable, Work, pack_anchors, unpack_anchors
from tam_backend.tracking.tracker import Anchor

WORK = Work("http://ls", 1, 7)


def anchors() -> dict[int, Anchor]:
    mask = np.random.default_rng(1).random((13, 21)) > 0.5
    clicks = (Click(1.25, 2, True), Click(1 / 3, 0, False))
    return {
        4: Anchor(FramePrompts(clicks=clicks, box=Box(0, 1, 5.5, 7))),
        9: Anchor(FramePrompts(mask=mask)),
        11: Anchor(FramePrompts(clicks=clicks[:1]), prior=~mask),
        12: Anchor(FramePrompts(clicks=clicks[:1], mask=mask, refine=True)),
    }


def track(*ids: str, **changes) -> Track:
    prompts = tuple({"id": i} for i in ids)
    plain = Track(WORK, "mask", "Object 1", "v" * 32, range(0, 12), 4, anchors(), prompts)
    return replace(plain, **changes)


@pytest.fixture
def table(tmp_path):
    db = Database(tmp_path / "state.sqlite3")
    yield TrackTable(db)
    db.close()


def test_anchors_come_back_with_the_same_digests():
    again = unpack_anchors(pack_anchors(anchors()))
    assert {f: a.digest() for f, a in again.items()} == {f: a.digest() for f, a in anchors().items()}
    assert again[11].prior is not None
    assert again[12].prompts.refine
    assert again[12].digest() != again[9].digest()
    assert unpack_anchors(pack_anchors({})) == {}


def test_a_track_comes_back_as_it_was(table):
    stored = table.insert(track("p1", "p2", draft="draft:3"))
    again = table.get(stored.id)
    assert again.id == stored.id > 0
    same = ("work", "tag", "label", "video", "frames", "focus", "prompts", "draft", "follows", "state", "total", "ids")
    assert [getattr(again, name) for name in same] == [getattr(stored, name) for name in same]
    assert again.anchors.keys() == stored.anchors.keys()
    assert table.update(again, state=JobState.FAILED, error="why", done=3).error == "why"
    assert (table.get(stored.id).state, table.get(stored.id).done) == (JobState.FAILED, 3)


def test_newer_prompts_of_the_same_person_take_the_place_of_older_ones(table):
    first = table.insert(track("p1"))
    follower = table.insert(track("p1", follows=True))
    other_person = table.insert(track("x1"))
    other_object = table.insert(track("p1", label="Object 2"))
    newest = table.insert(track("p1", "p2"))
    assert table.unfinished() == [other_person.id, other_object.id, newest.id]
    assert table.get(first.id) is table.get(follower.id) is None


def test_the_same_draft_means_the_same_person(table):
    table.insert(track("p1", draft="draft:1"))
    newest = table.insert(track("p2", draft="draft:1"))
    assert table.unfinished() == [newest.id]


def test_a_follower_leaves_its_own_track_alone(table):
    own = table.insert(track("p1"))
    assert not table.has_follower(own)
    follower = table.insert(track("p1", follows=True))
    assert table.has_follower(own)
    assert table.unfinished() == [own.id, follower.id]


def test_of_video_gives_the_newest_prompts_of_each_task(table):
    table.insert(track("p1"))
    newest = table.insert(track("x1"))
    elsewhere = table.insert(track("q1", work=Work("http://ls", 1, 8)))
    table.insert(track("r1", work=Work("http://ls", 2, 9)))
    table.insert(track("s1", video="w" * 32))
    assert {t.id for t in table.of_video(newest)} == {newest.id, elsewhere.id}


def test_old_tracks_are_forgotten_except_the_newest_prompts(table, monkeypatch):
    old = table.insert(track("p1", state=JobState.DONE))
    table.submitted(old.work.label_studio, old.work.task, old.ids)
    unsubmitted = table.insert(track("p2", state=JobState.DONE))
    newest = table.insert(track("x1", state=JobState.DONE))
    waiting = table.insert(track("q1", work=Work("http://ls", 1, 8)))
    now = time.time()
    monkeypatch.setattr("tam_backend.sessions.tracks.time.time", lambda: now + 8 * 86400)
    table.prune()
    assert [table.get(t.id) is not None for t in (old, unsubmitted, newest, waiting)] == [False, True, True, True]
