from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tam_backend.export.polygons import fill, to_polygon

shapes = st.tuples(st.integers(1, 14), st.integers(1, 14))


@settings(deadline=None, max_examples=400)
@given(hnp.arrays(bool, shapes).filter(lambda mask: bool(mask.any())))
def test_any_mask_comes_back(mask):
    assert np.array_equal(fill(to_polygon(mask), *mask.shape), mask)


@pytest.mark.parametrize("seed", range(20))
def test_large_masks_come_back(seed):
    noise = np.random.default_rng(seed).random((90, 120)).astype(np.float32)
    mask = cv2.GaussianBlur(noise, (0, 0), 1 + seed % 5) > 0.5
    assert np.array_equal(fill(to_polygon(mask), *mask.shape), mask)


def test_loaders_that_fill_the_whole_polygon_see_holes():
    rows, columns = np.mgrid[:60, :60]
    distance = (rows - 30) ** 2 + (columns - 30) ** 2
    mask = (distance < 28**2) & (distance > 9**2)
    filled = np.zeros(mask.shape, np.uint8)
    cv2.fillPoly(filled, [to_polygon(mask).astype(np.int32)], 1)
    assert np.array_equal(filled.astype(bool), mask)
