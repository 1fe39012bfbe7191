"""Colours, orientation and sizes are those a viewer shows."""

from __future__ import annotations

import av
import cv2
import numpy as np
import pytest
from av.video.frame import VideoFrame

from tam_backend.video import open_video
from tam_backend.video.pixels import Orientation, RgbConverter
from tests.video.make import make_video, number_of, picture, sequential, set_display_matrix

# Luma weights of red and blue by ITU-T H.273 matrix coefficients
WEIGHTS = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 9: (0.2627, 0.0593), 7: (0.212, 0.087)}
UNSPECIFIED = 2
LIMITED, FULL = 1, 2
COLOURS = [(1, 1, 1), (0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0.2, 0.5, 0.7), (0.9, 0.6, 0.1), (0.5, 0.5, 0.5)]


def yuv(rgb, matrix: int, full: bool, bits: int) -> tuple[int, int, int]:
    """Code values of a colour by the equations of ITU-T H.273, 8.3."""
    red, green, blue = rgb
    kr, kb = WEIGHTS[matrix]
    y = kr * red + (1 - kr - kb) * green + kb * blue
    u, v = (blue - y) / (2 * (1 - kb)), (red - y) / (2 * (1 - kr))
    top = (1 << bits) - 1
    if full:
        values = y * top, u * top + (1 << bits - 1), v * top + (1 << bits - 1)
    else:
        unit = 1 << bits - 8
        values = (219 * y + 16) * unit, (224 * u + 128) * unit, (224 * v + 128) * unit
    return tuple(min(max(round(value), 0), top) for value in values)


def flat_frame(codes, pixel_format: str, width: int, height: int) -> VideoFrame:
    frame = VideoFrame(width, height, pixel_format)
    for plane, code in zip(frame.planes, codes, strict=True):
        dtype = np.uint16 if "10le" in pixel_format else np.uint8
        np.frombuffer(plane, dtype)[:] = code
    return frame


@pytest.mark.parametrize("matrix", sorted(WEIGHTS))
@pytest.mark.parametrize("range_", [LIMITED, FULL])
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv444p", "yuv420p10le"])
def test_every_matrix_and_range_gives_the_colour_that_went_in(matrix, range_, pixel_format):
    bits = 10 if "10" in pixel_format else 8
    convert = RgbConverter(65, 33, Orientation())
    for colour in COLOURS:
        frame = flat_frame(yuv(colour, matrix, range_ == FULL, bits), pixel_format, 65, 33)
        frame.colorspace, frame.color_range = matrix, range_
        expected = np.full((33, 65, 3), np.array(colour) * 255)
        np.testing.assert_allclose(convert(frame), expected, atol=2.0)
        assert (frame.colorspace, frame.color_range) == (matrix, range_)


@pytest.mark.parametrize(("height", "matrix"), [(64, 6), (576, 6), (720, 1), (1080, 1)])
def test_an_unnamed_matrix_is_guessed_by_height_as_viewers_do(height, matrix):
    colour = (0.9, 0.3, 0.1)
    frame = flat_frame(yuv(colour, matrix, False, 8), "yuv420p", 64, height)
    assert frame.colorspace == UNSPECIFIED
    np.testing.assert_allclose(RgbConverter(64, height, Orientation())(frame)[0, 0], np.array(colour) * 255, atol=3)


@pytest.mark.parametrize("matrix", [1, 6])
@pytest.mark.parametrize("range_", [LIMITED, FULL])
def test_the_colour_description_of_a_file_is_heeded(tmp_path, matrix, range_):
    """From the file through the decoder: what was coded with an equation is decoded with the same."""
    colour = (0.8, 0.25, 0.1)
    codes = yuv(colour, matrix, range_ == FULL, 8)
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"qp": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuvj420p" if range_ == FULL else "yuv420p"
        stream.codec_context.colorspace, stream.codec_context.color_range = matrix, range_
        for i in range(3):
            frame = flat_frame(codes, stream.pix_fmt, 64, 64)
            frame.colorspace, frame.color_range, frame.pts = matrix, range_, i
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with open_video(path) as reader:
        np.testing.assert_allclose(reader[1], np.full((64, 64, 3), np.array(colour) * 255), atol=2.0)


def test_pictures_come_through_with_their_last_row_and_column(tmp_path):
    """Odd sizes, losslessly coded without subsampling: every pixel must be the one painted."""
    path = make_video(tmp_path / "a.mkv", 3, codec="ffv1", pixel_format="bgr0", size=(97, 65))
    with open_video(path) as reader:
        np.testing.assert_array_equal(reader[2], picture(2, 97, 65))


def test_transparent_and_palette_pictures_become_rgb(tmp_path):
    path = make_video(tmp_path / "a.gif", 8, codec="gif", pixel_format="rgb8")
    with open_video(path) as reader:
        assert reader[0].shape == (64, 96, 3)
        assert [number_of(frame) for frame in reader] == list(range(8))


TURNS = {
    (1, 0, 0, 1): lambda image: image,
    (0, 1, -1, 0): lambda image: np.rot90(image, -1),  # clockwise
    (-1, 0, 0, -1): lambda image: np.rot90(image, 2),
    (0, -1, 1, 0): lambda image: np.rot90(image),
    (-1, 0, 0, 1): lambda image: image[:, ::-1],
    (1, 0, 0, -1): lambda image: image[::-1],
    (0, 1, 1, 0): lambda image: image.transpose(1, 0, 2),
    (0, -1, -1, 0): lambda image: np.rot90(image, 2).transpose(1, 0, 2),
}


@pytest.mark.parametrize("matrix", TURNS)
def test_the_display_matrix_is_applied(tmp_path, matrix):
    path = make_video(tmp_path / "a.mp4", 6)
    stored = sequential(path)
    set_display_matrix(path, matrix)
    with open_video(path, cache_dir=tmp_path) as reader:
        for frame, image in zip(reader, stored, strict=True):
            np.testing.assert_array_equal(frame, TURNS[matrix](image))
        assert (reader.height, reader.width) == reader[0].shape[:2]
        assert reader[0].flags["C_CONTIGUOUS"]
    with open_video(path, cache_dir=tmp_path) as reader:  # its size comes from the stored index
        assert (reader.height, reader.width) == reader[0].shape[:2]


def test_the_rotation_agrees_with_ffmpegs_own_reading_of_the_matrix(tmp_path):
    path = make_video(tmp_path / "a.mp4", 2)
    set_display_matrix(path, (0, 1, -1, 0))
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).rotation == -90  # counterclockwise: so a quarter turn clockwise


def test_a_slanted_matrix_becomes_the_nearest_quarter_turn(tmp_path):
    path = make_video(tmp_path / "a.mp4", 2)
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    for slot, value in ((0, 0.1), (1, 0.99), (3, -0.99), (4, 0.1)):
        data[at + 4 * slot : at + 4 * slot + 4] = int(value * 65536).to_bytes(4, "big", signed=True)
    path.write_bytes(data)
    with open_video(path) as reader:
        assert (reader.width, reader.height) == (64, 96)


def test_frames_that_change_size_are_scaled_to_the_first(tmp_path):
    """Two MPEG-2 streams of different size, one after the other in one file."""
    small = make_video(tmp_path / "small.mpg", 12, codec="mpeg2video", options={"g": "6"})
    large = make_video(tmp_path / "large.mpg", 12, codec="mpeg2video", options={"g": "6"}, size=(192, 128))
    with av.open(str(small)) as first, av.open(str(large)) as second:
        raw = b"".join(bytes(p) for source in (first, second) for p in source.demux(video=0) if p.size)
    path = tmp_path / "a.m2v"
    path.write_bytes(raw)
    shapes = [image.shape for image in sequential(path)]
    assert set(shapes) == {(64, 96, 3), (128, 192, 3)}
    with open_video(path) as reader:
        assert len(reader) == len(shapes)
        assert {frame.shape for frame in reader} == {(64, 96, 3)}
        assert [number_of(reader[i]) for i in range(11)] == list(range(11))
        last = cv2.resize(reader[len(reader) - 1], (192, 128))
        assert np.abs(last.astype(int) - picture(11, 192, 128)).mean() < 12
