"""What a person sees while ``tam track`` works."""

from __future__ import annotations

import os
import subprocess
import sys
import termios
from pathlib import Path

import pytest

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
