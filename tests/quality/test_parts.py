"""Each part by hand-made cases."""

from __future__ import annotations

import numpy as np
import pytest

from tam_backend.quality import parts


def disc(radius=10, size=41, row=20, column=20):
    rows, columns = np.indices((size, size))
    return np.hypot(rows - row, columns - column) <= radius


WHOLE = (slice(0, 41), slice(0, 41))


def test_ring():
    inside = np.zeros((9, 9), bool)
    inside[4, 4] = True
    around = parts.ring(inside, 2)
    assert around.sum() == 24
    assert not around[4, 4]
    assert around[2:7, 2:7].sum() == 24


def test_samples_are_evenly_taken_and_in_the_frame():
    rows, columns = parts.sample(np.ones((10, 10), bool), (slice(5, 15), slice(7, 17)), count=30)
    assert len(rows) == 25
    assert rows.min() == 5
    assert rows.max() == 14
    assert columns.min() >= 7
    assert len(parts.sample(np.zeros((4, 4), bool), (slice(0, 4), slice(0, 4)))[0]) == 0


def test_entropy_is_that_of_a_coin():
    soft = np.zeros((4, 4), np.uint8)
    soft[:2] = 255
    everything = np.ones((4, 4), bool)
    assert parts.entropy(soft, everything) == 0
    soft[:] = 128
    assert parts.entropy(soft, everything) == pytest.approx(1, abs=1e-3)
    soft[:] = 28  # p = 0.11
    p = 28 / 255
    assert parts.entropy(soft, everything) == pytest.approx(-p * np.log2(p) - (1 - p) * np.log2(1 - p), abs=1e-5)
    assert parts.entropy(soft, ~everything) == 0


def test_edge_share():
    square = np.zeros((20, 20), bool)
    square[5:15, 5:15] = True
    assert parts.edge_share(square) == pytest.approx(36 / 100)
    assert parts.edge_share(np.eye(20, dtype=bool)) == 1
    assert parts.edge_share(np.zeros((5, 5), bool)) == 0
    assert parts.edge_share(np.ones((20, 20), bool)) == 0, "the border of the frame is no edge"


def test_flow_that_returns_is_not_doubted():
    mask = disc()
    back = np.full((41, 41, 2), 3.0, np.float32)
    points = parts.sample(mask, WHOLE)
    assert parts.flow_doubt(back, -back, points) == pytest.approx(0, abs=1e-6)
    assert parts.flow_doubt(back, back, points) > 0.99
    assert parts.flow_doubt(back, back, parts.sample(~mask & mask, WHOLE)) == 0


def test_relative_motion():
    mask = disc()
    flow = np.zeros((41, 41, 2), np.float32)
    flow[mask] = (3, 4)
    own, others = parts.sample(mask, WHOLE), parts.sample(parts.ring(mask, 4), WHOLE)
    assert parts.relative_motion(flow, own, others) == pytest.approx(5)
    assert parts.relative_motion(flow, own, own) == 0
    assert parts.relative_motion(flow, own, parts.sample(~mask & mask, WHOLE)) == 0


def test_looks_tell_the_object_from_its_surroundings():
    lab = np.full((41, 41, 3), (60, 128, 128), np.uint8)
    mask = disc()
    lab[mask] = (200, 170, 100)
    own, others = parts.sample(mask, WHOLE), parts.sample(parts.ring(mask, 4), WHOLE)
    inside, around = parts.colour_shares(lab, own), parts.colour_shares(lab, others)
    assert inside.sum() == pytest.approx(1)
    looks = parts.Looks.learn(inside, around)
    assert looks.belief(inside) == pytest.approx(looks.inside)
    assert looks.inside > 0.99
    assert looks.around < 0.01
    assert parts.colour_shares(lab, parts.sample(~mask & mask, WHOLE)).sum() == 0
