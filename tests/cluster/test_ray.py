"""A real Ray, of this machine alone: batches and sessions on two workers, of which one is killed in the middle."""

from __future__ import annotations

import csv
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tam_backend.cluster import on_ray
from tam_backend.cluster.on_ray import session_workers
from tam_backend.cluster.sessions import Elsewhere
from tam_backend.engines import load_engine
from tam_backend.labelstudio.config import EXAMPLE
from tam_backend.prompts import Click, FramePrompts
from tam_backend.settings import Settings
from tam_backend.tracking.store import MemoryStore
from tam_backend.tracking.tracker import Anchor
from tam_backend.video import open_video
from tests.fakes import FakeLabelStudio, make_video
from tests.server.conftest import point
from tests.server.test_serve import free_port, start

pytestmark = pytest.mark.timeout(240)

FRAMES = 250
_CLUSTER = """
import sys
from tam_backend.cluster.on_ray import connect
cluster = connect("local", cores=4)
print(cluster.address, flush=True)
sys.stdin.read()
cluster.close()
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Address of a cluster that ends with the tests, and that all programs begun by them may join."""
    command = [sys.executable, "-c", _CLUSTER]
    with pytest.MonkeyPatch.context() as environment:
        if not on_ray._token_known():
            environment.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            address = next((line.strip() for line in process.stdout if re.fullmatch(r"[0-9.]+:\d+\n", line)), None)
            assert address is not None, "no cluster: its error is above"
            yield address
            process.stdin.close()
            process.wait(30)


def test_a_cluster_of_our_own_needs_no_token_on_disk(tmp_path: Path):
    """As on a machine where Ray has never been used; the first start of all made no token, and did not go on."""
    ours = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE")
    environment = {k: v for k, v in os.environ.items() if k not in ours} | {"HOME": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, "-c", _CLUSTER], stdin=subprocess.DEVNULL, env=environment, capture_output=True, text=True
    )
    assert re.search(r"^[0-9.]+:\d+$", result.stdout, re.MULTILINE), result.stderr
    assert not (tmp_path / ".ray").exists()


def test_a_killed_workers_video_is_finished_by_the_other(cluster: str, tmp_path: Path):
    make_video(tmp_path / "long.mp4", FRAMES, 320, 240)
    make_video(tmp_path / "short.mp4", 8)
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    lines = [{"video": f"{name}.mp4", "click": ["0,17,17"]} for name in ("long", "short", "bad")]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, lines)))
    command = [
        sys.executable, "-m", "tam_backend.cli", "batch", "m.jsonl", "--out", "out", "--engine", "embedded",
        "--address", cluster, "--workers", "2",
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    said = []
    victim = 0
    for line in process.stderr:
        said.append(line)
        if not victim and (begun := re.search(r"worker (\d) \(.*process (\d+)\) begins long", line)):
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


def test_a_killed_workers_session_goes_on_with_the_other(cluster: str, tmp_path: Path, label_studio: FakeLabelStudio):
    """A click on a server whose workers compute: its answer has all masks although its worker is killed."""
    make_video(label_studio.root / "a.mp4", 80, 320, 240)
    port = free_port()
    server = start(port, tmp_path / "data", TAM_CLUSTER=cluster, TAM_CLUSTER_WORKERS="2", TAM_ANSWER_SECONDS="90")
    url = f"http://127.0.0.1:{port}"
    said: list[str] = []
    processes: dict[str, int] = {}
    killed: list[str] = []

    def listen() -> None:
        for line in server.stderr:
            said.append(line)
            if found := re.search(r"worker (\d): .*process (\d+)", line):
                processes[found[1]] = int(found[2])
            elif (found := re.search(r"worker (\d) computes", line)) and not killed:
                killed.append(found[1])
                os.kill(processes[found[1]], signal.SIGKILL)

    listener = threading.Thread(target=listen)
    listener.start()
    try:
        assert server.stdout.readline().startswith("Track anything is ready"), said
        setup = {"project": "1.2", "schema": EXAMPLE, "hostname": label_studio.url, "access_token": label_studio.TOKEN}
        requests.post(f"{url}/setup", json=setup, timeout=10).raise_for_status()
        task = label_studio.add_task({"video": "/data/upload/1/a.mp4"})
        request = {"tasks": [task], "project": "1.2", "label_config": EXAMPLE, "params": {"context": None}}
        requests.post(f"{url}/predict", json=request, timeout=60).raise_for_status()
        keypoint = point("p1", 0, 0, 0) | {"original_width": 320, "original_height": 240}
        keypoint["value"] = keypoint["value"] | {"x": 17 / 3.2, "y": 17 / 2.4}
        click = request | {
            "tasks": [{**label_studio.tasks[1], "drafts": [], "annotations": []}],
            "params": {"context": {"result": [keypoint]}},
        }
        answer = requests.post(f"{url}/predict", json=click, timeout=120).json()
        figures = requests.get(f"{url}/metrics", timeout=10).text
    finally:
        server.send_signal(signal.SIGTERM)
        listener.join(60)
        server.wait(30)
        server.stdout.close()
        server.stderr.close()
    assert len(processes) == 2, said
    assert any(f"worker {killed[0]}: it died" in line for line in said), said
    masks = {r["item_index"] for r in answer["results"][0]["result"] if r["type"] == "brushlabels"}
    assert len(masks) >= 10, answer
    assert 'tam_frame_seconds_count{work="click"} 80.0' in figures
    assert server.returncode == 0
    assert not [line for line in said if "Traceback" in line]


def test_a_batch_runs_beside_sessions_that_have_a_worker_on_every_core(cluster: str, tmp_path: Path):
    """It gets room although they take all cores, works while they are idle, and they go on meanwhile."""
    make_video(tmp_path / "long.mp4", 120, 320, 240)
    make_video(tmp_path / "short.mp4", 12)
    (tmp_path / "m.jsonl").write_text(json.dumps({"video": "long.mp4", "click": ["0,17,17"]}))
    engine = load_engine("embedded", Settings())
    workers, count = session_workers(Settings(cluster=cluster), engine)
    assert count == 4
    executor = Elsewhere(engine, workers)
    command = [
        sys.executable, "-m", "tam_backend.cli", "batch", "m.jsonl", "--out", "out", "--engine", "embedded",
        "--address", cluster, "--workers", "1",
    ]  # fmt: skip
    beside = 0
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        begun = next(b for line in process.stderr if (b := re.search(r"process (\d+)\) begins long", line)))
        assert os.sched_getscheduler(int(begun[1])) == os.SCHED_IDLE
        listener = threading.Thread(target=process.stderr.read)
        listener.start()
        with open_video(tmp_path / "short.mp4") as video:
            while process.poll() is None:
                store = MemoryStore(10**7)
                with executor.tracker(video, range(12), store, range(12)) as remote:
                    steps = list(remote.track({0: Anchor(FramePrompts((Click(17, 17),)))}, 0))
                assert len(steps) == 12
                beside += process.poll() is None
        listener.join()
        out = process.stdout.read()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()
        executor.close()
    assert "1 of 1 videos done" in out
    assert beside
