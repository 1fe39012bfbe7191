"""Sessions on workers: the same masks, the same store, one worker for a video, and another one when that dies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tam_backend.cluster.sessions import Elsewhere, Host, Message, Put, Request, WorkerLost, Workers
from tam_backend.errors import BadInput, MediaError
from tam_backend.prompts import Click, FramePrompts
from tam_backend.tracking.store import MemoryStore
from tam_backend.tracking.tracker import Anchor, TrackedFrame, Tracker
from tam_backend.video import VideoReader, open_source
from tests.fakes import fake_engine, make_video
from tests.tracking.fakes import MemoryReader

FRAMES = 24
ANCHORS = {4: Anchor(FramePrompts(clicks=(Click(20, 20),)), np.eye(48, 64, dtype=bool))}


class Mortal:
    """A worker that dies after so many messages; None: it lives. ``asked``: the computations it had."""

    def __init__(self, dies_after: int | None = None) -> None:
        self.engine = fake_engine()
        self.host = Host(self.engine)
        self.left = dies_after
        self.asked: list[Request] = []

    def steps(self, request: Request) -> Iterator[Message]:
        self.asked.append(request)
        for message in self.host.steps(request):
            if self.left == 0:
                self.stop(request.id)
                raise WorkerLost("it died")
            if self.left is not None:
                self.left -= 1
            yield message

    def supply(self, request: str, key: str, blob: bytes | None) -> None:
        self.host.supply(request, key, blob)

    def stop(self, request: str) -> None:
        self.host.stop(request)


@pytest.fixture
def video(tmp_path: Path) -> Iterator[VideoReader]:
    reader = open_source(make_video(tmp_path / "a.mp4", FRAMES))
    yield reader
    reader.close()


def tracker(video: VideoReader, workers: Workers, store: MemoryStore, engine=None) -> Tracker:
    return Elsewhere(engine or fake_engine(), workers).tracker(video, range(FRAMES), store, range(FRAMES))


def here(video: VideoReader, store: MemoryStore) -> list[TrackedFrame]:
    with Tracker(fake_engine(), video, range(FRAMES), store) as local:
        return list(local.track(ANCHORS, 4))


def alike(some: list[TrackedFrame], others: list[TrackedFrame]) -> bool:
    return len(some) == len(others) and all(
        (a.frame, a.quality, a.anchor) == (b.frame, b.quality, b.anchor) and (a.soft == b.soft).all()
        for a, b in zip(some, others, strict=True)
    )


def test_a_worker_computes_and_the_server_keeps(video):
    worker, ours, theirs = Mortal(), MemoryStore(10**7), MemoryStore(10**7)
    server = fake_engine()
    with tracker(video, Workers({"1": worker}), theirs, server) as remote:
        assert alike(list(remote.track(ANCHORS, 4)), here(video, ours))
        assert theirs._blobs == ours._blobs
        assert len(worker.engine.propagator.steps) == FRAMES - 1
        assert server.propagator.steps == []
        assert all(step.reused for step in remote.track(ANCHORS, 4))
    assert len(worker.engine.propagator.steps) == FRAMES - 1


@pytest.mark.parametrize("messages", [0, 1, 7, 20, 45])
def test_when_it_dies_another_one_goes_on(video, messages):
    """Nothing comes twice, nothing is missing, and no frame that was stored is computed again."""
    workers = {name: Mortal(messages) for name in ("1", "2")}
    store, ours = MemoryStore(10**7), MemoryStore(10**7)
    pool = Workers(workers)
    name, victim = pool.of(video.key)
    other = workers["2" if name == "1" else "1"]
    other.left = None
    with tracker(video, pool, store) as remote:
        assert alike(list(remote.track(ANCHORS, 4)), here(video, ours))
    assert [len(w.asked) for w in (victim, other)] == [1, 1]
    # what was on its way when it died, and what lies between the last stored state and there
    twice = len(victim.engine.propagator.steps) + len(other.engine.propagator.steps) - (FRAMES - 1)
    assert 0 <= twice <= 17
    stored = sum(isinstance(step, TrackedFrame) for step in here(video, store))
    assert stored == FRAMES


def test_when_all_die_the_server_computes(video):
    workers, server = {name: Mortal(9) for name in ("1", "2")}, fake_engine()
    with tracker(video, Workers(workers), MemoryStore(10**7), server) as remote:
        assert len(list(remote.track(ANCHORS, 4))) == FRAMES
    assert server.propagator.steps


def test_a_caller_that_wants_no_more_gets_the_state(video):
    """So that whoever goes on repeats nothing."""
    worker, store = Mortal(), MemoryStore(10**7)
    pool = Workers({"1": worker})
    with tracker(video, pool, store) as remote:
        steps = remote.track(ANCHORS, 4)
        for _ in range(6):
            next(steps)
        steps.close()
        before = len(worker.engine.propagator.steps)
        assert before < FRAMES - 1
        assert worker.host._open == {}
        assert len(list(remote.track(ANCHORS, 4))) == FRAMES
    assert len(worker.engine.propagator.steps) == FRAMES - 1


def test_the_worker_is_at_most_a_frame_ahead(video):
    worker = Mortal()
    with tracker(video, Workers({"1": worker}), MemoryStore(10**7)) as remote:
        steps = remote.steps(ANCHORS, 4)
        for _ in range(5):
            next(steps)
        import time

        time.sleep(0.1)
        assert len(worker.engine.propagator.steps) <= 5 + 1
        steps.close()


def test_a_video_keeps_its_worker_and_a_death_moves_its_videos_alone(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("tam_backend.cluster.sessions.time.monotonic", lambda: now[0])
    pool = Workers({str(i): Mortal() for i in range(4)})
    videos = [f"video {i}" for i in range(200)]
    before = {v: pool.of(v)[0] for v in videos}
    assert {v: pool.of(v)[0] for v in videos} == before
    shares = [list(before.values()).count(str(i)) for i in range(4)]
    assert min(shares) > 25
    pool.lost("2")
    after = {v: pool.of(v)[0] for v in videos}
    assert all(after[v] == before[v] for v in videos if before[v] != "2")
    assert {after[v] for v in videos if before[v] == "2"} == {"0", "1", "3"}
    now[0] += 31
    assert {v: pool.of(v)[0] for v in videos} == before, "it was begun anew"


def test_errors_of_the_work_are_those_of_the_work(video, tmp_path):
    pool = Workers({"1": Mortal()})
    with tracker(video, pool, MemoryStore(10**7)) as remote:
        with pytest.raises(BadInput, match="frame 99 is outside the range"):
            list(remote.track({99: ANCHORS[4]}, 4))
        (tmp_path / "a.mp4").unlink()
        with pytest.raises(MediaError, match=r"a\.mp4"):
            list(remote.track(ANCHORS, 4))


def test_what_is_no_file_is_computed_here():
    video = MemoryReader(np.zeros((6, 48, 64, 3), np.uint8))
    worker, server = Mortal(), fake_engine()
    local = Elsewhere(server, Workers({"1": worker})).tracker(video, range(6), MemoryStore(10**6), range(6))
    assert len(list(local.track({0: ANCHORS[4]}, 0))) == 6
    assert worker.asked == []


def test_a_worker_sends_what_it_made_and_keeps_nothing(video):
    worker = Mortal()
    messages = []
    with tracker(video, Workers({"1": worker}), MemoryStore(10**7)) as remote:
        original = remote._take
        remote._take = lambda link, request, message: messages.append(message) or original(link, request, message)
        list(remote.track(ANCHORS, 4))
    assert sum(isinstance(m, Put) for m in messages) >= FRAMES
    assert worker.host._open == {}
