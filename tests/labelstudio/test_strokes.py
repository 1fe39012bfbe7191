"""Brush strokes as the editor saves them in drafts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tam_backend.errors import BadInput
from tam_backend.labelstudio.requests import decode_region_mask
from tam_backend.labelstudio.strokes import apply_strokes
from tam_backend.masks import encode_brush_rle

HEIGHT, WIDTH = 60, 80


def stroke(*pixels: float, width: float = 8, kind: str = "add") -> dict:
    """A stroke through the pixel coordinates x0, y0, x1, y1, ... of an 80x60 picture."""
    relative = [v / (WIDTH if i % 2 == 0 else HEIGHT) * 100 for i, v in enumerate(pixels)]
    return {"type": kind, "relativePoints": relative, "relativeStrokeWidth": width / WIDTH * 100}


def distance_to_segment(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    """Distance of every pixel's centre to a line from one point to another."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    dx, dy = x1 - x0, y1 - y0
    t = ((columns - x0) * dx + (rows - y0) * dy) / ((dx**2 + dy**2) or 1)
    t = np.clip(t, 0, 1)
    return np.hypot(columns - x0 - t * dx, rows - y0 - t * dy)


coordinate_x, coordinate_y = st.floats(-10, WIDTH + 10), st.floats(-10, HEIGHT + 10)


@given(coordinate_x, coordinate_y, coordinate_x, coordinate_y, st.floats(2, 30))
def test_a_stroke_covers_what_lies_within_half_its_width(x0, y0, x1, y1, width):
    drawn = apply_strokes(np.zeros((HEIGHT, WIDTH), bool), [stroke(x0, y0, x1, y1, width=width)], "r")
    distance = distance_to_segment(x0, y0, x1, y1)
    assert drawn[distance < width / 2 - 0.9].all()
    assert not drawn[distance > width / 2 + 0.9].any()


def test_a_dab_is_a_disc():
    drawn = apply_strokes(np.zeros((HEIGHT, WIDTH), bool), [stroke(40, 30, width=20)], "r")
    distance = distance_to_segment(40, 30, 40, 30)
    assert drawn[distance < 9.2].all()
    assert not drawn[distance > 10.8].any()


def test_strokes_count_in_their_order():
    start = np.ones((HEIGHT, WIDTH), bool)
    erase, paint = stroke(0, 30, 80, 30, width=20, kind="eraser"), stroke(40, 0, 40, 60, width=10)
    first = apply_strokes(start, [erase, paint], "r")
    assert first[30, 40]
    assert not first[30, 10]
    second = apply_strokes(start, [paint, erase], "r")
    assert not second[30, 40]
    assert start.all()  # the given mask is not touched
    np.testing.assert_array_equal(apply_strokes(first, [erase, paint], "r"), first)


@pytest.mark.parametrize("fixed", [True, False])
def test_regions_of_drafts(fixed):
    old = np.zeros((HEIGHT, WIDTH), bool)
    old[10:20, 10:20] = True
    value = {"format": "rle", "touches": [stroke(50, 40, 60, 40)]} | ({"rle": encode_brush_rle(old)} if fixed else {})
    region = {"id": "r", "original_width": WIDTH, "original_height": HEIGHT, "value": value}
    mask = decode_region_mask(region, HEIGHT, WIDTH)
    assert mask[40, 55]
    assert mask[15, 15] == fixed


@pytest.mark.parametrize(
    ("touches", "says"),
    [
        ("x", "must be a list"),
        ([5], r"touches\[0\] must be an object"),
        ([stroke(1, 2) | {"relativePoints": [1, 2, 3]}], "pairs of numbers"),
        ([stroke(1, 2) | {"relativePoints": [1, float("inf")]}], "pairs of numbers"),
        ([stroke(1, 2), stroke(1, 2) | {"relativePoints": ["1", 2]}], r"touches\[1\].*pairs of numbers"),
        ([stroke(1, 2) | {"relativeStrokeWidth": 0}], "relativeStrokeWidth is 0"),
        ([stroke(1, 2) | {"relativeStrokeWidth": 1e9}], "relativeStrokeWidth"),
        ([stroke(1, 2) | {"relativeStrokeWidth": None}], "relativeStrokeWidth"),
        ([stroke(1, 2) | {"type": "flood"}], "must be add or eraser"),
    ],
)
def test_unreadable_strokes_are_named(touches, says):
    with pytest.raises(BadInput, match=says):
        apply_strokes(np.zeros((HEIGHT, WIDTH), bool), touches, "region 'r'")


def test_strokes_far_outside_change_nothing_and_cost_nothing():
    drawn = apply_strokes(np.zeros((HEIGHT, WIDTH), bool), [stroke(1e9, 1e9, 2e9, 1e9)], "r")
    assert not drawn.any()
