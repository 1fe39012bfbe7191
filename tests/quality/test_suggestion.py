"""The frame whose correction is expected to help most."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tam_backend.quality import review, suggest
from tam_backend.quality.suggestion import (
    COMES_TRUE,
    ESTIMATE_ERROR,
    FALL,
    FIRM,
    LEAST_ERROR,
    LEAST_FALL,
    REACH,
    START,
    START_COUNTS,
)

CURVES = st.dictionaries(st.integers(0, 400), st.floats(0, 1), min_size=1, max_size=80)


def slow_suggestion(quality, confirmed):
    """The rule, frame by frame, as the docstring of ``suggest`` says it."""
    open_frames = sorted(set(quality) - set(confirmed))
    if not open_frames:
        return None

    def way(frame):
        return min((abs(frame - c) for c in confirmed), default=4 * REACH)

    # Ridge regression by least squares on the frames and on eight more that say what is expected, and four times as
    # firmly of the slope.
    ways = [np.log(way(f)) for f in open_frames]
    rows = [[1, -w] for w in ways] + [[FIRM**0.5, 0], [0, (4 * FIRM) ** 0.5]]
    aims = [quality[f] for f in open_frames] + [FIRM**0.5 * START, (4 * FIRM) ** 0.5 * FALL]
    start, fall = np.linalg.lstsq(np.array(rows), np.array(aims), rcond=None)[0]
    fall = max(fall, LEAST_FALL)

    def usual(distance):
        return min(1.0, max(LEAST_ERROR, 1 - start + fall * np.log(distance)))

    # The mean of two normal distributions about an error: what is usual there, and the estimate.
    spread = sum((1 - quality[f] - usual(way(f))) ** 2 for f in open_frames) / len(open_frames)
    total = spread + ESTIMATE_ERROR**2
    errors = {f: (ESTIMATE_ERROR**2 * usual(way(f)) + spread * (1 - quality[f])) / total for f in open_frames}
    gains = dict(errors)
    starts = START_COUNTS / max(1, len(set(confirmed)))
    for f in open_frames:
        for g in open_frames:
            nearer = abs(f - g) < way(g)
            if g != f and abs(f - g) <= REACH and nearer:
                hard = starts * errors[f] / usual(way(f)) + (1 - starts) * errors[g] / usual(way(g))
                gains[f] += COMES_TRUE * max(0, errors[g] - hard * usual(abs(f - g)))
    return gains


@settings(max_examples=60, deadline=None)
@given(CURVES, st.sets(st.integers(-50, 450), max_size=6))
def test_it_is_what_the_slow_rule_gives(quality, confirmed):
    gains = slow_suggestion(quality, confirmed)
    found = suggest(quality, confirmed)
    if gains is None:
        assert found is None
        return
    assert found is not None
    assert found.gain == pytest.approx(gains[found.frame], abs=1e-4)
    assert gains[found.frame] == pytest.approx(max(gains.values()), abs=1e-4)


def test_equals_go_to_the_earlier_frame():
    assert suggest(dict.fromkeys(range(9), 0.5), [4]).frame < 4
    assert suggest({1: 0.5, 5: 0.5}, [0, 2, 4, 6]).frame == 1


def test_a_poor_stretch_beats_a_poorer_single_frame():
    quality = dict.fromkeys(range(100), 0.9) | {10: 0.1} | dict.fromkeys(range(60, 80), 0.4)
    assert 60 <= suggest(quality, [0, 50, 99]).frame < 80


def test_where_little_is_around_the_poorest_comes_first():
    quality = dict.fromkeys(range(1, 5), 0.4) | {1: 0.0}
    assert suggest(quality, [0, 5]).frame == 1


def test_a_few_frames_that_seem_poor_do_not_outweigh_a_long_way():
    quality = {f: 0.9 - 0.1 * np.log(min(f, 100 - f)) for f in range(1, 100)} | {99: 0.6}
    assert 40 <= suggest(quality, [0, 100]).frame <= 60


def test_a_frame_on_which_the_object_is_seen_comes_before_the_poorest_of_a_hard_stretch():
    """As where it passes behind something: from there it is lost again at once."""
    quality = {f: 0.8 - 0.05 * np.log(f) for f in range(1, 80)} | dict.fromkeys(range(50, 60), 0.15)
    frame = suggest(quality, [0]).frame
    assert 20 <= frame < 80
    assert not 50 <= frame < 60


def test_of_two_equal_gaps_the_poor_one_comes_first():
    good, poor = dict.fromkeys(range(1, 40), 0.9), dict.fromkeys(range(41, 80), 0.5)
    assert suggest(good | poor, [0, 40, 80]).frame > 40


def test_where_all_is_alike_the_longest_gap_comes_first():
    quality = dict.fromkeys(range(120), 0.6)
    frame = suggest(quality, [0, 30, 119]).frame
    assert 60 <= frame <= 90


def test_one_confirmed_frame_after_the_other_spreads_out():
    confirmed = [0]
    for _ in range(6):
        confirmed.append(suggest(dict.fromkeys(range(100), 0.7), confirmed).frame)
    gaps = np.diff(sorted(confirmed))
    assert gaps.min() >= 8


def test_frames_without_masks_do_not_count():
    """A gap in what is finished gains nothing, and is not suggested."""
    quality = {f: 0.5 for f in range(100) if not 20 <= f < 80}
    assert suggest(quality, [0]).frame in quality


def test_ten_thousand_frames_are_quick():
    rng = np.random.default_rng(1)
    quality = dict(enumerate(rng.random(10_000).tolist()))
    suggest(quality, [0, 5000])
    began = time.process_time()
    suggest(quality, [0, 5000])
    assert time.process_time() - began < 0.05


class TestReview:
    def test_confirmed_frames_are_right_and_others_are_counted(self):
        found = review({0: 0.2, 1: 0.75, 2: 0.74, 3: 0.2}, [0, 40])
        assert (found.frames, found.look) == (4, 2)
        assert found.share == 0.5
        assert found.mean == pytest.approx((1 + 0.75 + 0.74 + 0.2) / 4)
        assert found.fix_next == suggest({1: 0.75, 2: 0.74, 3: 0.2}, [0, 40]).frame
        assert found.gain > 0

    def test_nothing_is_suggested_where_nothing_needs_a_look(self):
        found = review({0: 0.9, 1: 0.8}, [])
        assert (found.look, found.fix_next, found.gain) == (0, None, 0.0)

    def test_nothing_at_all(self):
        found = review({}, [3])
        assert (found.frames, found.share, found.mean, found.fix_next) == (0, 0.0, 0.0, None)
