"""Colours of objects, and masks drawn on frames."""

from __future__ import annotations

import numpy as np
import pytest

from tam_backend.drawing import PALETTE, draw_objects


@pytest.mark.parametrize(
    ("object_id", "colour"),
    [
        (0, (0, 0, 0)),
        (1, (128, 0, 0)),
        (2, (0, 128, 0)),
        (3, (128, 128, 0)),
        (4, (0, 0, 128)),
        (7, (128, 128, 128)),
        (8, (64, 0, 0)),
        (21, (128, 64, 128)),
        (22, (0, 192, 128)),
        (255, (224, 224, 192)),
    ],
)
def test_colours_are_those_of_the_davis_annotations(object_id, colour):
    assert tuple(PALETTE[object_id].tolist()) == colour


def test_every_object_has_a_colour_of_its_own():
    assert len(np.unique(PALETTE, axis=0)) == 256


def test_masks_are_filled_and_outlined_and_the_rest_is_left_alone():
    frame = np.full((60, 80, 3), 100, np.uint8)
    ids = np.zeros((60, 80), np.uint8)
    ids[10:40, 10:40] = 1
    ids[20:50, 50:70] = 2
    before = frame.copy(), ids.copy()
    image = draw_objects(frame, ids)
    assert np.array_equal(frame, before[0])
    assert np.array_equal(ids, before[1])
    assert image.dtype == np.uint8
    assert image[25, 25].tolist() == [111, 60, 60], "60 % of the picture and 40 % of the colour"
    assert image[35, 60].tolist() == [60, 111, 60]
    assert image[10, 25].tolist() == [128, 0, 0], "the outline has the colour itself"
    assert image[20, 60].tolist() == [0, 128, 0]
    away = np.ones((60, 80), bool)
    away[8:42, 8:42] = away[18:52, 48:72] = False
    assert (image[away] == 100).all()


def test_holes_are_outlined_and_not_filled():
    ids = np.zeros((60, 80), np.uint8)
    ids[10:50, 10:50] = 1
    ids[20:40, 20:40] = 0
    image = draw_objects(np.full((60, 80, 3), 100, np.uint8), ids)
    assert (image[24:36, 24:36] == 100).all()


@pytest.mark.parametrize("size", [(90, 120), (720, 1280), (1280, 720)])
def test_the_number_of_the_frame(size):
    frame, ids = np.full((*size, 3), 90, np.uint8), np.zeros(size, np.uint8)
    assert np.array_equal(draw_objects(frame, ids), frame)
    numbered = draw_objects(frame, ids, 12)
    assert not np.array_equal(numbered, frame)
    assert not np.array_equal(numbered, draw_objects(frame, ids, 13))
    assert np.array_equal(numbered[size[0] // 4 :], frame[size[0] // 4 :])
    assert np.array_equal(numbered[:, size[1] // 3 :], frame[:, size[1] // 3 :])
