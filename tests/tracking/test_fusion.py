"""How two masks of one frame become one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tam_backend.propagators.base import SOFT_THRESHOLD, Propagated
from tam_backend.quality import needs_a_look
from tam_backend.tracking.fusion import fuse, share_of_later
from tests.tracking.fakes import disc, relaxed, sides_of


def side(*soft: int, quality: float = 0.8) -> Propagated:
    return Propagated(np.array([soft], np.uint8), quality)


@relaxed
@given(st.integers(0, 50), st.integers(2, 400), st.data())
def test_the_share_is_that_of_the_slow_model(earlier, length, data):
    later = earlier + length
    frame = data.draw(st.integers(earlier + 1, later - 1))
    share = share_of_later(frame, earlier, later)
    assert [a for a, s in ((earlier, 1 - share), (later, share)) if s > 0] == sides_of(frame, [earlier, later])
    assert share == pytest.approx(np.clip(2 * (frame - earlier) / length - 0.5, 0, 1))


@relaxed
@given(st.integers(2, 400), st.data())
def test_backward_is_the_mirror_of_forward(length, data):
    frame = data.draw(st.integers(1, length - 1))
    assert share_of_later(frame, 0, length) == pytest.approx(1 - share_of_later(length - frame, 0, length))


def test_what_both_say_stays():
    result = fuse(side(0, 100, 128, 255), side(0, 100, 128, 255), 0.3)
    assert result.soft.tolist() == [[0, 100, 128, 255]]
    assert result.quality >= 0.8


@pytest.mark.parametrize(("share", "decides"), [(0.1, 0), (0.4, 0), (0.6, 1), (0.9, 1)])
def test_the_nearer_side_decides_where_the_qualities_are_equal(share, decides):
    sides = side(255, 0), side(0, 255)
    assert np.array_equal(fuse(*sides, share).soft >= SOFT_THRESHOLD, sides[decides].soft >= SOFT_THRESHOLD)


def test_the_better_side_decides_from_farther_away():
    good, bad = side(255, 0, quality=0.9), side(0, 255, quality=0.4)
    for share, results in ((0.9, [[True, False]]), (0.999, [[False, True]])):
        assert (fuse(good, bad, share).soft >= SOFT_THRESHOLD).tolist() == results
    assert (fuse(bad, good, 0.1).soft >= SOFT_THRESHOLD).tolist() == [[True, False]]


def test_a_side_that_is_a_little_better_decides_only_near_the_middle():
    better, worse = side(255, 0, quality=0.8), side(0, 255, quality=0.7)
    decided = [fuse(better, worse, share).soft[0, 0] >= SOFT_THRESHOLD for share in (0.6, 0.8)]
    assert decided == [True, False]


def test_a_side_that_knows_nothing_does_not_count():
    assert fuse(side(255, 0, quality=0.0), side(0, 255, quality=0.3), 0.1).soft.tolist() == [[0, 255]]
    assert fuse(side(200, 0, quality=0.0), side(0, 200, quality=0.0), 0.2).soft.tolist() == [[160, 40]]


@relaxed
@given(st.floats(0.001, 0.999), st.floats(0, 1), st.floats(0, 1))
def test_one_side_decides_where_they_contradict_each_other(share, one, other):
    result = fuse(side(255, 0, quality=one), side(0, 255, quality=other), share)
    assert np.count_nonzero(result.soft >= SOFT_THRESHOLD) == 1


def test_a_tie_goes_to_the_earlier_side():
    assert (fuse(side(255, 0), side(0, 255), 0.5).soft >= SOFT_THRESHOLD).tolist() == [[True, False]]


def test_quality_falls_where_the_sides_disagree():
    here, near, far = (Propagated(255 * disc(x, 12, 6).astype(np.uint8), 0.8) for x in (10, 12, 24))
    agreed, less, least = (fuse(here, other, 0.5).quality for other in (here, near, far))
    assert agreed > less > least
    assert needs_a_look(least)


def test_two_empty_sides_agree():
    assert fuse(side(0, 0), side(0, 0), 0.5).quality >= 0.8
