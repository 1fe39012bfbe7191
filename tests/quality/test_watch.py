"""What the watch says of good and of bad masks in made-up scenes, and that it can be interrupted."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from tam_backend.quality import PARTS, Watch, load_calibration

SIZE = (60, 80)
GREEN, RED = (90, 90, 150), (130, 200, 160)


def disc(column, radius=20):
    rows, columns = np.indices(SIZE)
    return np.hypot(rows - 30, columns - column) <= radius


def soft_of(mask):
    return cv2.GaussianBlur(255 * mask.astype(np.uint8), (0, 0), 0.7)


def lab_of(mask):
    noise = np.random.default_rng(0).integers(-6, 7, (*SIZE, 3))
    return (np.where(mask[..., None], RED, GREEN) + noise).astype(np.uint8)


def flows(mask, motion=2.0):
    back = np.zeros((*SIZE, 2), np.float32)
    back[mask, 0] = -motion
    there = np.zeros((*SIZE, 2), np.float32)
    there[np.roll(mask, -round(motion), axis=1), 0] = motion
    return back, there


def new_watch(*others):
    start = disc(30)
    return Watch([(soft_of(start), lab_of(start)), *others])


def walk(watch, frames, shown=None):
    """The parts of some frames; ``shown``: another mask than the true one."""
    found = []
    for frame in frames:
        mask = disc(30 + 2 * frame)
        found.append(watch.step(soft_of(mask if shown is None else shown), lab_of(mask), *flows(mask)))
    return found


def estimate(found):
    return load_calibration().estimate(found)


def test_a_followed_disc_is_good():
    for found in walk(new_watch(), range(1, 8)):
        assert tuple(found) == PARTS
        assert all(value >= 0 for value in found.values())
        assert estimate(found) > 0.75


@pytest.mark.parametrize(
    ("shown", "parts"),
    [
        (disc(60), {"strange"}),
        (disc(32, 10), {"shrunk", "leaking"}),
        (disc(32) & (np.indices(SIZE)[0] % 3 > 0), {"frayed", "edge", "leaking"}),
    ],
)
def test_a_bad_mask_is_spoken_against_by_what_is_wrong_with_it(shown, parts):
    [good] = walk(new_watch(), [1])
    [bad] = walk(new_watch(), [1], shown)
    assert {name for name in PARTS if bad[name] > good[name] + 0.05} >= parts
    assert estimate(bad) < estimate(good)


def test_doubtful_flow_and_undecided_probability_lower_the_figure():
    mask = disc(32)
    back, there = flows(mask)
    soft, lab = soft_of(mask), lab_of(mask)
    good = new_watch().step(soft, lab, back, there)
    doubt = new_watch().step(soft, lab, back, -there)
    assert doubt["doubt"] > good["doubt"] + 0.5
    assert estimate(doubt) < estimate(good)
    soft[mask] = 150
    vague = new_watch().step(soft, lab, back, there)
    assert vague["entropy"] > good["entropy"] + 0.3
    assert estimate(vague) < estimate(good)


def test_the_way_adds_up_and_an_empty_mask_is_remembered():
    watch = new_watch()
    first, second = walk(watch, [1, 2])
    assert second["way"] > first["way"]
    empty = np.zeros(SIZE, np.uint8)
    assert watch.step(empty, lab_of(disc(36)), *flows(disc(36))) is None
    [after] = walk(watch, [4])
    assert after["lost"] > second["lost"] == 0


def test_it_goes_on_from_its_state_bit_for_bit():
    whole = walk(new_watch(), range(1, 8))
    watch = new_watch()
    walk(watch, range(1, 4))
    state = watch.state()
    walk(watch, range(4, 6))  # what comes later does not reach the state taken
    again = new_watch()
    again.resume(state)
    assert walk(again, range(4, 8)) == whole[3:]


def test_anchors_that_do_not_show_the_object():
    empty = (np.zeros(SIZE, np.uint8), lab_of(disc(30)))
    nowhere = Watch([empty])
    assert (nowhere.shown, nowhere.absent) == (False, True)
    once = new_watch(empty)
    assert (once.shown, once.absent) == (True, True)
    assert (new_watch().shown, new_watch().absent) == (True, False)


def test_a_mask_that_fills_the_frame():
    full = np.ones(SIZE, bool)
    watch = Watch([(soft_of(full), lab_of(full))])
    found = watch.step(soft_of(full), lab_of(full), *flows(full))
    assert found is not None
    assert 0 < estimate(found) < 1
