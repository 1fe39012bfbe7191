"""Several objects at once: every frame once and whole, nearest first, every pixel one owner."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tam_backend.errors import TamError
from tam_backend.tracking.objects import ObjectsFrame, track_objects
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


def finished(steps) -> list[ObjectsFrame]:
    return [s for s in steps if isinstance(s, ObjectsFrame)]


@relaxed
@given(
    st.dictionaries(
        st.integers(1, 255), st.sets(st.integers(0, LENGTH - 1), min_size=1, max_size=3), min_size=1, max_size=3
    ),
    st.integers(0, LENGTH - 1),
)
def test_every_frame_comes_once_with_the_masks_of_each_object_alone(frames_of, focus):
    objects = {i: {f: clicked(5 + i % 20, 5 + f) for f in frames} for i, frames in frames_of.items()}
    steps = list(run_objects(objects, focus))
    frames = finished(steps)
    assert sorted(f.frame for f in frames) == list(range(LENGTH))
    assert sum(isinstance(s, TrackedFrame) for s in steps) == LENGTH * len(objects)
    for object_id, anchors in objects.items():
        alone = by_frame(run(VIDEO, anchors, focus))
        assert {f.frame: content(f.objects[object_id]) for f in frames} == alone


def test_frames_finish_nearest_first_when_the_objects_share_their_frames():
    objects = {1: {5: clicked(8, 8)}, 2: {5: clicked(20, 8)}}
    order = [f.frame for f in finished(run_objects(objects, 5))]
    assert order == sorted(range(LENGTH), key=lambda f: (abs(f - 5), f))


def test_a_frame_is_handed_out_as_soon_as_it_is_finished():
    objects = {1: {0: clicked(8, 8), 12: clicked(9, 9)}}
    steps = list(run_objects(objects, 0))
    kinds = [type(s) for s in steps if not isinstance(s, Step)]
    assert kinds == [TrackedFrame, ObjectsFrame] * LENGTH
    assert len(steps) - len(kinds) == len(steps_between(range(LENGTH), [0, 12])) - (LENGTH - 2)


def test_stopping_and_continuing_repeats_nothing():
    expected = [(f.frame, f.ids.tobytes()) for f in finished(run_objects(OBJECTS, 3))]
    total = len(list(run_objects(OBJECTS, 3)))
    for stop in range(0, total, 5):
        store, engine = DictStore(), fake_engine()
        steps = run_objects(OBJECTS, 3, store, engine)
        list(itertools.islice(steps, stop))
        steps.close()
        again = [(f.frame, f.ids.tobytes()) for f in finished(run_objects(OBJECTS, 3, store, engine))]
        assert again == expected
        computed = [f for anchors in OBJECTS.values() for f in steps_between(range(LENGTH), anchors)]
        assert sorted(engine.propagator.steps) == sorted(computed)


def test_a_store_that_loses_finished_frames_is_an_error_that_says_so():
    objects = {1: {0: clicked(8, 8)}, 2: {LENGTH - 1: clicked(9, 9)}}
    with pytest.raises(TamError, match=r"the finished mask of frame .* is gone"):
        list(run_objects(objects, 0, MemoryStore(0)))


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
