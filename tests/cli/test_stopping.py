"""Stopping ``tam track`` from outside, gently and not: what is left is usable, and the same call goes on from there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tam_backend.errors import MediaError
from tam_backend.video import open_video
from tests.cli.conftest import FRAMES, masks_in

ROOT = Path(__file__).parents[2]
PROMPTS = ("--click", "4,10.5,12.5:1", "--click", "16,20,9:2")


def start(video: Path, out: Path, *, seconds: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.cli.tam", "track", str(video), *PROMPTS, "--out", str(out), "--overlay"],
        cwd=ROOT,
        env={**os.environ, "TAM_TEST_SECONDS": str(seconds)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_masks(out: Path, count: int) -> None:
    deadline = time.monotonic() + 30
    while len(list(out.glob("*.png"))) < count:
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture(scope="module")
def undisturbed(video: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, bytes]]:
    out = tmp_path_factory.mktemp("undisturbed")
    process = start(video, out, seconds=0)
    assert process.communicate(timeout=60)[1] == ""
    assert process.returncode == 0
    return masks_in(out)


def test_ctrl_c_leaves_what_is_finished_and_says_how_to_go_on(video, tmp_path, undisturbed):
    process = start(video, tmp_path, seconds=0.03)
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

    again = start(video, tmp_path, seconds=0)
    out, err = again.communicate(timeout=30)
    assert (again.returncode, err) == (0, "")
    assert masks_in(tmp_path) == undisturbed
    assert len(open_video(tmp_path / "overlay.mp4")) == FRAMES
    assert "known before" in out


def test_ctrl_c_twice_stops_at_once(video, tmp_path):
    process = start(video, tmp_path, seconds=5)
    deadline = time.monotonic() + 30
    while not (tmp_path / ".tam" / "store").exists():
        assert time.monotonic() < deadline
        time.sleep(0.005)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=4)
    assert process.returncode == 130
    assert "Traceback" not in err


@pytest.mark.parametrize("count", [1, 8])
def test_killed_and_called_again_equals_undisturbed(video, tmp_path, undisturbed, count):
    process = start(video, tmp_path, seconds=0.01)
    wait_for_masks(tmp_path, count)
    process.kill()
    process.communicate(timeout=30)
    assert masks_in(tmp_path).items() <= undisturbed.items()
    (tmp_path / "00003.png.1-1.partial").write_bytes(b"half a mask")

    again = start(video, tmp_path, seconds=0)
    _, err = again.communicate(timeout=30)
    assert (again.returncode, err) == (0, "")
    assert masks_in(tmp_path) == undisturbed
    assert not list(tmp_path.rglob("*.partial"))


def test_two_calls_at_once_on_one_folder(video, tmp_path, undisturbed):
    first = start(video, tmp_path, seconds=0.02)
    wait_for_masks(tmp_path, 1)
    second = start(video, tmp_path, seconds=0)
    _, err = second.communicate(timeout=30)
    assert second.returncode == 1
    assert err == (
        f"tam track: error: another tam track is writing to {tmp_path}; wait for it or choose another --out\n"
    )
    first.communicate(timeout=30)
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


def test_a_frame_that_cannot_be_read_ends_in_an_error_and_keeps_the_rest(tam, video, engine, tmp_path):
    def fail(frame: int) -> None:
        if frame == 13:
            raise MediaError("frame 13 of tiny.mp4 cannot be decoded: the file is damaged there")

    engine.propagator.before_step = fail
    result = tam("track", video, "--click", "4,10.5,12.5", "--out", tmp_path, "--overlay")
    assert result.code == 1
    assert result.err == ("tam track: error: frame 13 of tiny.mp4 cannot be decoded: the file is damaged there\n")
    assert len(masks_in(tmp_path)) == len(open_video(tmp_path / "overlay.mp4")) == 13
