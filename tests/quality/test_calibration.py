"""From parts to a figure."""

from __future__ import annotations

import json
from importlib import resources

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tam_backend.errors import BadInput
from tam_backend.quality import PARTS, Calibration, agreement, from_anchor, fused_quality, load_calibration
from tam_backend.quality.calibration import parse_calibration

UNIT = st.floats(0, 1)
HAND = Calibration(2.0, {"a": 1.0, "b": 0.5}, 0.3, 0.8, 2.0, (0.0, 1.0, 1.0))


def test_a_logistic_sum():
    assert HAND.estimate({"a": 1.0, "b": 2.0}) == pytest.approx(0.5)
    assert HAND.estimate({"a": 0.0, "b": 0.0}) == pytest.approx(1 / (1 + np.exp(-2)))


def test_other_parts_are_refused():
    with pytest.raises(BadInput, match="the numbers are for the parts a, b; given: a"):
        HAND.estimate({"a": 1.0})


def test_the_numbers_of_the_product_are_usable():
    numbers = load_calibration("embedded")
    assert tuple(numbers.weights) == PARTS
    assert all(weight >= 0 for weight in numbers.weights.values())
    assert numbers.given >= 0
    assert numbers.estimate(dict.fromkeys(PARTS, 0.0)) > 0.85
    text = resources.files("tam_backend.quality").joinpath("embedded.json").read_text()
    assert json.loads(text)["made by"] == "benchmarks/calibrate_quality.py"
    assert parse_calibration(text) == numbers


def test_an_engine_without_numbers():
    with pytest.raises(BadInput, match="not calibrated for the engine 'xmem'"):
        load_calibration("xmem")


@given(UNIT, UNIT)
def test_a_worse_anchor_never_raises_the_figure(quality, anchor):
    found = from_anchor(quality, anchor)
    assert 0 <= found <= 1
    assert found <= max(quality, 1e-3) + 1e-9
    assert from_anchor(quality, 1.0) == quality


@given(UNIT, UNIT, UNIT, st.floats(0, 1))
def test_from_both_sides(near, far, agreed, share):
    numbers = load_calibration()
    found = numbers.fused(near, far, agreed, share)
    assert 0 <= found <= 1
    assert found <= numbers.fused(near, far, 1.0, share) + 1e-9, "disagreement never raises it"
    assert numbers.fused(near, far, agreed, 0.0) == near
    assert numbers.fused(near, far, agreed, 1e-9) == pytest.approx(near, abs=1e-6)


def test_from_both_sides_is_the_same_seen_from_either():
    a, b = (np.zeros((8, 8), np.uint8) for _ in range(2))
    a[:6], b[2:] = 255, 255
    assert agreement(a, b) == pytest.approx(0.5)
    assert fused_quality(0.9, a, 0.6, b, 0.3) == pytest.approx(fused_quality(0.6, b, 0.9, a, 0.7))
    assert fused_quality(0.9, a, 0.6, b, 0.0) == 0.9
    assert fused_quality(0.9, a, 0.6, b, 1.0) == 0.6
    assert fused_quality(0.9, a, 0.9, a, 0.4) > fused_quality(0.9, a, 0.9, b, 0.4)


def test_agreement_of_nothing_with_nothing():
    nothing = np.zeros((4, 4), np.uint8)
    assert agreement(nothing, nothing) == 1
    assert agreement(nothing, nothing + 255) == 0
