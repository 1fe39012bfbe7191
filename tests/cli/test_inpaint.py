"""``tam inpaint`` as a person uses it: what it writes, read back; what it refuses; how it goes on after a stop."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image

import tam_backend.inpainting.embedded.engine as embedded
from tam_backend.video import open_video
from tests.cli.conftest import write_indexed

WIDTH, HEIGHT, FRAMES = 128, 80, 14
#: Gaps between frames in units of 1/600 s, as phones make them.
GAPS = (20, 20, 40, 20, 20, 20, 60, 20, 20, 40, 20, 20, 20)
ROOT = Path(__file__).parents[2]


def background(frame: int) -> np.ndarray:
    """A smooth pattern that a camera moves over, two pixels a frame."""
    noise = np.random.default_rng(3).integers(0, 255, (HEIGHT, WIDTH + 2 * FRAMES, 3), np.uint8)
    scene = np.clip((cv2.GaussianBlur(noise, (0, 0), 3).astype(np.float32) - 127) * 4 + 127, 0, 255).astype(np.uint8)
    return scene[:, 2 * frame : 2 * frame + WIDTH]


def ids(frame: int) -> np.ndarray:
    """Object 1 is a disc that crosses the picture, object 2 a square that stays at its lower edge."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.circle(mask, (24 + 6 * frame, 30), 9, 1, -1)
    mask[60:74, 50:64] = 2
    return mask


def picture(frame: int) -> np.ndarray:
    objects = ids(frame)[..., None]
    return np.where(objects == 1, (250, 20, 20), np.where(objects == 2, (20, 20, 250), background(frame))).astype(
        np.uint8
    )


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with film.mp4, whose frames come at uneven times and which has sound, and masks/."""
    root = tmp_path_factory.mktemp("scene")
    with av.open(str(root / "film.mp4"), "w", options={"video_track_timescale": "600"}) as container:
        video = container.add_stream("libx264", rate=30, options={"crf": "8", "preset": "veryfast"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        video.codec_context.time_base = Fraction(1, 600)
        sound = container.add_stream("aac", rate=48000)
        sound.layout = "mono"
        for i in range(30):
            samples = (np.sin(np.arange(1024 * i, 1024 * (i + 1)) / 20)[None] * 0.3).astype(np.float32)
            part = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            part.sample_rate, part.pts = 48000, 1024 * i
            container.mux(sound.encode(part))
        container.mux(sound.encode(None))
        for i in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(picture(i), format="rgb24")
            frame.pts, frame.time_base = sum(GAPS[:i]), Fraction(1, 600)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    (root / "masks").mkdir()
    for i in range(FRAMES):
        write_indexed(root / "masks" / f"{i:05d}.png", ids(i))
    return root


@pytest.fixture
def masks(scene: Path, tmp_path: Path) -> Path:
    """A copy of the masks to spoil."""
    return Path(shutil.copytree(scene / "masks", tmp_path / "masks"))


def frame_times(path: Path) -> list[Fraction]:
    with av.open(str(path)) as container:
        return [f.pts * f.time_base for f in container.decode(video=0)]


def sound_packets(path: Path) -> list[tuple[Fraction, bytes]]:
    with av.open(str(path)) as container:
        return [(p.pts * p.time_base, bytes(p)) for p in container.demux(audio=0) if p.size]


def error_at(result: np.ndarray, frame: int, where: np.ndarray) -> float:
    """Root of the mean squared error against what is behind the objects."""
    return float(np.sqrt(np.mean((result[where].astype(float) - background(frame)[where]) ** 2)))


def left_in(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.name != "masks")


# ---- what it writes


def test_a_video_without_the_objects_and_with_all_else(tam, scene, tmp_path):
    out = tmp_path / "out.mp4"
    result = tam("inpaint", scene / "film.mp4", scene / "masks", "--object", 1, "--out", out, "--compare")
    assert result.code == 0, result.err
    assert left_in(tmp_path) == ["out-compare.mp4", "out.mp4"], "the work is removed"
    assert f"{FRAMES} frames in {out}: holes on {FRAMES} of them filled in " in result.out
    assert "Never seen on any frame, and so invented: " in result.out
    assert frame_times(out) == frame_times(scene / "film.mp4") == frame_times(tmp_path / "out-compare.mp4")
    assert sound_packets(out) == sound_packets(scene / "film.mp4")
    before, after = open_video(scene / "film.mp4"), open_video(out)
    both = open_video(tmp_path / "out-compare.mp4")
    assert (both.width, both.height) == (2 * WIDTH + 4, HEIGHT)
    for i in range(FRAMES):
        assert error_at(after[i], i, ids(i) == 1) < 20, i
        assert error_at(before[i], i, ids(i) == 1) > 80, i
        other = ids(i) == 2
        assert np.abs(after[i][other].astype(int) - before[i][other]).mean() < 9, (
            "it was not to be taken out"
        )  # coded anew
    with av.open(str(out)) as container:
        assert container.metadata["comment"] == "Objects were taken out of this video with tam inpaint."


def test_frames_are_exact_outside_the_holes(tam, scene, tmp_path):
    call = ("inpaint", scene / "film.mp4", scene / "masks", "--dilate", 3)
    result = tam(*call, "--start", 2, "--end", 9, "--out", tmp_path / "frames")
    assert result.code == 0, result.err
    film = open_video(scene / "film.mp4")
    assert [p.name for p in sorted((tmp_path / "frames").iterdir())] == [f"{i:05d}.png" for i in range(2, 10)]
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    for i in range(2, 10):
        hole = cv2.dilate((ids(i) > 0).astype(np.uint8), cross, iterations=3) > 0
        mine = np.array(Image.open(tmp_path / "frames" / f"{i:05d}.png"))
        assert np.array_equal(mine[~hole], film[i][~hole])
        assert error_at(mine, i, ids(i) == 1) < 20


def test_a_part_begins_at_time_0_with_its_sound(tam, scene, tmp_path):
    result = tam("inpaint", scene / "film.mp4", scene / "masks", "--start", 4, "--end", 9, "--out", tmp_path / "o.mp4")
    assert result.code == 0, result.err
    whole = frame_times(scene / "film.mp4")
    assert frame_times(tmp_path / "o.mp4") == [t - whole[4] for t in whole[4:10]]
    kept = [(t - whole[4], p) for t, p in sound_packets(scene / "film.mp4") if whole[4] <= t < whole[10]]
    mine = sound_packets(tmp_path / "o.mp4")
    assert [p for _, p in mine] == [p for _, p in kept]
    assert max(abs(a - b) for (a, _), (b, _) in zip(mine, kept, strict=True)) < Fraction(1, 24000)
    result = tam("inpaint", scene / "film.mp4", scene / "masks", "--no-keep-audio", "--out", tmp_path / "silent.mp4")
    assert result.code == 0, result.err
    with av.open(str(tmp_path / "silent.mp4")) as container:
        assert not container.streams.audio


def test_masks_of_tam_track_for_another_video_are_refused(tam, scene, masks, tmp_path):
    (masks / ".tam").mkdir()
    (masks / ".tam" / "run.json").write_text(json.dumps({"video": "another", "name": "dog.mp4", "frames": [0, 14]}))
    result = tam("inpaint", scene / "film.mp4", masks, "--out", tmp_path / "o.mp4")
    assert (result.code, left_in(tmp_path)) == (2, [])
    assert result.err == f"tam inpaint: error: the masks in {masks} were made for another video, dog.mp4\n"


# ---- what it refuses


def _wrong_size(masks: Path) -> str:
    write_indexed(masks / "00005.png", ids(5)[:, :100])
    return f"the mask {masks / '00005.png'} is 100x80 pixels, the video 128x80"


def _missing(masks: Path) -> str:
    (masks / "00003.png").unlink()
    return (
        f"{masks} has no mask for 1 of the 14 frames; the first is frame 3. To work on those that have one: --start 4 "
        "--end 13"
    )


def _other_frames(masks: Path) -> str:
    write_indexed(masks / "00014.png", ids(0))
    return (
        f"{masks} has a mask for frame 14 (00014.png), but the video has frames 0 to 13: these are the masks of "
        "another video, or numbered from 1"
    )


def _empty(masks: Path) -> str:
    for path in masks.iterdir():
        write_indexed(path, np.zeros((HEIGHT, WIDTH)))
    return f"the masks of {masks} are empty on frames 0 to 13: there is nothing to take out"


def _everything(masks: Path) -> str:
    for path in masks.iterdir():
        write_indexed(path, np.ones((HEIGHT, WIDTH)))
    return f"the masks of {masks} cover every frame whole: nothing is left to fill them from"


def _damaged(masks: Path) -> str:
    (masks / "00006.png").write_bytes((masks / "00006.png").read_bytes()[:60])
    return f"the mask of frame 6: {masks / '00006.png'} cannot be read: it is damaged or no PNG"


def _twice(masks: Path) -> str:
    write_indexed(masks / "frame-1.png", ids(1))
    return f"{masks} has two masks for frame 1: 00001.png and frame-1.png"


def _none(masks: Path) -> str:
    shutil.rmtree(masks)
    masks.mkdir()
    return f"{masks} has no masks: PNG files named by the number of their frame, such as 00000.png"


@pytest.mark.parametrize("spoil", [_wrong_size, _missing, _other_frames, _empty, _everything, _damaged, _twice, _none])
def test_masks_that_cannot_be_used(tam, scene, masks, tmp_path, spoil):
    message = spoil(masks)
    result = tam("inpaint", scene / "film.mp4", masks, "--out", tmp_path / "o.mp4")
    assert (result.code, result.err) == (2, f"tam inpaint: error: {message}\n")
    assert left_in(tmp_path) == []


def test_options_that_cannot_be_used(tam, scene, tmp_path):
    film, masks = scene / "film.mp4", scene / "masks"
    (tmp_path / "there.mp4").write_bytes(b"somebody's")
    for arguments, message in (
        (
            (film, masks, "--out", tmp_path / "o.mp4", "--object", 7),
            "--object 7: .* has no pixel of it on frame",
        ),
        (
            (film, masks, "--out", tmp_path / "o.mp4", "--object", "x"),
            "--object x: an object is a number from 1",
        ),
        ((film, masks, "--out", tmp_path / "there.mp4"), "is there already; choose another name, or --force"),
        ((film, masks, "--out", tmp_path / "o.avi"), "a video is written as .mp4"),
        ((film, masks, "--out", masks), "is an input"),
        ((film, masks, "--out", tmp_path / "no" / "o.mp4"), "there is no folder"),
        ((film, masks, "--out", tmp_path), "not an empty folder"),
        ((film, masks, "--out", tmp_path / "o.mp4", "--end", 14), "--end 14: there is no such frame"),
        ((film, masks, "--out", tmp_path / "o.mp4", "--dilate", -1), "--dilate -1"),
        ((film, masks / "00000.png", "--out", tmp_path / "o.mp4"), "is neither a folder nor a .json file"),
        ((film, "--out", tmp_path / "o.mp4"), "say where the masks are"),
    ):
        result = tam("inpaint", *arguments)
        assert result.code == 2, arguments
        assert "Traceback" not in result.err
        assert re.search(message, result.err), result.err
    assert left_in(tmp_path) == ["there.mp4"]
    assert (tmp_path / "there.mp4").read_bytes() == b"somebody's"


def test_frames_without_a_mask_and_frames_that_are_all_mask(tam, scene, masks, tmp_path):
    write_indexed(masks / "00004.png", np.zeros((HEIGHT, WIDTH)))
    write_indexed(masks / "00008.png", np.ones((HEIGHT, WIDTH)))
    result = tam("inpaint", scene / "film.mp4", masks, "--out", tmp_path / "frames")
    assert result.code == 0, result.err
    assert "On 1 frames the mask covers everything (first: 8)." in result.out
    shown = {i: np.array(Image.open(tmp_path / "frames" / f"{i:05d}.png")) for i in (4, 8)}
    assert np.array_equal(shown[4], open_video(scene / "film.mp4")[4]), "nothing was to be done there"
    assert error_at(shown[8], 8, ids(8) == 1) < 40, "from the frames beside it"


# ---- stopping


def test_ctrl_c_leaves_nothing_half_written_and_the_same_call_goes_on(tam, scene, tmp_path, monkeypatch):
    call = ("inpaint", scene / "film.mp4", scene / "masks", "--out", tmp_path / "frames")
    join, joined = embedded.EmbeddedFilling._join, []

    def interrupted(self, frame, before):
        joined.append(frame)
        if frame == 5:
            signal.raise_signal(signal.SIGINT)
        join(self, frame, before)

    monkeypatch.setattr(embedded.EmbeddedFilling, "_join", interrupted)
    result = tam(*call)
    assert result.code == 130
    assert result.err.endswith("tam inpaint: stopped; the same command goes on from here\n")
    assert left_in(tmp_path) == [".frames.tam"]
    assert joined == list(range(6))
    result = tam(*call)
    assert result.code == 0, result.err
    assert joined[6:] == list(range(6, FRAMES)), "what was finished is not done again"
    assert left_in(tmp_path) == ["frames"]
    monkeypatch.undo()
    tam(*call[:-1], tmp_path / "undisturbed")
    for path in (tmp_path / "undisturbed").iterdir():
        assert (tmp_path / "frames" / path.name).read_bytes() == path.read_bytes(), path.name


def test_killed_and_called_again(scene, tmp_path):
    def start(out: Path) -> subprocess.Popen[str]:
        call = ["inpaint", str(scene / "film.mp4"), str(scene / "masks"), "--out", str(out)]
        return subprocess.Popen(
            [sys.executable, "-m", "tam_backend.cli", *call], cwd=ROOT, stderr=subprocess.PIPE, text=True,
            stdout=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip

    process, deadline = start(tmp_path / "frames"), time.monotonic() + 60
    while len(list((tmp_path / ".frames.tam" / "store").rglob("*"))) < 16:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.002)
    process.kill()
    process.communicate()
    assert left_in(tmp_path) == [".frames.tam"]
    (tmp_path / ".frames.0123abcd.part").mkdir()  # as one leaves that is killed while it writes
    (tmp_path / ".frames.0123abcd.part" / "00000.png").touch()
    (tmp_path / ".frames-compare.0123abcd.part").touch()
    for out in (tmp_path / "frames", tmp_path / "undisturbed"):
        assert start(out).communicate(timeout=120)[1] == ""
    assert left_in(tmp_path) == ["frames", "undisturbed"]
    for path in (tmp_path / "undisturbed").iterdir():
        assert (tmp_path / "frames" / path.name).read_bytes() == path.read_bytes(), path.name
