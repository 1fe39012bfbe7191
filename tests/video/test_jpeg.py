"""JPEG bytes, captions and messages as pictures."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from tam_backend.video.jpeg import decode_jpeg, encode_jpeg, placeholder
from tests.video.make import number_of, picture


def decode(data: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)


def test_a_frame_comes_back_in_its_colours():
    image = np.full((64, 96, 3), (200, 90, 30), np.uint8)
    np.testing.assert_allclose(decode(encode_jpeg(image)), image, atol=3)
    assert number_of(decode(encode_jpeg(picture(77)))) == 77


def test_decoding_gives_what_was_encoded_and_refuses_the_rest():
    image = picture(77)
    np.testing.assert_array_equal(decode_jpeg(encode_jpeg(image)), decode(encode_jpeg(image)))
    with pytest.raises(ValueError, match="no JPEG"):
        decode_jpeg(b"not a picture")


def test_quality_decides_the_size():
    image = picture(3)
    assert len(encode_jpeg(image, quality=30)) < len(encode_jpeg(image, quality=90))


@pytest.mark.parametrize("shade", [0, 128, 255])
@pytest.mark.parametrize("size", [(360, 640), (1080, 1920), (1280, 720)])
def test_a_caption_can_be_read_on_any_background(shade, size):
    image = np.full((*size, 3), shade, np.uint8)
    shown = decode(encode_jpeg(image, caption="frame 12 / 100  0:00.480"))
    assert (image == shade).all(), "the frame was drawn on"
    changed = np.argwhere((np.abs(shown.astype(int) - shade) > 40).any(axis=2))
    (top, left), (bottom, right) = changed.min(0), changed.max(0)
    assert left < 0.05 * size[1]
    assert bottom > 0.95 * size[0]
    height = bottom - top
    assert 0.01 < height / min(size) < 0.08, "small, and in proportion to the frame"
    corner = shown[top:bottom, left:right].mean(axis=2)
    assert corner.max() - corner.min() > 150, "light letters on dark"


def test_a_long_caption_stays_within_a_narrow_frame():
    image = np.full((200, 150, 3), 90, np.uint8)
    shown = decode(encode_jpeg(image, caption="frame 12 of 0-99   0:00.480"))
    letters = (shown.min(axis=2) > 170).any(axis=0)
    assert letters.any()
    assert not letters[-2:].any(), "the last letter is cut off"


def test_a_caption_may_hold_any_letters_and_fit_any_frame():
    for size in ((1, 1), (16, 16), (3000, 20)):
        assert decode(encode_jpeg(np.zeros((*size, 3), np.uint8), caption="größe 日本 %s")).shape == (*size, 3)


def test_a_message_is_wrapped_and_stays_inside():
    lines = ["This video cannot be shown.", "a.mp4 is an MP4 file without a readable index: it is incomplete " * 2]
    for width, height in ((960, 540), (320, 240), (240, 800)):
        image = placeholder(width, height, lines)
        assert image.shape == (height, width, 3)
        assert image.dtype == np.uint8
        ink = image.max(axis=2) > 120
        assert ink.mean() > 0.01
        margin = min(width, height) // 20
        assert not ink[:, :margin].any()
        assert not ink[:, -margin:].any()
        assert not ink[:margin].any()
        assert not ink[-margin:].any()


def test_more_words_take_more_room():
    short, long = (placeholder(480, 320, ["word " * n]) for n in (3, 60))
    assert (long > 120).any(axis=(1, 2)).sum() > 2 * (short > 120).any(axis=(1, 2)).sum()


def test_a_word_wider_than_the_picture_is_broken():
    image = placeholder(200, 300, ["x" * 200])
    ink = image.max(axis=2) > 120
    assert not ink[:, -10:].any()
    assert ink.any(axis=1).sum() > 40


def test_a_placeholder_without_words_or_room():
    assert placeholder(3, 2, ["no room"]).shape == (2, 3, 3)
    assert placeholder(64, 64, []).shape == (64, 64, 3)
