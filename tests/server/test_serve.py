"""``tam serve`` as a process of its own, with the real engine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tam_backend.labelstudio.config import EXAMPLE
from tests.fakes import FakeLabelStudio, make_video
from tests.server.conftest import point


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start(port: int, data_dir: Path, *arguments: str, **environ: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tam_backend.cli", "serve", "--port", str(port), *arguments]
    env = {**os.environ, "TAM_DATA_DIR": str(data_dir), "TAM_ENGINE": "embedded", **environ}
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)  # where the tests run in a shell's background it is ignored
    try:
        return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """Address of a running backend, which is stopped by SIGTERM and must end in good order."""
    port = free_port()
    process = start(port, tmp_path / "data")
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            assert process.poll() is None, process.stderr.read()
            try:
                requests.get(url + "/health", timeout=1).raise_for_status()
                break
            except requests.ConnectionError:
                time.sleep(0.1)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert out.startswith("Track anything is ready on http://127.0.0.1:")
    assert "Traceback" not in err


def test_upload_click_masks_and_health_meanwhile(server: str, label_studio: FakeLabelStudio):
    """The way of a video from its upload to masks. Label Studio gives /health 1 s and /setup 3 s, come what may."""
    make_video(label_studio.root / "a.mp4", frames=80, width=640, height=480)
    setup = {"project": "1.2", "schema": EXAMPLE, "hostname": label_studio.url, "access_token": label_studio.TOKEN}
    assert requests.post(server + "/setup", json=setup, timeout=3).status_code == 200
    task = label_studio.add_task({"video": "/data/upload/1/a.mp4"})
    event = {"action": "TASKS_CREATED", "tasks": [task], "project": {"id": 1, "label_config": EXAMPLE}}
    started = time.monotonic()
    assert requests.post(server + "/webhook", json=event, timeout=1).status_code == 200
    assert time.monotonic() - started < 1
    until = time.monotonic() + 60
    while "frames" not in label_studio.tasks[1]["data"]:
        assert time.monotonic() < until
        time.sleep(0.1)
    frames = label_studio.tasks[1]["data"]["frames"]
    assert len(frames) == 80
    picture = requests.get(frames[7], timeout=10)
    assert picture.headers["Content-Type"] == "image/jpeg"

    keypoint = point("p1", 40, 0, 0) | {"original_width": 640, "original_height": 480}
    keypoint["value"] = keypoint["value"] | {"x": 57 / 6.4, "y": 17 / 4.8}
    body = {
        "tasks": [{**label_studio.tasks[1], "drafts": [], "annotations": []}], "project": "1.2",
        "label_config": EXAMPLE, "params": {"context": {"result": [keypoint]}},
    }  # fmt: skip
    answers = []
    thread = threading.Thread(target=lambda: answers.append(requests.post(server + "/predict", json=body, timeout=90)))
    thread.start()
    slowest = {"/health": 0.0, "/setup": 0.0}
    probes = 0
    while thread.is_alive():
        for path in slowest:
            started = time.monotonic()
            answer = requests.post(server + path, json=setup) if path == "/setup" else requests.get(server + path)
            assert answer.status_code == 200
            slowest[path] = max(slowest[path], time.monotonic() - started)
            probes += 1
        time.sleep(0.05)
    [answer] = answers
    assert answer.status_code == 200
    masks = [r for r in answer.json()["results"][0]["result"] if r["type"] == "brushlabels"]
    assert {r["item_index"] for r in masks} >= set(range(36, 45))
    assert probes > 10
    assert slowest["/health"] < 1
    assert slowest["/setup"] < 3


def test_ctrl_c_ends_it_in_good_order(tmp_path: Path):
    process = start(free_port(), tmp_path / "data")
    assert process.stdout.readline().startswith("Track anything is ready")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"TAM_CLIP_LENGTH": "0"}, "TAM_CLIP_LENGTH is '0'; it must be a whole number from 1 to 10000"),
        ({"TAM_ENGINE": "magic"}, "magic"),
        ({"TAM_PUBLIC_URL": "backend:9090"}, "TAM_PUBLIC_URL is 'backend:9090'; it must be an address like"),
    ],
)
def test_wrong_options_are_named(tmp_path: Path, environ: dict[str, str], says: str):
    process = start(free_port(), tmp_path / "data", **environ)
    _, err = process.communicate(timeout=60)
    assert process.returncode in (1, 2)
    assert says in err
    assert "Traceback" not in err


def test_a_port_that_is_taken_is_named(tmp_path: Path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        process = start(taken.getsockname()[1], tmp_path / "data")
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "cannot listen on 127.0.0.1" in err
    assert "Traceback" not in err
