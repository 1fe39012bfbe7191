"""Colours of objects, and masks drawn on frames."""

from __future__ import annotations

import numpy as np
import pytest

from tam_backend.drawing import PALETTE, draw_objects, draw_progress


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


@pytest.mark.parametrize("shade", [0, 80, 128, 240, 255])
def test_the_strip_is_seen_on_any_picture(shade):
    frame = np.full((480, 854, 3), shade, np.uint8)
    done = np.zeros(100, np.float32)
    done[20:60] = 1
    shown = draw_progress(frame, done, 30)
    assert (frame == shade).all(), "the frame was drawn on"
    assert (shown[6:] == shade).all(), "more than the top edge"
    column = [int(i * 8.54) for i in (10, 40, 80)]
    for x in column:  # grey between black: one of them differs from whatever the picture is
        assert max(abs(int(v) - shade) for v in shown[:5, x, 0]) >= 80
    to_do, finished, rest = (int(shown[1, x, 0]) for x in column)
    assert to_do == rest
    assert finished - to_do >= 100


@pytest.mark.parametrize("size", [(48, 64), (3000, 20), (20, 3000), (1080, 1920), (2160, 3840), (1, 1), (2, 5)])
@pytest.mark.parametrize("count", [1, 2, 100, 10_000])
def test_any_picture_and_any_clip(size, count):
    frame = np.full((*size, 3), 128, np.uint8)
    done = (np.arange(count) < count // 2).astype(np.float32)
    allowed = max(4, round(min(size) / 80))
    for at in (0, count // 2, count - 1):
        shown = draw_progress(frame, done, at)
        assert shown.shape == frame.shape
        assert (shown[allowed:] == 128).all()
        if size == (1, 1):  # no room for more than the line
            continue
        tick = np.flatnonzero(np.ptp(shown[1], axis=1) > 50)
        assert abs(tick.mean() - (at + 0.5) * size[1] / count) <= allowed


def test_more_frames_than_columns_are_averaged():
    done = np.zeros(400, np.float32)
    done[100:200:2] = 1
    row = draw_progress(np.zeros((40, 40, 3), np.uint8), done, 399)[1, :, 0]
    assert (row[:10] == 80).all()
    assert (row[10:20] == 160).all()
    assert (row[20:36] == 80).all()
