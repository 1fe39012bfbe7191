"""J, F and their statistics: cases that can be counted by hand, and a slow, obvious reference."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tam_backend.evaluation.metrics import (
    boundary_map,
    boundary_measure,
    boundary_radius,
    region_similarity,
    statistics,
)
from tests.tracking.fakes import relaxed


def grid(*rows: str) -> np.ndarray:
    return np.array([[c == "#" for c in row] for row in rows])


def empty(height: int = 6, width: int = 6) -> np.ndarray:
    return np.zeros((height, width), bool)


def pixel(row: int, column: int, height: int = 6, width: int = 6) -> np.ndarray:
    mask = empty(height, width)
    mask[row, column] = True
    return mask


class TestRegion:
    def test_two_of_six_pixels_are_shared(self):
        assert region_similarity(grid("##..", "##.."), grid(".##.", ".##.")) == pytest.approx(2 / 6)

    @pytest.mark.parametrize(
        ("mask", "truth", "expected"),
        [(empty(), empty(), 1.0), (empty(), pixel(2, 2), 0.0), (pixel(2, 2), empty(), 0.0)],
    )
    def test_empty_masks(self, mask, truth, expected):
        assert region_similarity(mask, truth) == expected
        assert boundary_measure(mask, truth) == expected

    def test_void_pixels_are_neither_hits_nor_misses(self):
        mask, truth = grid("####", "...."), grid("##..", "....")
        assert region_similarity(mask, truth) == 0.5
        assert region_similarity(mask, truth, grid("...#", "....")) == pytest.approx(2 / 3)
        assert region_similarity(mask, truth, grid("..##", "....")) == 1.0

    def test_a_truth_that_is_all_void_is_an_empty_one(self):
        truth = pixel(2, 2)
        assert region_similarity(empty(), truth, void=truth) == 1.0
        assert boundary_measure(empty(), truth, void=truth) == 1.0
        assert boundary_measure(pixel(0, 0), truth, void=truth) == 0.0


class TestBoundary:
    def test_a_pixel_marks_itself_and_its_upper_left_neighbours(self):
        assert boundary_map(pixel(1, 1, 3, 3)).tolist() == grid("##.", "##.", "...").tolist()

    def test_there_is_no_boundary_along_the_edge_of_the_frame(self):
        assert not boundary_map(np.ones((4, 5), bool)).any()
        assert boundary_map(pixel(2, 2, 3, 3)).tolist() == grid("...", ".##", ".#.").tolist()

    @pytest.mark.parametrize(
        ("height", "width", "expected"),
        [(480, 854, 8), (240, 432, 4), (6, 6, 1), (300, 400, 4), (301, 400, 5), (1080, 1920, 18)],
    )
    def test_the_bound_is_0_008_of_the_diagonal_rounded_up(self, height, width, expected):
        assert boundary_radius(height, width) == expected

    def test_single_pixels(self):
        """At 6x6 a boundary may be off by 1 pixel, so of the four of a pixel two to four are matched."""
        assert boundary_measure(pixel(2, 2), pixel(2, 2)) == 1.0
        assert boundary_measure(pixel(2, 2), pixel(2, 3)) == 1.0  # all four are 1 away from one of the others
        assert boundary_measure(pixel(2, 2), pixel(3, 3)) == 0.75  # the far corner is 1.4 away
        assert boundary_measure(pixel(2, 2), pixel(2, 4)) == 0.5  # the two columns face each other
        assert boundary_measure(pixel(1, 1), pixel(4, 4)) == 0.0

    def test_precision_and_recall_differ(self):
        """Ours: 2 pixels far apart, 8 on the boundary, of which 4 are right. All 4 true ones are found."""
        ours = pixel(1, 1, 6, 12) | pixel(1, 9, 6, 12)
        assert boundary_measure(ours, pixel(1, 1, 6, 12)) == pytest.approx(2 * 0.5 * 1 / 1.5)

    def test_void_becomes_background(self):
        truth = grid("......", ".##...", ".##...", "......", "......", "......")
        cut = grid("......", ".#....", ".#....", "......", "......", "......")
        void = truth & ~cut
        assert boundary_measure(truth, truth, void) == 1.0
        far = pixel(5, 5)
        assert boundary_measure(truth | far, truth, far) == 1.0
        assert boundary_measure(truth | far, truth) < 1.0


class TestStatistics:
    def test_by_hand(self):
        """Of 9 frames the quarters are 0-2, 2-4, 4-6, 6-8."""
        values = [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2]
        result = statistics(values)
        assert result.mean == pytest.approx(0.6)
        assert result.recall == pytest.approx(5 / 9)  # 0.5 itself does not count
        assert result.decay == pytest.approx(0.9 - 0.3)

    def test_halves_are_rounded_up(self):
        """Of 3 frames the bounds are 1, 1.5, 2, 2.5, 3: the first quarter is frames 0 and 1, the last one frame 2."""
        assert statistics([1.0, 0.0, 0.4]).decay == pytest.approx(0.5 - 0.4)

    def test_one_frame(self):
        result = statistics([0.7])
        assert (result.mean, result.recall, result.decay) == (0.7, 1.0, 0.0)

    def test_beyond_256_frames(self):
        values = np.linspace(1, 0, 401)
        assert statistics(values).decay == pytest.approx(values[:101].mean() - values[300:].mean())


def slow_boundary(mask: np.ndarray) -> list[tuple[int, int]]:
    height, width = mask.shape
    points = []
    for y in range(height):
        for x in range(width):
            neighbours = [(y, x + 1), (y + 1, x), (y + 1, x + 1)]
            if y == height - 1:
                neighbours = [(y, x + 1)]
            if x == width - 1:
                neighbours = [(y + 1, x)]
            inside = [n for n in neighbours if n[0] < height and n[1] < width]
            if any(mask[n] != mask[y, x] for n in inside):
                points.append((y, x))
    return points


def slow_measure(mask: np.ndarray, truth: np.ndarray, void: np.ndarray) -> float:
    a, b = slow_boundary(mask & ~void), slow_boundary(truth & ~void)
    if not a or not b:
        return 1.0 if not a and not b else 0.0
    bound = math.ceil(0.008 * math.sqrt(mask.shape[0] ** 2 + mask.shape[1] ** 2))

    def share(points: list[tuple[int, int]], others: list[tuple[int, int]]) -> float:
        near = [p for p in points if any((p[0] - q[0]) ** 2 + (p[1] - q[1]) ** 2 <= bound**2 for q in others)]
        return len(near) / len(points)

    precision, recall = share(a, b), share(b, a)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def slow_similarity(mask: np.ndarray, truth: np.ndarray, void: np.ndarray) -> float:
    pixels = [(bool(m), bool(t)) for m, t, v in zip(mask.flat, truth.flat, void.flat, strict=True) if not v]
    union = sum(m or t for m, t in pixels)
    return sum(m and t for m, t in pixels) / union if union else 1.0


shapes = st.tuples(st.integers(1, 14), st.integers(1, 14)) | st.just((3, 160))


@relaxed
@given(st.data(), shapes)
def test_equal_to_the_slow_reference(data, shape):
    mask, truth, void = (data.draw(hnp.arrays(bool, shape)) for _ in range(3))
    assert region_similarity(mask, truth, void) == pytest.approx(slow_similarity(mask, truth, void), abs=1e-12)
    assert boundary_measure(mask, truth, void) == pytest.approx(slow_measure(mask, truth, void), abs=1e-12)
    no_void = np.zeros(shape, bool)
    assert boundary_measure(mask, truth) == pytest.approx(slow_measure(mask, truth, no_void), abs=1e-12)
