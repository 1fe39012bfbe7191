"""Masks snap to edges: towards the image, alike for every part of it, and nothing else."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from tam_backend.features.edges import RADIUS, Edges

HEIGHT, WIDTH = 61, 83  # odd, as working sizes may be


def picture() -> np.ndarray:
    """A disc of one colour on another, with some noise."""
    disc = cv2.circle(np.zeros((HEIGHT, WIDTH), np.uint8), (40, 30), 18, 1, -1).astype(bool)
    image = np.where(disc[..., None], np.uint8([150, 170, 90]), np.uint8([90, 100, 160]))
    noise = np.random.default_rng(3).integers(-4, 5, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def disc(radius: int) -> np.ndarray:
    return cv2.circle(np.zeros((HEIGHT, WIDTH), np.float32), (40, 30), radius, 1.0, -1)


WHOLE = slice(0, HEIGHT), slice(0, WIDTH)


@pytest.mark.parametrize("radius", [17, 19])
def test_a_mask_that_is_too_small_or_too_large_comes_closer_to_the_edge(radius: int) -> None:
    truth = disc(18) > 0
    before = disc(radius)
    after = Edges(picture()).snap(before, WHOLE)
    assert np.count_nonzero((after >= 0.5) != truth) < 0.5 * np.count_nonzero((before >= 0.5) != truth)


@pytest.mark.parametrize("top", [0, 5, 6])
@pytest.mark.parametrize("left", [0, 13, 14])
@pytest.mark.parametrize(("bottom", "right"), [(HEIGHT, WIDTH), (54, 70), (55, 71)])
def test_a_part_is_as_in_the_whole_but_at_its_rim(top: int, left: int, bottom: int, right: int) -> None:
    edges = Edges(picture())
    values = disc(17)
    part = slice(top, bottom), slice(left, right)
    whole, found = edges.snap(values, WHOLE)[part], edges.snap(values[part], part)
    assert found.shape == values[part].shape
    rim = 2 * RADIUS + 2
    inner = slice(rim, -rim), slice(rim, -rim)
    assert np.abs(found[inner] - whole[inner]).max() < 1e-4


def test_where_the_image_is_flat_values_are_averaged() -> None:
    values = np.random.default_rng(1).random((40, 60), np.float32)
    found = Edges(np.full((40, 60, 3), 77, np.uint8)).snap(values, (slice(0, 40), slice(0, 60)))
    assert np.abs(found - 0.5).max() < 0.2
    assert abs(float(found.mean() - values.mean())) < 0.01


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (3, 2)])
def test_images_of_a_few_pixels_work(shape: tuple[int, int]) -> None:
    part = slice(0, shape[0]), slice(0, shape[1])
    found = Edges(np.zeros((*shape, 3), np.uint8)).snap(np.ones(shape, np.float32), part)
    assert np.abs(found - 1).max() < 1e-5
