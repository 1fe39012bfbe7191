"""Stopping anywhere, in any way, and going on later: the same masks as if nothing had happened, and no work twice."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tam_backend.errors import MediaError
from tam_backend.prompts import Mask
from tam_backend.tracking.store import MemoryStore, unpack_state
from tam_backend.tracking.tracker import Step, TrackedFrame, Tracker
from tests.tracking.fakes import (
    STATE_EVERY,
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
    sides_of,
    steps_between,
)

LENGTH = 3 * STATE_EVERY + 5
VIDEO = memory_video(LENGTH)
FRAMES = range(LENGTH)
ANCHORS = {4: clicked(), 40: drawn(disc(12, 9, 4))}
FOCUS = 12
UNDISTURBED = run(VIDEO, ANCHORS, FOCUS)
EXPECTED = by_frame(UNDISTURBED)
PROPAGATED = steps_between(FRAMES, ANCHORS)
STEPS = len(ANCHORS) + len(PROPAGATED)


def finished(steps: Iterable[TrackedFrame | Step]) -> list[tuple[Any, ...]]:
    return [content(s) for s in steps if isinstance(s, TrackedFrame)]


@pytest.mark.parametrize("stop", range(STEPS + 1))
def test_stopped_and_continued_equals_undisturbed(stop):
    store, engine = DictStore(), fake_engine()
    with Tracker(engine, VIDEO, FRAMES, store) as tracker:
        steps = tracker.steps(ANCHORS, FOCUS)
        first = finished(itertools.islice(steps, stop))
        steps.close()
    second = run(VIDEO, ANCHORS, FOCUS, store, engine)

    assert [content(t) for t in second] == [content(t) for t in UNDISTURBED]
    assert first == [content(t) for t in UNDISTURBED[: len(first)]]
    assert sorted(engine.propagator.steps) == PROPAGATED, "each side of a frame is computed once in all"
    assert len(engine.segmenter.asked) == 1


def test_stopped_again_and_again():
    store, engine = DictStore(), fake_engine()
    for _ in range(len(PROPAGATED)):
        with Tracker(engine, VIDEO, FRAMES, store) as tracker:
            steps = tracker.steps(ANCHORS, FOCUS)
            for step in steps:
                if not step.reused and step.frame not in ANCHORS:
                    break
            steps.close()
    assert by_frame(run(VIDEO, ANCHORS, FOCUS, store, engine)) == EXPECTED
    assert sorted(engine.propagator.steps) == PROPAGATED


@pytest.mark.parametrize("stop", range(STEPS + 1))
def test_killed_and_continued_repeats_little(stop):
    store, engine = DictStore(), fake_engine()
    with Tracker(engine, VIDEO, FRAMES, store) as tracker:
        steps = tracker.steps(ANCHORS, FOCUS)
        list(itertools.islice(steps, stop))
        survived = DictStore(store.blobs)  # what a killed process leaves: it never gets to save its state
        steps.close()
    engine.propagator.steps.clear()
    assert by_frame(run(VIDEO, ANCHORS, FOCUS, survived, engine)) == EXPECTED
    propagated = max(0, stop - len(ANCHORS))
    runs = 4
    assert len(engine.propagator.steps) <= len(PROPAGATED) - propagated + runs * (STATE_EVERY - 1)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MediaError("frame 20 cannot be decoded")])
@pytest.mark.parametrize("broken", [5, 20, 21, 39, 41, 52])
def test_a_step_that_fails_half_way_spoils_nothing(broken, error):
    store, engine = DictStore(), fake_engine()

    def fail(frame: int) -> None:
        if frame == broken:
            raise error

    engine.propagator.before_step = fail
    with pytest.raises(KeyboardInterrupt if error is KeyboardInterrupt else MediaError):
        run(VIDEO, ANCHORS, FOCUS, store, engine)
    engine.propagator.before_step = lambda frame: None
    with Tracker(engine, VIDEO, FRAMES, store) as tracker:
        frames = tracker.track(ANCHORS, FOCUS)
        next(t for t in frames if t.frame == broken)
        survived = DictStore(store.blobs)  # killed as soon as that frame is there: no newer state than the failed run's
        frames.close()
    assert by_frame(run(VIDEO, ANCHORS, FOCUS, survived)) == EXPECTED
    assert by_frame(run(VIDEO, ANCHORS, FOCUS, store)) == EXPECTED


@relaxed
@given(st.data())
def test_a_store_that_lost_blobs_costs_time_and_nothing_else(data):
    store = DictStore()
    with Tracker(fake_engine(), VIDEO, FRAMES, store) as tracker:
        steps = tracker.steps(ANCHORS, FOCUS)
        list(itertools.islice(steps, data.draw(st.integers(0, STEPS), label="stop")))
        steps.close()
    for key in data.draw(st.lists(st.sampled_from([*store.blobs, "none"]), unique=True), label="lost"):
        store.blobs.pop(key, None)
    stop = data.draw(st.integers(0, STEPS), label="second stop")
    with Tracker(fake_engine(), VIDEO, FRAMES, store) as tracker:
        steps = tracker.steps(ANCHORS, FOCUS)
        first = finished(itertools.islice(steps, stop))
        assert first == [content(t) for t in UNDISTURBED[: len(first)]]
        steps.close()
    assert by_frame(run(VIDEO, ANCHORS, FOCUS, store)) == EXPECTED


@pytest.mark.parametrize("max_bytes", [0, 400, 1500, 6000])
def test_a_store_too_small_for_the_video_changes_no_mask(max_bytes):
    store = MemoryStore(max_bytes)
    for _ in range(2):
        assert by_frame(run(VIDEO, ANCHORS, FOCUS, store)) == EXPECTED


def test_a_frame_that_was_lost_early_on_does_not_cost_the_state_from_farther_on():
    store, engine, anchors = DictStore(), fake_engine(), {0: clicked()}
    with Tracker(engine, VIDEO, FRAMES, store) as tracker:
        frames = tracker.track(anchors, 0)
        list(itertools.islice(frames, 41))
        frames.close()
        [lost] = [k for k in store.blobs if k.endswith("/3")]
        del store.blobs[lost]
        frames = tracker.track(anchors, 0)
        list(itertools.islice(frames, 4))
        frames.close()
    [state] = [b for k, b in store.blobs.items() if "/state2/" in k]
    assert unpack_state(state)[0] == 40
    engine.propagator.steps.clear()
    run(VIDEO, anchors, 0, store, engine)
    assert engine.propagator.steps == list(range(41, LENGTH))


def test_going_on_beyond_the_end_of_a_finished_range():
    store, engine, anchors = DictStore(), fake_engine(), {0: clicked()}
    run(VIDEO, anchors, 0, store, engine, range(STATE_EVERY + 1))
    engine.propagator.steps.clear()
    assert by_frame(run(VIDEO, anchors, 0, store, engine)) == by_frame(run(VIDEO, anchors, 0))
    assert engine.propagator.steps == list(range(STATE_EVERY + 1, LENGTH))
    assert engine.propagator.begins[-1] == (STATE_EVERY, True)


def test_two_trackers_on_one_store_take_turns():
    """Two requests about the same object: what one has computed the other one takes over."""
    store, engine = DictStore(), fake_engine()
    one, two = (Tracker(engine, VIDEO, FRAMES, store) for _ in range(2))
    with one, two:
        turns = itertools.zip_longest(one.track(ANCHORS, 4), two.track(ANCHORS, 40))
        first, second = zip(*turns, strict=True)
    assert by_frame(list(first)) == by_frame(list(second)) == EXPECTED


def test_the_masks_are_those_of_the_known_motion():
    """The expectations of this file are themselves right, not just equal to each other."""
    masks: dict[int, Mask] = {t.frame: t.mask for t in UNDISTURBED}
    for frame in FRAMES:
        sides = sides_of(frame, ANCHORS) if frame not in ANCHORS else [frame]
        moved = [np.roll(masks[origin], frame - origin, axis=1) for origin in sides]
        assert not (masks[frame] & ~np.logical_or.reduce(moved)).any()
        assert not (np.logical_and.reduce(moved) & ~masks[frame]).any()
