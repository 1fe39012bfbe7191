"""What a tracker promises about the frames it yields: which, in what order, decided by which prompts."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tam_backend.errors import BadInput
from tam_backend.prompts import Box, Click, FramePrompts, Mask
from tam_backend.propagators.base import Propagated
from tam_backend.quality import from_anchor
from tam_backend.tracking.fusion import fuse
from tam_backend.tracking.tracker import Anchor, Step, Tracker
from tests.tracking.fakes import (
    HEIGHT,
    WIDTH,
    DictStore,
    ShiftPropagator,
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

LENGTH = 14
VIDEO = memory_video(LENGTH)


def distinct(frame: int) -> Anchor:
    """An anchor whose mask differs from that of every other frame: a drawn one on odd frames, a click on even ones."""
    if frame % 2:
        return drawn(disc(8 + frame % 5, 6 + frame % 12, 3))
    return clicked(6.5 + frame % 7, 6.5 + frame % 11)


@st.composite
def situations(draw: st.DrawFn, min_anchors: int = 1) -> tuple[range, list[int], int]:
    """A range of frames, the frames with prompts in the order they were given, and where the person looks."""
    start = draw(st.integers(0, LENGTH - min_anchors))
    stop = draw(st.integers(start + min_anchors, LENGTH))
    frames = range(start, stop)
    anchors = draw(st.lists(st.sampled_from(frames), min_size=min_anchors, max_size=4, unique=True))
    return frames, anchors, draw(st.sampled_from(frames))


def distance(frame: int, focus: int) -> tuple[int, int]:
    return abs(frame - focus), frame


# ---- order


@relaxed
@given(situations())
def test_every_frame_comes_once_anchors_first_then_nearest_to_focus(situation):
    frames, anchors, focus = situation
    order = [t.frame for t in run(VIDEO, {a: distinct(a) for a in anchors}, focus, frames=frames)]

    assert sorted(order) == list(frames)
    assert order[: len(anchors)] == sorted(anchors, key=lambda f: distance(f, focus))
    left = [f for f in frames if f not in anchors]
    for frame in order[len(anchors) :]:
        # A frame that is not the nearest of all can come first only where a run passes it on the way to that one, and
        # has it for itself.
        target = min(left, key=lambda f: distance(f, focus))
        if frame != target:
            [side] = sides_of(frame, anchors)
            assert side in sides_of(target, anchors)
            assert min(side, target) < frame < max(side, target)
        left.remove(frame)


@pytest.mark.parametrize("corrected", [20, 33])
def test_the_frames_around_a_correction_cost_one_step_each(corrected):
    """What comes from the other anchors is not waited for."""
    video, store, engine = memory_video(60), DictStore(), fake_engine()
    anchors = {0: clicked(), 56: clicked(20, 5)}
    run(video, anchors, 0, store, engine)
    engine.propagator.steps.clear()
    with Tracker(engine, video, range(60), store) as tracker:
        fresh = (t.frame for t in tracker.track(anchors | {corrected: clicked(9, 9)}, corrected) if not t.reused)
        shorter = min(corrected, 56 - corrected) // 4
        assert [next(fresh) for _ in range(1 + 2 * shorter)] == sorted(
            range(corrected - shorter, corrected + shorter + 1), key=lambda f: distance(f, corrected)
        )
    assert len(engine.propagator.steps) == 2 * shorter


def test_a_caller_can_stop_after_each_frame_computed():
    engine = fake_engine()
    with Tracker(engine, VIDEO, range(2, 9), DictStore(), range(LENGTH)) as tracker:
        computed = 0
        for step in tracker.steps({0: clicked(), 12: distinct(12)}, 0):
            assert len(engine.propagator.steps) - computed <= 1
            computed = len(engine.propagator.steps)
            if isinstance(step, Step):
                assert not step.reused
    assert computed == len(steps_between(range(2, 9), [0, 12])) + len([1, 9, 10, 11])


def test_steps_on_stored_frames_say_so():
    store = DictStore()
    run(VIDEO, {0: clicked(), 12: clicked(20, 5)}, 0, store)
    with Tracker(fake_engine(), VIDEO, range(LENGTH), store) as tracker:
        steps = list(tracker.steps({0: clicked(), 12: clicked(20, 5)}, 0))
    assert all(s.reused for s in steps)
    assert sum(isinstance(s, Step) for s in steps) == len([4, 5, 6, 7, 8])


def test_with_one_prompt_frames_come_in_the_order_of_distance():
    order = [t.frame for t in run(VIDEO, {5: clicked()}, focus=5)]
    assert order == [5, 4, 6, 3, 7, 2, 8, 1, 9, 0, 10, 11, 12, 13]


def test_tracked_frames_say_what_they_are():
    store = DictStore()
    anchors = {3: clicked(), 9: drawn(disc(10, 10, 4))}
    first = {t.frame: t for t in run(VIDEO, anchors, 3, store)}
    second = {t.frame: t for t in run(VIDEO, anchors, 3, store)}

    assert {f for f, t in first.items() if t.anchor} == {3, 9}
    assert {f for f, t in first.items() if t.by_hand} == {9}
    assert not any(t.reused for t in first.values())
    assert {f for f, t in second.items() if not t.reused} == {9}, "a drawn mask is not kept in the store"
    assert first[3].quality == 0.9
    assert first[9].quality == 1.0
    assert all(t.mask.dtype == bool and t.mask.shape == (HEIGHT, WIDTH) for t in first.values())


def test_without_prompts_there_is_nothing_to_yield():
    assert run(VIDEO, {}, 0) == []


# ---- who decides a frame


def walk(anchors: dict[int, Mask], origin: int, frame: int) -> Propagated:
    """A frame as it is reached from one anchor, without a tracker."""
    propagation = ShiftPropagator().begin(VIDEO, anchors, origin)
    direction = 1 if frame > origin else -1
    return [propagation.step(f) for f in range(origin + direction, frame + direction, direction)][-1]


@relaxed
@given(situations())
def test_the_anchors_around_a_frame_decide_by_distance_and_quality(situation):
    frames, anchors, focus = situation
    tracked = {t.frame: t for t in run(VIDEO, {a: distinct(a) for a in anchors}, focus, frames=frames)}
    for frame in set(frames) - set(anchors):
        before, after = (max((a for a in anchors if a < frame), default=None),
                         min((a for a in anchors if a > frame), default=None))  # fmt: skip
        bracket = {a: tracked[a].mask for a in (before, after) if a is not None}
        reached = {side: walk(bracket, side, frame) for side in sides_of(frame, anchors)}
        sides = [replace(p, quality=from_anchor(p.quality, tracked[a].quality)) for a, p in reached.items()]
        expected = sides[0]
        if len(sides) == 2:
            expected = fuse(*sides, (frame - before) / (after - before) * 2 - 0.5)
        assert np.array_equal(tracked[frame].soft, expected.soft), frame
        assert tracked[frame].quality == pytest.approx(expected.quality)


def test_the_other_anchor_of_the_span_is_memory():
    one = by_frame(run(VIDEO, {0: clicked()}, 0))
    two = by_frame(run(VIDEO, {0: clicked(), 12: drawn(disc(10, 10, 4))}, 0))
    other = by_frame(run(VIDEO, {0: clicked(), 12: drawn(disc(10, 10, 6))}, 0))
    assert one[3] != two[3] != other[3] != one[3]


def test_an_empty_mask_says_that_the_object_is_not_there():
    tracked = {t.frame: t for t in run(VIDEO, {0: clicked(), 10: drawn(np.zeros((HEIGHT, WIDTH), bool))}, 0)}
    assert tracked[2].mask.any()
    assert not tracked[8].mask.any()
    assert not tracked[13].mask.any()


@relaxed
@given(situations())
def test_the_focus_changes_the_order_and_nothing_else(situation):
    frames, anchors, focus = situation
    prompts = {a: distinct(a) for a in anchors}
    assert by_frame(run(VIDEO, prompts, focus, frames=frames)) == by_frame(
        run(VIDEO, prompts, frames.start, frames=frames)
    )


@relaxed
@given(situations())
def test_a_shorter_range_has_the_masks_of_the_longer_one(situation):
    frames, anchors, focus = situation
    prompts = {a: distinct(a) for a in anchors}
    whole = by_frame(run(VIDEO, prompts, focus))
    assert by_frame(run(VIDEO, prompts, focus, frames=frames)).items() <= whole.items()


# ---- corrections


@relaxed
@given(situations(min_anchors=2))
def test_a_correction_computes_the_span_between_its_neighbours_and_nothing_else(situation):
    frames, anchors, focus = situation
    *earlier, corrected = anchors
    store, engine = DictStore(), fake_engine()
    prompts = {a: distinct(a) for a in earlier}
    before = by_frame(run(VIDEO, prompts, focus, store, engine, frames))
    engine.propagator.steps.clear()
    after = by_frame(run(VIDEO, prompts | {corrected: distinct(corrected)}, focus, store, engine, frames))

    low = max((a for a in earlier if a < corrected), default=frames.start - 1)
    high = min((a for a in earlier if a > corrected), default=frames.stop)
    inside = set(range(low + 1, high))
    assert all(before[f] == after[f] for f in frames if f not in inside)
    assert sorted(engine.propagator.steps) == steps_between(inside, anchors)


@relaxed
@given(situations(min_anchors=2), st.randoms(use_true_random=False))
def test_the_order_of_corrections_does_not_matter(situation, random):
    frames, anchors, focus = situation
    prompts = {a: distinct(a) for a in anchors}
    expected = by_frame(run(VIDEO, prompts, focus, frames=frames))
    random.shuffle(anchors)
    store, so_far = DictStore(), {}
    for anchor in anchors:
        so_far[anchor] = prompts[anchor]
        last = run(VIDEO, so_far, anchor, store, frames=frames)
    assert by_frame(last) == expected


def test_taking_a_correction_back_finds_the_old_masks_in_the_store():
    store, engine = DictStore(), fake_engine()
    first = by_frame(run(VIDEO, {2: clicked()}, 2, store, engine))
    run(VIDEO, {2: clicked(), 9: clicked(20, 5)}, 2, store, engine)
    engine.propagator.steps.clear()
    assert by_frame(run(VIDEO, {2: clicked()}, 2, store, engine)) == first
    assert engine.propagator.steps == []


def test_a_drawn_mask_comes_back_as_it_was_drawn():
    ragged = np.random.default_rng(1).random((HEIGHT, WIDTH)) < 0.5
    engine = fake_engine()
    anchor = Anchor(FramePrompts(clicks=(Click(1, 1),), mask=ragged), prior=disc(5, 5, 3))
    for anchors in ({4: anchor}, {4: anchor, 3: clicked(), 5: clicked(20, 9)}):
        t = next(t for t in run(VIDEO, anchors, 0, engine=engine) if t.frame == 4)
        assert (t.by_hand, t.anchor, t.quality) == (True, True, 1.0)
        assert np.array_equal(t.soft, np.where(ragged, 255, 0))
    assert all(frame != 4 for frame, _ in engine.segmenter.asked)


def test_what_was_on_the_screen_before_does_not_matter_to_a_drawn_mask():
    mask = disc(10, 10, 4)
    assert Anchor(FramePrompts(mask=mask), prior=disc(5, 5, 3)).digest() == drawn(mask).digest()
    click = FramePrompts(clicks=(Click(10, 10),))
    assert Anchor(click, prior=disc(5, 5, 3)).digest() != Anchor(click).digest()


def test_a_rough_mask_is_refined_and_is_no_drawing():
    """The fake segmenter makes a disc of radius 5 around a click, here one in the middle of the mask."""
    engine, store = fake_engine(), DictStore()
    anchors = {4: Anchor(FramePrompts(mask=disc(10.5, 10.5, 3), refine=True))}
    [first] = [t for t in run(VIDEO, anchors, 0, store, engine) if t.frame == 4]
    assert (first.by_hand, first.anchor) == (False, True)
    assert np.array_equal(first.mask, disc(10.5, 10.5, 5))
    [again] = [t for t in run(VIDEO, anchors, 0, store, engine) if t.frame == 4]
    assert again.reused
    clicks = (Click(10.5, 10.5), Click(20, 8))
    assert Anchor(FramePrompts(clicks, mask=disc(10.5, 10.5, 3), refine=True)).digest() != anchors[4].digest()


# ---- the store


def test_different_content_never_shares_results():
    other_video = memory_video(LENGTH, seed=1)
    cases = [
        (VIDEO, {3: clicked()}, fake_engine()),
        (VIDEO, {3: clicked(11.5)}, fake_engine()),
        (VIDEO, {4: clicked()}, fake_engine()),
        (VIDEO, {3: Anchor(clicked().prompts, prior=disc(9, 12, 3))}, fake_engine()),
        (VIDEO, {3: clicked()}, fake_engine("2")),
        (other_video, {3: clicked()}, fake_engine()),
    ]
    store = DictStore()
    for video, anchors, engine in cases:
        shared = run(video, anchors, 3, store, engine)
        assert sorted(engine.propagator.steps) == [f for f in range(LENGTH) if f not in anchors]
        assert by_frame(shared) == by_frame(run(video, anchors, 3))


@relaxed
@given(situations(), st.integers(0, LENGTH))
def test_stored_is_what_track_yields_and_computes_nothing(situation, stop):
    frames, anchors, focus = situation
    prompts = {a: distinct(a) for a in anchors}
    engine = fake_engine()
    with Tracker(engine, VIDEO, frames, DictStore()) as tracker:
        drawn_frames = {a for a in anchors if a % 2}
        assert {f for f in frames if tracker.stored(prompts, f)} == drawn_frames
        yielded = {t.frame: content(t) for t in itertools.islice(tracker.track(prompts, focus), stop)}
        asked, steps = len(engine.segmenter.asked), len(engine.propagator.steps)
        stored = {f: content(t) for f in frames if (t := tracker.stored(prompts, f))}
        assert {f: c for f, c in stored.items() if f in yielded} == yielded
        assert stored.keys() == yielded.keys() | drawn_frames
        assert (len(engine.segmenter.asked), len(engine.propagator.steps)) == (asked, steps)


def test_stored_without_prompts_is_nothing():
    with Tracker(fake_engine(), VIDEO, range(LENGTH), DictStore()) as tracker:
        assert tracker.stored({}, 3) is None


# ---- what cannot be used

WRONG = np.zeros((HEIGHT, WIDTH + 1), bool)


@pytest.mark.parametrize(
    ("anchors", "message"),
    [
        ({1: clicked()}, "frame 1 is outside the range 2 to 9: prompts must be on frames of the range"),
        ({10: clicked()}, "frame 10 is outside the range 2 to 9"),
        ({3: clicked(WIDTH, 0)}, r"frame 3: click \(32, 0\) is outside the frame: x must be in \[0, 32\)"),
        ({3: clicked(0, -0.1)}, r"frame 3: click \(0, -0.1\) is outside the frame"),
        ({3: clicked(float("nan"), 0)}, r"frame 3: click \(nan, 0\) is outside the frame"),
        ({3: drawn(WRONG)}, r"frame 3: mask is 24x33 \(height x width\), the frame is 24x32"),
        ({3: Anchor(clicked().prompts, prior=WRONG)}, "frame 3: the mask that the prompts correct is 24x33"),
        ({3: Anchor(FramePrompts(box=Box(5, 5, 5, 9)))}, "frame 3: box .* must be left < right"),
        ({3: Anchor(FramePrompts())}, "frame 3: negative clicks alone do not say where the object is"),
        ({3: clicked(), 4: Anchor(FramePrompts(clicks=(Click(1, 1, False),)))}, "frame 4: negative clicks alone"),
    ],
)
def test_prompts_that_cannot_be_used(anchors, message):
    engine = fake_engine()
    with (
        Tracker(engine, VIDEO, range(2, 10), DictStore()) as tracker,
        pytest.raises(BadInput, match=message),
    ):
        next(tracker.track(anchors, 3))
    assert engine.segmenter.asked == []


@pytest.mark.parametrize("frames", [range(-1, 3), range(0, LENGTH + 1), range(3, 3), range(5, 2), range(0, 8, 2)])
def test_ranges_that_are_not_in_the_video(frames):
    with pytest.raises(BadInput, match=f"it has {LENGTH}"):
        Tracker(fake_engine(), VIDEO, frames, DictStore())


def test_closing_closes_what_the_tracker_opened():
    video = memory_video(4)
    run(video, {0: clicked()}, 0)
    assert not video.closed
    assert [c.closed for c in video.clones] == [True]
