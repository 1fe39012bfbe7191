"""Videos written for people to watch."""

from __future__ import annotations

import av
import numpy as np
import pytest

from tam_backend.errors import BadInput, MediaError
from tam_backend.video import open_video
from tam_backend.video.write import VideoWriter
from tests.video.make import number_of, picture


def test_what_is_written_can_be_read_back(tmp_path):
    path = tmp_path / "a.mp4"
    with VideoWriter(path, 29.97, (96, 64)) as video:
        for i in range(40):
            video.write(picture(i))
        assert not path.exists()
    with open_video(path) as reader:
        assert [number_of(frame) for frame in reader] == list(range(40))
        assert reader.fps == pytest.approx(29.97, abs=1e-3)
        assert (reader.width, reader.height) == (96, 64)
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_browsers_can_play_it(tmp_path):
    path = tmp_path / "a.mp4"
    with VideoWriter(path, 25, (96, 64)) as video:
        video.write(picture(0))
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert container.format.name.startswith("mov,mp4")
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat"), "the index stands in front, so that playing starts at once"


def test_without_an_encoder_for_h264_it_is_mpeg4(tmp_path, monkeypatch):
    path = tmp_path / "a.mp4"
    monkeypatch.setattr("av.codec.codecs_available", {"mpeg4"})
    with VideoWriter(path, 30000 / 1001, (96, 64)) as video:
        for i in range(20):
            video.write(picture(i))
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.name == "mpeg4"
    with open_video(path) as reader:
        assert [number_of(frame) for frame in reader] == list(range(20))
        assert reader.fps == pytest.approx(30000 / 1001)
        assert np.abs(reader[9].astype(int) - picture(9)).mean() < 6


@pytest.mark.parametrize("size", [(96, 64), (64, 720)])
def test_colours_survive_and_are_named(tmp_path, size):
    path = tmp_path / "a.mp4"
    image = np.full((size[1], size[0], 3), (200, 80, 40), np.uint8)
    with VideoWriter(path, 25, size) as video:
        for _ in range(3):
            video.write(image)
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.colorspace == (1 if size[1] >= 720 else 6)
        assert container.streams.video[0].codec_context.color_range == 1
    with open_video(path) as reader:
        np.testing.assert_allclose(reader[1], image, atol=4)


def test_odd_sides_are_padded_with_their_last_pixels(tmp_path):
    path = tmp_path / "a.mp4"
    image = picture(3, 97, 65)
    image[:, -1] = 255
    image[-1] = 255
    with VideoWriter(path, 25, (97, 65)) as video:
        video.write(image)
    with open_video(path) as reader:
        frame = reader[0]
        assert frame.shape == (66, 98, 3)
        assert number_of(frame) == 3
        assert frame[:, -2:].min() > 200
        assert frame[-2:].min() > 200


def test_ctrl_c_leaves_what_was_written(tmp_path):
    path = tmp_path / "a.mp4"

    def write() -> None:
        with VideoWriter(path, 25, (96, 64)) as video:
            for i in range(100):
                if i == 17:
                    raise KeyboardInterrupt
                video.write(picture(i))

    with pytest.raises(KeyboardInterrupt):
        write()
    with open_video(path) as reader:
        assert [number_of(frame) for frame in reader] == list(range(17))


def test_any_other_error_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"the old one")

    def write() -> None:
        with VideoWriter(path, 25, (96, 64)) as video:
            video.write(picture(0))
            raise RuntimeError("no more frames")

    with pytest.raises(RuntimeError, match="no more frames"):
        write()
    assert path.read_bytes() == b"the old one"
    with VideoWriter(path, 25, (96, 64)):
        pass  # nothing written
    assert path.read_bytes() == b"the old one"
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_what_cannot_be_written(tmp_path):
    path = tmp_path / "a.mp4"
    with pytest.raises(BadInput, match=r"\.mp4, not as \.avi"):
        VideoWriter(tmp_path / "a.avi", 25, (96, 64))
    for fps in (0, 0.001, -1, float("nan"), float("inf"), 5000):
        with pytest.raises(BadInput, match="frames per second"):
            VideoWriter(path, fps, (96, 64))
    with pytest.raises(BadInput, match="at least 1x1"):
        VideoWriter(path, 25, (0, 64))
    with pytest.raises(BadInput, match="with block"):
        VideoWriter(path, 25, (96, 64)).write(picture(0))
    with VideoWriter(path, 25, (96, 64)) as video:
        for wrong in (picture(0, 64, 96), picture(0)[..., 0], picture(0).astype(np.float32)):
            with pytest.raises(BadInput, match="must be 64x96x3 uint8"):
                video.write(wrong)
        video.write(picture(0))
    missing = tmp_path / "no" / "b.mp4"
    with pytest.raises(MediaError, match=r"b\.mp4 cannot be written: No such"), VideoWriter(missing, 25, (8, 8)):
        pass
