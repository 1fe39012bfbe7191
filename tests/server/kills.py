"""A backend that is killed again and again while it tracks, and an undisturbed one to compare it with."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tam_backend.labelstudio.config import EXAMPLE
from tests.fakes import FakeLabelStudio

Json = dict[str, Any]


#: The program ``tam`` as it is without PyTorch, whose import takes longer than all the rest of a start.
_SERVE = "import sys; sys.modules['torch'] = None; from tam_backend.cli import main; sys.exit(main())"


@dataclass
class Outcome:
    """What a run led to: predictions by task, the answer to the last click, and how it went."""

    predictions: dict[int, list[Json]]
    answer: list[Json]
    kills: int
    seconds: float
    blobs_at_kill: list[int] = field(default_factory=list)

    @property
    def masks(self) -> int:
        """Masks in all predictions."""
        return sum(r["type"] == "brushlabels" for result in self.predictions.values() for r in result)


class Server:
    """``tam serve`` on a data directory."""

    def __init__(self, data_dir: Path, label_studio: FakeLabelStudio, clip_length: int, **environ: str) -> None:
        self._data_dir = data_dir
        self._label_studio = label_studio
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._environ = os.environ | {
            "TAM_DATA_DIR": str(data_dir), "TAM_LABEL_STUDIO_URL": label_studio.url,
            "TAM_LABEL_STUDIO_TOKEN": label_studio.TOKEN, "TAM_CLIP_LENGTH": str(clip_length),
            "TAM_ANSWER_SECONDS": "0.1", "TAM_PUBLIC_URL": self.url, "TAM_ENGINE": "embedded",
        } | environ  # fmt: skip
        self._command = [sys.executable, "-c", _SERVE, "serve", "--port", str(port)]
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        with self.log.open("a") as log:
            self._process = subprocess.Popen(
                self._command, env=self._environ, stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert self._process.stdout
        assert "ready" in self._process.stdout.readline()

    def end(self, number: signal.Signals) -> None:
        assert self._process
        assert self._process.stdout
        self._process.send_signal(number)
        self._process.wait(30)
        self._process.stdout.close()

    @property
    def log(self) -> Path:
        """What the server wrote, over all its starts."""
        return self._data_dir.parent / f"{self._data_dir.name}.log"

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    def post(self, path: str, body: object) -> Any:
        request = urllib.request.Request(
            self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=120) as response:
            return json.load(response)

    def predict(self, task: Json, points: list[Json]) -> list[Json]:
        params = {"context": {"result": points} if points else None}
        body = {"tasks": [task], "project": "1.2", "label_config": EXAMPLE, "params": params}
        [result] = self.post("/predict", body)["results"]
        return result["result"] if points else result

    def unfinished(self) -> int:
        """How many jobs are not done."""
        with urllib.request.urlopen(f"{self.url}/status", timeout=30) as response:
            return int(json.load(response)["background_jobs"])

    def jobs(self) -> list[Json]:
        """As on /status.json."""
        with urllib.request.urlopen(f"{self.url}/status.json", timeout=30) as response:
            return list(json.load(response)["jobs"])

    def prompts(self) -> list[tuple[int, str, frozenset[str]]]:
        """(task, label, ids of prompts) of what the database says people asked for."""
        rows = self._rows("SELECT task, label, prompts FROM tracks WHERE follows = 0")
        return [(task, label, frozenset(p["id"] for p in json.loads(prompts))) for task, label, prompts in rows]

    def blobs(self) -> set[bytes]:
        """The keys of all that is stored, read from the file itself."""
        assert self._rows("PRAGMA integrity_check") == [("ok",)]
        return {key for (key,) in self._rows("SELECT key FROM blobs")}

    def _rows(self, query: str) -> list[tuple[Any, ...]]:
        connection = sqlite3.connect(f"file:{self._data_dir / 'state.sqlite3'}?mode=ro", uri=True)
        try:
            return connection.execute(query).fetchall()
        finally:
            connection.close()


def track(
    root: Path,
    video: Path,
    click: tuple[int, float, float],
    clip_length: int,
    kills: int = 0,
    within: float = 1.0,
    seed: int = 0,
) -> Outcome:
    """Upload a video, click once, and wait until every task has its masks.

    click: frame of the video, x and y in percent. kills: SIGKILLs meanwhile, each at a random moment ``within`` so many
    seconds after the server was ready, and followed by a new start. Asserts that no kill loses what was stored.
    """
    chance = random.Random(seed)
    files = root / "files"
    files.mkdir(parents=True)
    (files / "a.mp4").symlink_to(video)
    label_studio = FakeLabelStudio(files)
    label_studio.label_config = EXAMPLE
    server = Server(root / "data", label_studio, clip_length)
    server.start()
    started = time.monotonic()
    try:
        first = label_studio.add_task({"video": "/data/upload/1/a.mp4"})
        server.predict(first, [])
        frame, x, y = click
        tasks = sorted(label_studio.tasks.values(), key=lambda t: t["id"])
        task = tasks[frame // clip_length]
        size = server_size(server, task)
        point = {
            "id": "p1", "from_name": "point", "to_name": "image", "type": "keypointlabels", "origin": "manual",
            "item_index": frame % clip_length, "original_width": size[0], "original_height": size[1],
            "image_rotation": 0, "is_positive": True,
            "value": {"x": x, "y": y, "width": 0.3, "keypointlabels": ["Object 1"], "labels": ["Object 1"]},
        }  # fmt: skip
        label_studio.drafts = [{"id": 1, "task": task["id"], "result": [point], "updated_at": "2099-01-01T00:00:00Z"}]
        server.predict(task, [point])
        stored: set[bytes] = set()
        at_kill = []
        done = 0
        while done < kills or server.unfinished() or len(label_studio.predictions) < len(tasks) - 1:
            if done < kills:
                time.sleep(chance.uniform(0.0, within))
                server.end(signal.SIGKILL)
                now = server.blobs()
                assert stored <= now, f"kill {done}: {len(stored - now)} of {len(stored)} stored blobs are gone"
                stored = now
                at_kill.append(len(now))
                server.start()
                done += 1
            else:
                time.sleep(0.1)
        answer = server.predict(task, [point])
        predictions = {p["task"]: p["result"] for p in label_studio.predictions.values()}
        return Outcome(predictions, answer, done, time.monotonic() - started, at_kill)
    finally:
        server.end(signal.SIGTERM)
        label_studio.close()


def server_size(server: Server, task: Json) -> tuple[int, int]:
    """Width and height of a task's frames."""
    import cv2
    import numpy as np

    with urllib.request.urlopen(task["data"]["frames"][0], timeout=60) as response:
        image = cv2.imdecode(np.frombuffer(response.read(), np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return image.shape[1], image.shape[0]
