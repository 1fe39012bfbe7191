"""Several objects at once: every frame once and whole, nearest first, every pixel one owner."""

from __future__ import annotations

import itertools
import threading

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tam_backend.errors import MediaError, TamError
from tam_backend.tracking.objects import AHEAD, ObjectsFrame, track_objects
from tam_backend.tracking.store import MemoryStore
from tam_backend.tracking.tracker import Step, TrackedFrame, Tracker
from tests.tracking.fakes import (
    DictStore,
    by_frame,
    clicked,
    content,
    disc,
    drawn,
    fake_engine,
    memory_video,
    relaxed,
    run,
    steps_between,
)

LENGTH = 16
VIDEO = memory_video(LENGTH)
OBJECTS = {
    2: {3: clicked(12, 12)},
    7: {3: clicked(17, 12), 11: drawn(disc(20, 12, 4))},
}


def run_objects(objects, focus, store=None, engine=None):
    with Tracker(engine or fake_engine(), VIDEO, range(LENGTH), store or DictStore()) as tracker:
        yield from track_objects(tracker, objects, focus)


@pytest.fixture(autouse=True)
def _cores():
    """As on a machine with three cores, whatever this one has."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(3)
    yield
    cv2.setNumThreads(threads)


#: One object after the other, and several at once.
both_ways = pytest.mark.parametrize("concurrent", [False, True])


def finished(steps) -> list[ObjectsFrame]:
    return [s for s in steps if isinstance(s, ObjectsFrame)]


@both_ways
@relaxed
@given(
    st.dictionaries(
        st.integers(1, 255), st.sets(st.integers(0, LENGTH - 1), min_size=1, max_size=3), min_size=1, max_size=3
    ),
    st.integers(0, LENGTH - 1),
)
def test_every_frame_comes_once_with_the_masks_of_each_object_alone(concurrent, frames_of, focus):
    objects = {i: {f: clicked(5 + i % 20, 5 + f) for f in frames} for i, frames in frames_of.items()}
    steps = list(run_objects(objects, focus, engine=fake_engine(concurrent=concurrent)))
    frames = finished(steps)
    assert sorted(f.frame for f in frames) == list(range(LENGTH))
    assert sum(isinstance(s, TrackedFrame) for s in steps) == LENGTH * len(objects)
    for object_id, anchors in objects.items():
        alone = by_frame(run(VIDEO, anchors, focus))
        assert {f.frame: content(f.objects[object_id]) for f in frames} == alone


@both_ways
def test_frames_finish_nearest_first_when_the_objects_share_their_frames(concurrent):
    objects = {i: {5: clicked(8 + i, 8)} for i in range(1, 6)}
    order = [f.frame for f in finished(run_objects(objects, 5, engine=fake_engine(concurrent=concurrent)))]
    assert order == sorted(range(LENGTH), key=lambda f: (abs(f - 5), f))


def test_a_frame_is_handed_out_as_soon_as_it_is_finished():
    objects = {1: {0: clicked(8, 8), 12: clicked(9, 9)}}
    steps = list(run_objects(objects, 0))
    kinds = [type(s) for s in steps if not isinstance(s, Step)]
    assert kinds == [TrackedFrame, ObjectsFrame] * LENGTH
    assert len(steps) - len(kinds) == len(steps_between(range(LENGTH), [0, 12])) - (LENGTH - 2)


@both_ways
def test_stopping_and_continuing_repeats_nothing(concurrent):
    def ids_of(steps):
        return [(f.frame, f.ids.tobytes()) for f in sorted(finished(steps), key=lambda f: f.frame)]

    expected = ids_of(run_objects(OBJECTS, 3))
    total = len(list(run_objects(OBJECTS, 3)))
    for stop in range(0, total, 5):
        store, engine = DictStore(), fake_engine(concurrent=concurrent)
        steps = run_objects(OBJECTS, 3, store, engine)
        list(itertools.islice(steps, stop))
        steps.close()
        assert ids_of(run_objects(OBJECTS, 3, store, engine)) == expected
        computed = [f for anchors in OBJECTS.values() for f in steps_between(range(LENGTH), anchors)]
        assert sorted(engine.propagator.steps) == sorted(computed)


def test_a_store_that_loses_finished_frames_is_an_error_that_says_so():
    objects = {1: {0: clicked(8, 8)}, 2: {LENGTH - 1: clicked(9, 9)}}
    with pytest.raises(TamError, match=r"the finished mask of frame .* is gone"):
        list(run_objects(objects, 0, MemoryStore(0)))


def test_objects_are_worked_on_at_the_same_time():
    engine = fake_engine(concurrent=True)
    together = threading.Barrier(2, timeout=30)
    # each step waits until another one has begun: in turns, none would ever end
    engine.propagator.before_step = lambda frame: together.wait()
    objects = {1: {0: clicked(8, 8)}, 2: {0: clicked(20, 8)}}
    assert len(finished(run_objects(objects, 0, engine=engine))) == LENGTH


def test_no_object_is_far_ahead_of_the_others():
    engine = fake_engine(concurrent=True)
    begun: list[int] = []
    slow = threading.Event()

    def before_step(frame: int) -> None:
        begun.append(frame)
        if begun.count(1) == 1 and frame == 1 and len(begun) == 1:
            slow.wait(1.0)  # the first to come here holds up the other

    engine.propagator.before_step = before_step
    objects = {1: {0: clicked(8, 8)}, 2: {0: clicked(20, 8)}}
    for step in run_objects(objects, 0, engine=engine):
        if isinstance(step, Step | TrackedFrame) and step.frame == 1 and not slow.is_set():
            assert max(begun) <= 1 + AHEAD
            slow.set()
    assert begun.count(LENGTH - 1) == 2


@both_ways
def test_an_error_of_one_object_ends_it_all_and_nothing_goes_on(concurrent):
    engine = fake_engine(concurrent=concurrent)

    def before_step(frame: int) -> None:
        if frame == 7:
            raise MediaError("frame 7 cannot be read")

    engine.propagator.before_step = before_step
    objects = {i: {0: clicked(8 + i, 8)} for i in range(1, 6)}
    with pytest.raises(MediaError, match="frame 7"):
        list(run_objects(objects, 0, engine=engine))
    assert not [t for t in threading.enumerate() if t.name.startswith("object")]
    assert max(engine.propagator.steps) == 6


# ---- whose is a pixel


def frame_of(**objects: tuple[int, bool]) -> ObjectsFrame:
    """One pixel. o3=(200, False): object 3 claims it with soft value 200, not drawn by hand."""
    return ObjectsFrame(
        0,
        {
            int(name[1:]): TrackedFrame(0, np.full((1, 1), soft, np.uint8), 1.0, anchor=False, by_hand=by_hand)
            for name, (soft, by_hand) in objects.items()
        },
    )


@pytest.mark.parametrize(
    ("objects", "owner"),
    [
        ({"o1": (127, False), "o2": (0, False)}, 0),
        ({"o1": (128, False), "o2": (127, False)}, 1),
        ({"o1": (200, False), "o2": (201, False)}, 2),
        ({"o5": (200, False), "o3": (200, False)}, 3),
        ({"o1": (255, False), "o2": (255, True)}, 2),
        ({"o1": (255, False), "o2": (0, True)}, 1),
        ({"o9": (255, True), "o255": (255, True)}, 9),
        ({"o255": (130, False)}, 255),
    ],
)
def test_who_owns_a_pixel(objects, owner):
    for order in itertools.permutations(objects):
        assert frame_of(**{name: objects[name] for name in order}).ids == owner
