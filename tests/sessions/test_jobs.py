"""The scheduler by itself: fairness, what comes first, what happens when the process ended in the middle."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from tam_backend.prompts import Click, FramePrompts
from tam_backend.quality import review
from tam_backend.sessions import jobs as jobs_module
from tam_backend.sessions.calls import DelayedCalls
from tam_backend.sessions.database import Database
from tam_backend.sessions.job import FollowPlan
from tam_backend.sessions.jobs import BackgroundJobs
from tam_backend.sessions.progress import JobState, ranges_of
from tam_backend.sessions.tracks import Track, TrackTable, Work
from tam_backend.sessions.turns import DeviceTurns
from tam_backend.tracking.store import MemoryStore
from tam_backend.tracking.tracker import Anchor, Tracker
from tests.fakes import fake_engine
from tests.tracking.fakes import MemoryReader

FRAMES = 30


class Desk:
    """A destination that takes everything."""

    def __init__(self) -> None:
        self.delivered: list[int] = []
        self.filled: list[int] = []
        self.plan: FollowPlan | None = None

    def open(self, video: str):
        return MemoryReader(np.zeros((FRAMES, 24, 32, 3), np.uint8))

    def deliver(self, track: Track) -> float | None:
        self.delivered.append(track.work.task)
        return None

    def follow(self, track: Track) -> FollowPlan | None:
        return self.plan

    def fill(self, track: Track, task: int) -> None:
        self.filled.append(task)


class Office:
    """Jobs with a fake engine on one database; ``order`` lists (task, frame) as they are computed."""

    def __init__(self, folder, seconds: float = 0.002) -> None:
        self.engine = fake_engine(seconds)
        self.database = Database(folder / "state.sqlite3")
        self.table = TrackTable(self.database)
        self.turns = DeviceTurns()
        self.desk = Desk()
        self.store = MemoryStore(50_000_000)
        self.folder = folder

    def start(self, *, finish: bool = False) -> BackgroundJobs:
        lock = self.folder / "background.lock"
        self.jobs = BackgroundJobs(self.engine, self.store, self.table, self.turns, self.desk, lock, finish)
        return self.jobs

    def idle(self, seconds: float = 20.0) -> None:
        deadline = time.monotonic() + seconds
        while self.table.unfinished():
            assert time.monotonic() < deadline
            time.sleep(0.005)


def track(task: int, x: float = 10.0, frames: range = range(0, FRAMES), **changes) -> Track:
    anchor = Anchor(FramePrompts(clicks=(Click(x + task / 10, 10.0),)))
    plain = Track(
        Work("http://ls", 1, task), "mask", "Object", "v", frames, frames.start, {frames.start: anchor},
        ({"id": f"p{task}-{x}"},),
    )  # fmt: skip
    return replace(plain, **changes)


@pytest.fixture
def office(tmp_path):
    office = Office(tmp_path)
    yield office
    office.jobs.close()
    office.database.close()


def test_tasks_share_the_device(office, monkeypatch):
    monkeypatch.setattr(jobs_module, "_SLICE", 0.01)
    served = []
    office.engine.propagator.before_step = lambda _: (time.sleep(0.002), served.append(office.jobs.running))
    jobs = office.start()
    with office.turns.request():  # nothing begins before all are there
        for task in (1, 2, 3):
            jobs.release(jobs.begin(track(task)))
        progress = []
    while len(office.desk.delivered) < 3:
        progress.append({v.task: v.frames_done for v in jobs.views() if v.state is not JobState.DONE})
        time.sleep(0.002)
    middle = next(p for p in progress if max(p.values(), default=0) >= FRAMES // 2)
    assert min(middle.values()) > 0, "one task had half of its frames before another one had any"
    office.idle()
    assert sorted(office.desk.delivered) == [1, 2, 3]


def test_own_tasks_come_before_other_tasks_of_a_video(office):
    jobs = office.start()
    order = []
    office.desk.deliver = lambda t: order.append(t.work.task)
    office.desk.fill = lambda t, task: order.append(task)
    with office.turns.request():
        follower = track(1, follows=True)
        office.desk.plan = FollowPlan(follower, ((5, range(0, 10)), (6, range(10, 30))))
        jobs.add_follower(office.desk.plan)
        office.desk.plan = None
        jobs.release(jobs.begin(track(2)))
    office.idle()
    assert order == [2, 5, 6]


@pytest.mark.parametrize("computed", [False, True])
def test_a_corrected_object_is_finished_when_nothing_else_waits(office, computed):
    """computed: by the request, so that only the finishing pass is left."""
    jobs = office.start(finish=True)
    order = []
    office.desk.deliver = lambda t: order.append(t.work.task)
    corrected = track(1)
    corrected = replace(corrected, anchors=dict.fromkeys((0, 10, 20), corrected.anchors[0]))
    with office.turns.request():
        begun = jobs.begin(corrected)
        for frame in corrected.frames if computed else ():
            jobs.note(begun, frame)
        jobs.release(begun)
        jobs.release(jobs.begin(track(2)))
    office.idle()
    assert order == [2, 1]
    with Tracker(office.engine, office.desk.open("v"), range(FRAMES), office.store) as tracker:
        steps = len(office.engine.propagator.steps)
        assert list(tracker.steps(corrected.anchors, 0, finish=True)), "the pass is in the store"
        assert len(office.engine.propagator.steps) == steps


def test_an_object_with_one_prompt_needs_no_finishing(office):
    jobs = office.start(finish=True)
    jobs.release(jobs.begin(track(1)))
    office.idle()
    assert len(office.engine.propagator.steps) == FRAMES - 1


def test_a_new_prompt_supersedes_the_old_job(office):
    office.engine.propagator.before_step = lambda _: time.sleep(0.01)
    jobs = office.start()
    old = jobs.begin(track(1))
    jobs.release(old)
    while len(office.engine.propagator.steps) < 3:
        time.sleep(0.001)
    new = jobs.begin(replace(track(1, x=20.0), prompts=old.prompts))
    at_begin = len(office.engine.propagator.steps)
    time.sleep(0.1)
    assert len(office.engine.propagator.steps) <= at_begin + 1
    assert [v.id for v in jobs.views()] == [new.id]
    jobs.release(new)
    office.idle()
    assert office.table.get(old.id) is None
    assert office.table.get(new.id).state is JobState.DONE


def test_what_the_request_finished_is_not_computed_again(office):
    jobs = office.start()
    own = jobs.begin(track(1))
    for frame in own.frames:
        jobs.note(own, frame)
    jobs.release(own)
    office.idle()
    assert office.engine.propagator.steps == []
    assert office.desk.delivered == [1]


def test_a_job_that_was_never_released_goes_on_after_a_restart(tmp_path):
    first = Office(tmp_path)
    first.start().begin(track(1))
    first.jobs.close()
    first.database.close()
    second = Office(tmp_path)
    second.start()
    second.idle()
    assert second.desk.delivered == [1]
    second.jobs.close()
    second.database.close()


def test_a_job_that_was_computed_is_delivered_and_followed_after_a_restart(tmp_path):
    first = Office(tmp_path)
    table = first.table
    own = table.insert(track(1))
    table.update(own, state=JobState.DELIVERING, done=FRAMES)
    first.database.close()
    second = Office(tmp_path)
    second.desk.plan = FollowPlan(track(1, follows=True), ((5, range(0, 30)),))
    second.start()
    second.idle()
    assert second.desk.delivered == [1]
    assert second.desk.filled == [5]
    second.jobs.close()
    second.database.close()


def test_a_job_that_ends_the_process_again_and_again_is_given_up(office):
    own = office.table.insert(track(1))
    office.table.update(own, state=JobState.RUNNING, attempts=jobs_module._MAX_ATTEMPTS - 1)
    office.start()
    office.idle()
    assert office.table.get(own.id).state is JobState.FAILED
    assert "see its log" in office.table.get(own.id).error
    assert office.engine.propagator.steps == []


def test_a_frame_that_was_finished_clears_the_suspicion(office):
    own = office.table.insert(track(1))
    office.table.update(own, state=JobState.RUNNING, attempts=jobs_module._MAX_ATTEMPTS - 2)
    office.engine.propagator.before_step = lambda _: time.sleep(0.02)
    office.start()
    while len(office.engine.propagator.steps) < 3:
        time.sleep(0.001)
    assert office.table.get(own.id).attempts == 0
    office.idle()
    assert office.table.get(own.id).state is JobState.DONE


def test_a_second_process_leaves_its_jobs_to_the_first(tmp_path):
    first, second = Office(tmp_path), Office(tmp_path)
    first.start()
    jobs = second.start()
    jobs.release(jobs.begin(track(4)))
    first.idle()
    assert first.desk.delivered == [4]
    assert second.engine.propagator.steps == []
    jobs.close()
    first.jobs.close()
    first.database.close()
    second.database.close()


def test_progress_of_a_clip(office):
    office.engine.propagator.before_step = lambda frame: time.sleep(0.01)
    jobs = office.start()
    jobs.release(jobs.begin(track(1)))
    while len(office.engine.propagator.steps) < 5:
        time.sleep(0.001)
    progress = jobs.clip_progress("v", 3)
    assert progress.clip == range(0, FRAMES)
    assert progress.done["Object"][0].start == 0
    assert jobs.clip_progress("another", 3) is None
    office.idle()
    assert jobs.clip_progress("v", 3) is None


def test_ranges():
    assert ranges_of([5, 1, 2, 3, 9]) == [range(1, 4), range(5, 6), range(9, 10)]
    assert ranges_of([]) == []


def test_calls_come_in_the_order_they_are_due_and_survive_errors(caplog):
    calls = DelayedCalls("test")
    done: list[int] = []
    finished = threading.Event()
    calls.put(0.05, lambda: (done.append(2), finished.set()))
    calls.put(0.0, lambda: done.append(1 // len(done)))
    calls.put(0.01, lambda: done.append(1))
    assert finished.wait(5)
    calls.close()
    assert done == [1, 2]
    assert "ZeroDivisionError" in caplog.text


def test_finished_masks_are_reviewed(office, monkeypatch):
    """The fake engine is the less sure the farther a frame is from the click on frame 0, and never very unsure."""
    monkeypatch.setattr("tam_backend.quality.calibration.NEEDS_A_LOOK", 0.8)
    jobs = office.start()
    jobs.release(jobs.begin(track(1)))
    office.idle()
    [ended] = jobs.views()
    with Tracker(office.engine, office.desk.open("v"), range(FRAMES), office.store) as tracker:
        anchors = track(1).anchors
        quality = {f: tracker.stored(anchors, f).quality for f in range(FRAMES)}
    expected = review(quality, anchors)
    assert expected.look > 0
    assert (ended.look, ended.fix_next) == (expected.look, expected.fix_next)
    [again] = office.table.of_task("http://ls", 1)
    assert (again.look, again.fix_next) == (expected.look, expected.fix_next)
