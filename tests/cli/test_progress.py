"""What a person sees while ``tam track`` works, and the frames that it names for a second look."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tam_backend.commands.track_progress import FRAMES_TO_CHECK, GOOD_QUALITY, frames_to_check

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("quiet", [False, True])
def test_a_terminal_shows_a_bar_with_the_time_left(video, tmp_path, quiet):
    terminal, stderr = os.openpty()
    termios.tcsetwinsize(stderr, (25, 80))
    call = [sys.executable, "-m", "tests.cli.tam", "track", str(video), "--click", "4,9,9", "--out", str(tmp_path)]
    environment = {**os.environ, "TAM_TEST_SECONDS": "0.02", "TAM_TEST_STEP": str(tmp_path / "step")}
    process = subprocess.Popen(
        [*call, "--overlay", *(["--quiet"] if quiet else [])],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=stderr,
    )
    os.close(stderr)
    shown = b""
    try:
        while piece := os.read(terminal, 10_000):
            shown += piece
    except OSError:  # the other end is closed: the process has ended
        pass
    finally:
        os.close(terminal)
    process.communicate(timeout=30)
    assert process.returncode == 0
    if quiet:
        assert shown == b""
    else:
        assert b"tracking: 100%" in shown
        assert b"| 20/20 [" in shown
        assert b"overlay: 100%" in shown


@given(st.dictionaries(st.integers(0, 300), st.floats(0, 1), max_size=60))
def test_frames_to_check_are_poor_few_and_apart(quality):
    frames = frames_to_check(quality)
    assert frames == sorted(frames)
    assert len(frames) <= FRAMES_TO_CHECK
    assert all(quality[f] < GOOD_QUALITY for f in frames)
    assert all(b - a >= 2 for a, b in itertools.pairwise(frames))
    poor = [f for f, value in quality.items() if value < GOOD_QUALITY]
    assert bool(frames) == bool(poor)
    if poor:
        assert min(poor, key=lambda f: (quality[f], f)) in frames


def test_frames_to_check_come_from_different_moments():
    quality = dict.fromkeys(range(100), 0.8) | {40: 0.1, 41: 0.2, 42: 0.3, 70: 0.4, 10: 0.5, 90: 0.6}
    assert frames_to_check(quality) == [10, 40, 70]
