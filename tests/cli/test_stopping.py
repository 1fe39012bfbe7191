"""Stopping ``tam track`` from outside, gently and not: what is left is usable, and the same call goes on from there."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tam_backend.drawing import draw_objects
from tam_backend.errors import MediaError
from tam_backend.video import open_video
from tests.cli.conftest import FRAMES, masks_in

ROOT = Path(__file__).parents[2]
STEP = "a step has begun"
PROMPTS = ("--click", "4,10.5,12.5:1", "--click", "16,20,9:2")


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="module")
def start(video: Path) -> Iterator[Start]:
    """Starts ``tam track`` on the video in a process of its own; seconds: what one frame takes."""
    with contextlib.ExitStack() as stack:

        def run(out: Path, seconds: float = 0) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.cli.tam", "track", str(video), *PROMPTS, "--out", str(out), "--overlay"],
                cwd=ROOT,
                env={**os.environ, "TAM_TEST_SECONDS": str(seconds), "TAM_TEST_STEP": str(out / STEP)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield run


def wait_for_masks(out: Path, count: int) -> None:
    wait_until(lambda: len(list(out.glob("*.png"))) >= count)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture(scope="module")
def undisturbed(start: Start, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The masks that an undisturbed run gives."""
    out = tmp_path_factory.mktemp("undisturbed")
    process = start(out)
    assert process.communicate(timeout=60)[1] == ""
    assert process.returncode == 0
    return masks_in(out)


def test_ctrl_c_leaves_what_is_finished_and_says_how_to_go_on(start, tmp_path, undisturbed):
    process = start(tmp_path, seconds=0.1)
    wait_for_masks(tmp_path, 3)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "tam track: stopped; the same command goes on from here" in err
    left = masks_in(tmp_path)
    assert 3 <= len(left) < FRAMES
    assert left.items() <= undisturbed.items()
    assert f"{len(left)} of {FRAMES} frames in {tmp_path}" in out
    assert len(open_video(tmp_path / "overlay.mp4")) == len(left)
    task = json.loads((tmp_path / "predictions.json").read_text())
    assert {f"{r['item_index']:05d}.png" for r in task["predictions"][0]["result"]} == left.keys()
    assert len(task["data"]["frames"]) == FRAMES

    again = start(tmp_path)
    out, err = again.communicate(timeout=30)
    assert (again.returncode, err) == (0, "")
    assert masks_in(tmp_path) == undisturbed
    assert len(open_video(tmp_path / "overlay.mp4")) == FRAMES
    assert "known before" in out


def test_ctrl_c_twice_stops_at_once(start, tmp_path):
    process = start(tmp_path, seconds=60)
    wait_until((tmp_path / STEP).exists)
    process.send_signal(signal.SIGINT)
    assert process.stderr.readline() == "\n"
    assert process.stderr.readline() == "stopping after this step; Ctrl-C again stops at once\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err == "tam track: stopped\n"
    assert "Traceback" not in err


@pytest.mark.parametrize("count", [1, 8])
def test_killed_and_called_again_equals_undisturbed(start, tmp_path, undisturbed, count):
    process = start(tmp_path, seconds=0.01)
    wait_for_masks(tmp_path, count)
    process.kill()
    process.communicate(timeout=30)
    assert masks_in(tmp_path).items() <= undisturbed.items()
    (tmp_path / "00003.png.1-1.partial").write_bytes(b"half a mask")

    again = start(tmp_path)
    _, err = again.communicate(timeout=30)
    assert (again.returncode, err) == (0, "")
    assert masks_in(tmp_path) == undisturbed
    assert not list(tmp_path.rglob("*.partial"))


def test_two_calls_at_once_on_one_folder(start, tmp_path, undisturbed):
    first = start(tmp_path, seconds=60)
    wait_until((tmp_path / ".tam" / "run.json").exists)
    second = start(tmp_path)
    _, err = second.communicate(timeout=30)
    assert second.returncode == 1
    assert err == (
        f"tam track: error: another tam track is writing to {tmp_path}; wait for it or choose another --out\n"
    )
    first.kill()
    first.communicate()
    third = start(tmp_path)
    assert third.communicate(timeout=30)[1] == ""
    assert masks_in(tmp_path) == undisturbed


def test_ctrl_c_before_anything_new_is_computed_keeps_what_earlier_calls_found(tam, video, engine, tmp_path):
    call = ("track", video, "--click", "4,10.5,12.5", "--out", tmp_path)

    def stop_at(wanted: int):
        def before_step(frame: int) -> None:
            if frame == wanted:
                signal.raise_signal(signal.SIGINT)

        return before_step

    engine.propagator.before_step = stop_at(11)
    assert tam(*call).code == 130
    assert len(masks_in(tmp_path)) == 12
    (tmp_path / "00007.png").unlink()
    engine.propagator.before_step = stop_at(12)
    result = tam(*call)
    assert result.code == 130
    assert f"13 of {FRAMES} frames" in result.out
    assert "1 computed" in result.out
    assert len(masks_in(tmp_path)) == 13
    task = json.loads((tmp_path / "predictions.json").read_text())
    assert len(task["predictions"][0]["result"]) == 13


def test_ctrl_c_while_a_correction_looks_for_its_mask(tam, video, engine, tmp_path):
    call = ("track", video, "--click", "4,10.5,12.5", "--click", "15,21,12,-", "--out", tmp_path)
    engine.propagator.before_step = lambda frame: signal.raise_signal(signal.SIGINT) if frame == 9 else None
    result = tam(*call)
    assert result.code == 130
    assert f"0 of {FRAMES} frames" in result.out
    assert masks_in(tmp_path) == {}
    engine.propagator.before_step = lambda frame: None
    assert tam(*call).code == 0
    again = tmp_path / "undisturbed"
    assert tam(*call[:-1], again).code == 0
    assert masks_in(tmp_path) == masks_in(again)


def test_ctrl_c_while_the_overlay_is_written(tam, video, engine, tmp_path, monkeypatch):
    call = ("track", video, "--click", "4,10.5,12.5", "--out", tmp_path, "--overlay")
    drawn = []

    def draw(picture, ids, number):
        drawn.append(number)
        if number == 6:
            signal.raise_signal(signal.SIGINT)
        return draw_objects(picture, ids, number)

    monkeypatch.setattr("tam_backend.commands.track.draw_objects", draw)
    result = tam(*call)
    assert result.code == 130
    assert "the same command goes on from here" in result.err
    assert len(open_video(tmp_path / "overlay.mp4")) == 7
    assert len(masks_in(tmp_path)) == FRAMES
    assert (tmp_path / "predictions.json").exists()
    monkeypatch.undo()


def test_a_frame_that_cannot_be_read_ends_in_an_error_and_keeps_the_rest(tam, video, engine, tmp_path):
    def fail(frame: int) -> None:
        if frame == 13:
            raise MediaError("frame 13 of tiny.mp4 cannot be decoded: the file is damaged there")

    engine.propagator.before_step = fail
    result = tam("track", video, "--click", "4,10.5,12.5", "--out", tmp_path, "--overlay")
    assert result.code == 1
    assert result.err == ("tam track: error: frame 13 of tiny.mp4 cannot be decoded: the file is damaged there\n")
    assert len(masks_in(tmp_path)) == len(open_video(tmp_path / "overlay.mp4")) == 13
