"""The rest of what a reader promises."""

from __future__ import annotations

import gc
import threading

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame

from tam_backend.errors import MediaError
from tam_backend.video import open_source, open_video
from tam_backend.video.cache import FrameCache
from tests.video.make import make_video, number_of, picture, set_display_matrix


def test_indices_are_integers_within_the_video(video):
    with open_video(video("closed groups")) as reader:
        assert number_of(reader[np.int64(9)]) == number_of(reader[9]) == 9
        for outside in (-1, 48, 10**12):
            with pytest.raises(IndexError, match="frames 0 to 47"):
                reader[outside]
            with pytest.raises(IndexError, match="frames 0 to 47"):
                reader.time(outside)
        for wrong in (1.0, "1", None, slice(2)):
            with pytest.raises(TypeError):
                reader[wrong]


def test_frames_belong_to_the_caller(video):
    for name in ("closed groups", "odd size"):
        with open_video(video(name)) as reader:
            first = reader[3]
            before = first.copy()
            assert first.dtype == np.uint8
            assert first.flags["C_CONTIGUOUS"]
            first[:] = 0
            np.testing.assert_array_equal(reader[3], before)
            np.testing.assert_array_equal(reader.clone()[3], before)


def test_uncompressed_rgb_is_copied_too(tmp_path):
    path = make_video(tmp_path / "a.mkv", 3, codec="ffv1", pixel_format="bgr0")
    with open_video(path) as reader:
        reader[1][:] = 0
        np.testing.assert_array_equal(reader[1], picture(1))


def test_a_clone_reads_on_its_own(video):
    with open_video(video("closed groups"), cache_bytes=1) as reader:
        forward, backward = iter(reader), reversed(reader.clone())
        for i in range(48):
            assert number_of(next(forward)) == i
            assert number_of(next(backward)) == 47 - i
        assert reader.seeks == 0


def test_a_closed_reader_says_so_and_its_clones_go_on(video):
    reader = open_video(video("closed groups"))
    clone = reader.clone()
    reader[20]
    reader.close()
    reader.close()
    assert reader.cached_bytes == 0
    with pytest.raises(MediaError, match=r"reader of a\.mp4 is closed"):
        reader[20]
    assert len(reader) == 48
    assert reader.time(25) == pytest.approx(1.0)
    assert number_of(clone[20]) == 20


def test_many_threads_may_read_one_reader(video):
    wrong: list[object] = []
    with open_video(video("open groups"), cache_bytes=60_000) as reader:

        def work(seed: int) -> None:
            try:
                order = np.random.default_rng(seed).integers(0, 48, 25).tolist()
                wrong.extend(i for i in order if number_of(reader[i]) != i)
            except Exception as error:
                wrong.append(error)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_pixels_that_cannot_be_converted_are_named(video, monkeypatch):
    with open_video(video("closed groups")) as reader:
        monkeypatch.setattr(reader, "_to_rgb", lambda frame: frame.to_ndarray(format="no such format"))
        with pytest.raises(MediaError, match=r"frame 4 of a\.mp4, 96x64 pixels of the format yuv420p, cannot be conv"):
            reader[4]


def test_memory_is_bounded(video):
    with open_video(video("one long group"), cache_bytes=100_000) as reader:
        for _ in reader:
            assert reader.cached_bytes <= 100_000
        assert reader.cached_bytes > 0


def test_what_one_reader_decoded_others_of_the_same_video_need_not(video):
    """Within one budget of memory, also when the one that decoded is closed."""
    shared = FrameCache(10_000_000)
    with open_video(video("one long group"), shared=shared) as one:
        expected = one[7]
    with open_video(video("one long group"), shared=shared) as other:
        assert np.array_equal(other[7], expected)
        assert other.packets_decoded == 0
    small = FrameCache(1)
    with open_video(video("one long group"), shared=small) as one, one.clone() as two:
        for reader in (one, two, one):
            assert np.array_equal(reader[7], expected)
        assert small.bytes == 0


def test_frames_are_freed_without_the_garbage_collector(tmp_path):
    """Frames in reference cycles would pile up by the hundred: the collector counts objects, not their bytes."""
    path = make_video(tmp_path / "a.mp4")
    set_display_matrix(path, (0, 1, -1, 0))
    with open_video(path, cache_bytes=1) as reader:
        gc.collect()
        gc.disable()
        try:
            before = sum(type(thing) is VideoFrame for thing in gc.get_objects())
            for _ in reader:
                pass
            after = sum(type(thing) is VideoFrame for thing in gc.get_objects())
        finally:
            gc.enable()
    assert after - before <= 4


def test_a_file_that_changes_under_the_reader_is_noticed(tmp_path):
    path = make_video(tmp_path / "a.mp4")
    reader = open_video(path)
    other = make_video(tmp_path / "b.mp4", 30, options={"crf": "40"})
    path.write_bytes(other.read_bytes())
    with pytest.raises(MediaError, match=r"a\.mp4 changed"):
        reader[0]


def test_of_several_streams_the_first_real_video_is_read(tmp_path):
    """A cover picture, a small decoy, and the default stream."""
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        decoy = container.add_stream("ffv1", rate=25)
        real = container.add_stream("libx264", rate=25)
        for stream, size in ((decoy, (48, 32)), (real, (96, 64))):
            stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        decoy.disposition = 0
        real.disposition = av.stream.Disposition.default
        for i in range(5):
            for stream, image in ((decoy, np.zeros((32, 48, 3), np.uint8)), (real, picture(i))):
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.pts = i
                container.mux(stream.encode(frame))
        for stream in (decoy, real):
            container.mux(stream.encode())
    with open_video(path) as reader:
        assert (reader.width, reader.height) == (96, 64)
        assert [number_of(frame) for frame in reader] == list(range(5))


def test_a_cover_picture_is_not_the_video(tmp_path):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        cover = container.add_stream("mjpeg", rate=25)
        cover.width, cover.height, cover.pix_fmt = 32, 32, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        black = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
        black.pts = 0
        container.mux(cover.encode(black))
        for i in range(5):
            frame = av.VideoFrame.from_ndarray(picture(i), format="rgb24")
            frame.pts = i
            container.mux(stream.encode(frame))
        container.mux(cover.encode())
        container.mux(stream.encode())
    with av.open(str(path)) as container:
        assert any(stream.disposition & av.stream.Disposition.attached_pic for stream in container.streams)
    with open_video(path) as reader:
        assert [number_of(frame) for frame in reader] == list(range(5))


def test_any_source_is_opened_by_what_it_is(video):
    with open_source(video("closed groups")) as reader:
        assert number_of(reader[5]) == 5


def test_strange_file_names_are_only_names(tmp_path, video):
    for name in ("concat:a|b.mp4", "a%03d.mp4", "größe ?#&.mp4", "-i.mp4"):
        path = tmp_path / name
        path.write_bytes(video("closed groups").read_bytes())
        with open_video(path) as reader:
            assert number_of(reader[5]) == 5
