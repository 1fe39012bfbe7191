"""When a mask is taken for the object, and when for what hides it."""

import numpy as np

from tam_backend.propagators.embedded.sighting import Sighting

MASK = np.zeros((40, 60), bool)
MASK[10:20, 10:20] = True
PART = slice(100, 140), slice(200, 260)


def see(sighting, pace, agreement=0.95, mask=MASK):
    return sighting.update(mask, agreement, np.full(mask.shape, pace, np.float32), (0.0, 0.0), PART)


def seen_at(pace):
    sighting = Sighting(114.5, 214.5, area=100.0)
    for _ in range(5):
        assert see(sighting, pace)
    return sighting


def test_the_place_is_that_in_the_whole_frame():
    sighting = seen_at(20.0)
    assert (sighting.row, sighting.column) == (114.5, 214.5)
    assert sighting.area == 100


def test_what_was_quick_and_stands_still_at_once_is_not_the_object():
    sighting = seen_at(60.0)
    assert not see(sighting, 1.0)
    assert sighting.gone == 1
    assert see(sighting, 50.0)
    assert sighting.gone == 0


def test_slowing_down_is_not_disappearing():
    sighting = seen_at(60.0)
    for frame in range(30):
        assert see(sighting, 60 * 0.8**frame)


def test_what_did_stop_is_seen_again_after_a_while():
    sighting = seen_at(60.0)
    seen = [see(sighting, 1.0) for _ in range(40)]
    assert not seen[0]
    assert seen[-1]
    assert sum(seen) >= 10


def test_it_does_not_become_the_object_if_its_colours_are_others():
    sighting = seen_at(60.0)
    assert not any(see(sighting, 1.0, agreement=0.6) for _ in range(60))


def test_what_never_moved_may_stand_still():
    assert see(seen_at(0.5), 0.0)


def test_an_empty_mask_is_not_the_object():
    assert not see(seen_at(0.5), 0.0, mask=np.zeros_like(MASK))
