from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tam_backend.export.keyframes import interpolate, reduce_boxes

coordinates = st.integers(0, 60)
boxes = st.builds(lambda x, y, w, h: (x, y, x + w + 1, y + h + 1), coordinates, coordinates, coordinates, coordinates)


@given(st.dictionaries(st.integers(0, 40), boxes))
def test_interpolation_stays_within_a_pixel_and_the_object_is_gone_where_it_was(found):
    keyframes = reduce_boxes(found)
    for frame in range(42):
        shown = interpolate(keyframes, frame)
        if frame not in found:
            assert shown is None
        else:
            assert shown is not None
            assert max(abs(a - b) for a, b in zip(shown, found[frame], strict=True)) <= 1 + 1e-9


def test_a_straight_way_needs_its_ends_alone():
    way = {f: (2 * f, 10, 2 * f + 30, 50) for f in range(5, 100)}
    assert [(k.frame, k.last) for k in reduce_boxes(way)] == [(5, False), (99, True)]


def test_rounding_to_pixels_needs_no_keyframes():
    way = {f: (round(1.37 * f), 10, round(1.37 * f) + 30, 50) for f in range(100)}
    assert len(reduce_boxes(way)) == 2


def test_a_gap_ends_a_stay():
    keyframes = reduce_boxes({0: (0, 0, 9, 9), 1: (0, 0, 9, 9), 5: (3, 0, 9, 9)})
    assert [(k.frame, k.last) for k in keyframes] == [(0, False), (1, True), (5, True)]
