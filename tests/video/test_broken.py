"""Files that are damaged, hostile, or no videos: what can be read is read, the rest is said in plain words."""

from __future__ import annotations

import re
import resource
import struct

import av
import numpy as np
import pytest

from tam_backend.errors import MediaError
from tam_backend.video import VideoReader, open_source, open_video
from tests.video.conftest import x264
from tests.video.make import add_silence, decodable, make_video, number_of, packets_of, picture, sequential

GROUPS = x264("keyint=12:min-keyint=12:scenecut=0:bframes=2:b-adapt=0")


@pytest.fixture(autouse=True)
def _silence(capfd):
    """FFmpeg's own messages reach nobody: they would fill the log of a server."""
    yield
    out, err = capfd.readouterr()
    assert out == err == ""


def scramble(data: bytearray, start: int, end: int) -> None:
    data[start:end] = np.random.default_rng(0).integers(0, 256, end - start, dtype=np.uint8).tobytes()


def failure(reader: VideoReader, index: int) -> MediaError | None:
    try:
        reader[index]
    except MediaError as error:
        return error
    return None


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("empty.mp4", b"", "is empty"),
        ("notes.mp4", b"These are my notes.\n" * 500, "not a video"),
        ("noise.mp4", np.random.default_rng(0).bytes(50_000), "not a video"),
        ("page.mp4", b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "not a video"),
        ("head.mp4", b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41", "incomplete"),
        ("list.m3u8", b"#EXTM3U\n#EXTINF:2,\na.mp4\n#EXT-X-ENDLIST\n", "not a video"),
        ("list.mp4", b"ffconcat version 1.0\nfile a.mp4\n", "not a video"),
    ],
)
def test_what_is_not_a_video(tmp_path, name, content, says):
    make_video(tmp_path / "a.mp4", 3)  # what the lists name
    (tmp_path / name).write_bytes(content)
    with pytest.raises(MediaError, match=f"{name}.*{says}|{says}.*{name}"):
        open_video(tmp_path / name)


def test_what_is_not_there(tmp_path):
    for opener in (open_video, open_source):
        with pytest.raises(MediaError, match=r"none\.mp4 does not exist"):
            opener(tmp_path / "none.mp4")
    with pytest.raises(MediaError, match="is not a file"):
        open_video(tmp_path)


def test_sound_alone_is_not_a_video(tmp_path):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        add_silence(container, container.add_stream("aac", rate=48000, layout="mono"), 0.2)
    with pytest.raises(MediaError, match=r"a\.mp4 has no video stream"):
        open_video(path)


def test_music_with_a_cover_picture_is_not_a_video(tmp_path):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=48000, layout="mono")
        cover = container.add_stream("mjpeg", rate=25)
        cover.width, cover.height, cover.pix_fmt = 96, 64, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        container.mux(cover.encode(av.VideoFrame.from_ndarray(picture(0), format="rgb24")))
        container.mux(cover.encode())
        add_silence(container, sound, 0.2)
    with av.open(str(path)) as container:
        assert len(container.streams.video) == 1
    with pytest.raises(MediaError, match=r"a\.mp4 has no video stream"):
        open_video(path)


def test_an_unknown_codec_is_named_as_the_reason(tmp_path):
    path = make_video(tmp_path / "a.mp4", 5)
    data = bytearray(path.read_bytes())
    at = data.rindex(b"avc1")
    data[at : at + 4] = b"xyz1"
    path.write_bytes(data)
    with pytest.raises(MediaError, match="codec that is not supported"):
        open_video(path)


def test_a_video_without_frames(tmp_path):
    path = make_video(tmp_path / "a.mp4", 3, container_options={"movflags": "+frag_keyframe+empty_moov"})
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"moof") - 4])  # up to the first fragment
    with pytest.raises(MediaError, match="holds no frames"):
        open_video(path)


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("a.mp4", {"container_options": {"movflags": "+faststart"}}, r"ends early: \d+ of about 120 frames"),
        ("a.mkv", {}, r"ends early: \d+ of about 1(19|20|21) frames"),
        ("a.webm", {"codec": "libvpx"}, r"ends early: \d+ of about 1(19|20|21) frames"),
        ("a.avi", {}, r"ends early: \d+ of about 120 frames"),
        ("a.ts", {}, None),  # nothing in the file says how long it should be
    ],
)
def test_a_file_that_ends_early_gives_what_it_has(tmp_path, name, arguments, says):
    path = make_video(tmp_path / name, 120, options={"g": "12"}, **arguments)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 7 // 10])
    # Several threads lose what several of them hold when the last picture fails, unless that is noticed.
    with open_video(path, threads=4) as reader:
        assert 60 <= len(reader) <= 100
        assert len(reader) == decodable(path)
        # The last picture, cut in two, may be patched up by the decoder.
        assert [number_of(reader[i]) for i in range(len(reader) - 2)] == list(range(len(reader) - 2))
        assert number_of(reader.clone()[len(reader) - 5]) == len(reader) - 5
        if says is None:
            assert reader.warning is None
        else:
            assert len(list(reader)) == len(reader)
            assert number_of(reader[30]) == 30
            assert re.search(says, reader.warning)
            assert f" {len(reader)} of " in reader.warning


def test_a_whole_file_has_no_warning(video):
    for name in ("closed groups", "audio first", "start offset in mkv", "vp9", "mpeg4 in avi", "edit list"):
        with open_video(video(name)) as reader:
            assert reader.warning is None


def test_a_picture_found_damaged_while_indexing_is_left_out(tmp_path):
    path = make_video(tmp_path / "a.mp4", options=GROUPS)
    data = bytearray(path.read_bytes())
    position, size = packets_of(path)[15]  # a B-frame: nothing refers to it
    data[position : position + size] = bytes(size)
    path.write_bytes(data)
    with open_video(path) as reader:
        assert len(reader) == 47
        assert [number_of(frame) for frame in reader] == [*range(14), *range(15, 48)]
        assert [reader.time(i) for i in (13, 14)] == pytest.approx([13 / 25, 15 / 25])
        assert reader.warning == "the file is damaged: 1 of its 48 coded pictures could not be decoded"


@pytest.mark.parametrize("packet", [50, 119])
def test_a_picture_found_damaged_while_reading_is_named(tmp_path, packet):
    """Only the inside of a picture is damaged, so its packet looks whole."""
    path = make_video(tmp_path / "a.mp4", 120, options=GROUPS)
    whole = sequential(path)
    data = bytearray(path.read_bytes())
    position, size = packets_of(path)[packet]
    scramble(data, position + 6, position + size)
    path.write_bytes(data)
    with open_video(path) as reader:
        assert len(reader) == 120
        failed = {i: str(error) for i in range(120) if (error := failure(reader, i))}
        assert len(failed) == 1
        (place, said), *_ = failed.items()
        assert abs(place - packet) <= 2
        assert said == f"frame {place} of a.mp4 cannot be decoded: the file is damaged there"
        decoded = reader.packets_decoded
        assert failure(reader, place) is not None, "the second time too"
        assert reader.packets_decoded == decoded, "it was tried again"
        assert failure(reader.clone(), place) is not None
        for i in (0, 30, 100):
            np.testing.assert_array_equal(reader.clone()[i], whole[i])


def test_many_ways_of_damage_end_in_frames_or_in_words(video, tmp_path):
    """Cut, overwritten and shortened at random: nothing else than MediaError may come out."""
    rng = np.random.default_rng(5)
    seeds = ["closed groups", "start offset in mkv", "vp9", "mpeg4 in avi", "mpeg2 stream", "hevc, open groups"]
    outcomes = set()
    for round_ in range(60):
        seed = video(seeds[round_ % len(seeds)])
        data = bytearray(seed.read_bytes())
        at, count = int(rng.integers(len(data))), int(rng.integers(1, 3000))
        match round_ // len(seeds) % 3:
            case 0:
                del data[at:]
            case 1:
                scramble(data, at, min(at + count, len(data)))
            case 2:
                del data[at : at + count]
        path = tmp_path / f"{round_}{seed.suffix}"
        path.write_bytes(data)
        try:
            with open_video(path) as reader:
                for i in [*range(0, len(reader), 3), *range(len(reader) - 1, 0, -7)]:
                    outcomes.add("no frame" if failure(reader, i) else "frame")
        except MediaError:
            outcomes.add("no video")
    assert outcomes == {"frame", "no frame", "no video"}


def test_an_absurd_size_is_refused_before_memory_is_taken(tmp_path):
    path = make_video(tmp_path / "a.avi", 3, codec="ffv1", pixel_format="bgr0")
    data = bytearray(path.read_bytes())
    struct.pack_into("<ii", data, data.index(b"strf") + 12, 20_000, 20_000)
    path.write_bytes(data)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(MediaError, match=r"a\.avi .*more than 64 million pixels"):
        open_video(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB; a frame would take 1.2 GB


def test_the_limit_of_pixels_can_be_set(video):
    path = video("closed groups")
    with open_video(path, max_pixels=96 * 64) as reader:
        assert number_of(reader[3]) == 3
    with pytest.raises(MediaError, match=r"96x64 pixels; the limit is 0\.006 million"):
        open_video(path, max_pixels=6000)


def test_the_limit_holds_for_an_index_from_the_cache(video, tmp_path):
    path = video("closed groups")
    open_video(path, cache_dir=tmp_path).close()
    with pytest.raises(MediaError, match="the limit is"):
        open_video(path, cache_dir=tmp_path, max_pixels=6000)
