"""``tam batch`` on a real Ray, of this machine alone: two workers, of which one is killed."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes import make_video

FRAMES = 250


@pytest.mark.timeout(240)
def test_a_killed_workers_video_is_finished_by_the_other(tmp_path: Path):
    make_video(tmp_path / "long.mp4", FRAMES, 320, 240)
    make_video(tmp_path / "short.mp4", 8)
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    lines = [{"video": f"{name}.mp4", "click": ["0,17,17"]} for name in ("long", "short", "bad")]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, lines)))
    command = [
        sys.executable, "-m", "tam_backend.cli", "batch", "m.jsonl", "--out", "out", "--engine", "embedded",
        "--address", "local", "--workers", "2",
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    said = []
    victim = 0
    for line in process.stderr:
        said.append(line)
        if begun := re.search(r"worker (\d) \(.*process (\d+)\) begins long", line):
            worker, number = begun.groups()
        if not victim and list((tmp_path / "out" / ".unfinished" / "long").glob("*.segment")):
            victim = int(number)
            os.kill(victim, signal.SIGKILL)
    out = process.communicate(timeout=60)[0]
    assert process.returncode == 1, said  # because of bad.mp4
    assert victim, said
    assert "2 of 3 videos done" in out
    with (tmp_path / "out" / "report.csv").open(newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert {name: row["state"] for name, row in rows.items()} == {"long": "done", "short": "done", "bad": "failed"}
    long = rows["long"]
    first, second = long["workers"].split()
    assert (first, long["attempts"], long["frames"]) == (worker, "2", str(FRAMES))
    assert second != first
    assert 0 < int(long["computed"]) < FRAMES, "what the killed worker had finished is computed again"
    assert len(list((tmp_path / "out" / "long").glob("*.png"))) == FRAMES
    assert any("its worker died" in line and "it is tried again" in line for line in said)
    assert rows["bad"]["attempts"] == "1"
    [letter] = map(json.loads, (tmp_path / "out" / "dead-letters.jsonl").read_text().splitlines())
    assert letter["name"] == "bad"
