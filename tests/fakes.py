"""Stand-ins that several test packages share: an engine with obvious results, a Label Studio that only has tasks."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import av
import numpy as np

from tam_backend.engines import Engine
from tam_backend.propagators.base import Propagated
from tam_backend.segmenters.base import Segmentation


class DiscSegmenter:
    """The mask is the box and a disc around each positive click, without a smaller disc around each negative one."""

    name = "disc"

    def __init__(self, radius: float = 8.0) -> None:
        self.radius = radius
        self.calls = 0

    def segment(self, video, frame, prompts, prior=None) -> Segmentation:
        self.calls += 1
        rows, columns = np.mgrid[: video.height, : video.width] + 0.5
        mask = np.zeros((video.height, video.width), bool)
        if (box := prompts.box) is not None:
            mask |= (box.left < columns) & (columns < box.right) & (box.top < rows) & (rows < box.bottom)
        for click in prompts.clicks:
            if click.positive:
                mask |= (columns - click.x) ** 2 + (rows - click.y) ** 2 <= self.radius**2
        for click in prompts.clicks:
            if not click.positive:
                mask &= (columns - click.x) ** 2 + (rows - click.y) ** 2 > (self.radius / 2) ** 2
        for click in prompts.clicks:
            mask[int(click.y), int(click.x)] = click.positive
        return Segmentation(mask, 0.9)


class _Still:
    def __init__(self, owner: StillPropagator, mask: np.ndarray) -> None:
        self._owner = owner
        self._mask = mask

    def step(self, frame: int) -> Propagated:
        self._owner.before_step(frame)
        self._owner.steps.append(frame)
        return Propagated(self._mask.astype(np.uint8) * np.uint8(255), 0.8)

    def state(self) -> Mapping[str, np.ndarray]:
        return {"mask": self._mask}


class StillPropagator:
    """The mask stays where it is. ``steps`` records the frames computed; ``before_step`` may slow them down."""

    name = "still"
    state_every = 16

    def __init__(self, seconds: float = 0.0) -> None:
        self.steps: list[int] = []
        self.before_step: Callable[[int], None] = lambda _: time.sleep(seconds)

    def begin(self, video, anchors, start, state=None) -> _Still:
        return _Still(self, state["mask"] if state is not None else anchors[start])


def fake_engine(seconds: float = 0.0, radius: float = 8.0) -> Engine:
    """seconds: what one propagated frame takes."""
    return Engine("fake", "1", DiscSegmenter(radius), StillPropagator(seconds))


def make_video(path: Path, frames: int = 12, width: int = 64, height: int = 48) -> Path:
    """A small H.264 file in which frame i is a grey of 10 + 5 * i with a lighter square that moves."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "10"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for i in range(frames):
            image = np.full((height, width, 3), (10 + 5 * i) % 200, np.uint8)
            image[10:24, 10 + i : 24 + i] += 40
            for packet in stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


class FakeLabelStudio:
    """Tasks and files over HTTP on loopback, as far as the backend uses them. Requires the token for all of it."""

    TOKEN = "0123456789abcdef0123456789abcdef01234567"

    def __init__(self, root: Path) -> None:
        self.root = root
        self.tasks: dict[int, dict[str, Any]] = {}
        self.requests: list[tuple[str, str, str | None]] = []
        self.drafts: list[dict[str, Any]] = []
        self.annotations: dict[int, dict[str, Any]] = {}
        self.predictions: dict[int, dict[str, Any]] = {}
        self.label_config = ""
        self.projects: list[str] = []
        self.failing = False
        self._listen(0)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def _listen(self, port: int) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def restart(self) -> None:
        """After ``close``: listen again at the same address."""
        self._listen(self._server.server_port)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def add_task(self, data: dict[str, Any], project: int = 1) -> dict[str, Any]:
        task = {"id": len(self.tasks) + 1, "data": data, "project": project}
        self.tasks[task["id"]] = task
        return task

    def find(self, query: dict[str, list[str]]) -> list[dict[str, Any]]:
        """The tasks that a query of the data manager asks for."""
        tasks = list(self.tasks.values())
        for item in json.loads(query.get("query", ["{}"])[0]).get("filters", {}).get("items", []):
            name = item["filter"].removeprefix("filter:tasks:")
            key = name.removeprefix("data.")
            tasks = [t for t in tasks if (t if name == key else t["data"]).get(key) == item["value"]]
        return tasks

    def _handler(fake) -> type[BaseHTTPRequestHandler]:  # noqa: N805 (self is the handler's, below)
        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args: object) -> None:
                pass

            def _answer(self, code: int, body: object = None, raw: bytes | None = None) -> None:
                data = raw if raw is not None else json.dumps(body).encode()
                self.send_response(code)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def _handle(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length)) if length else None
                fake.requests.append((self.command, self.path, self.headers.get("Authorization")))
                path, _, query = self.path.partition("?")
                if fake.failing:
                    return self._answer(500, {"detail": "down"})
                if path == "/health":
                    return self._answer(200, {"status": "UP"})
                if self.headers.get("Authorization") != f"Token {fake.TOKEN}":
                    return self._answer(401, {"detail": "Invalid token."})
                if path.startswith("/data/"):
                    file = fake.root / Path(query.partition("d=")[2] or path).name
                    if not file.is_file():
                        return self._answer(404, {"detail": "not found"})
                    return self._answer(200, raw=file.read_bytes())
                if self.command == "POST" and path.endswith("/import"):
                    for task in body:
                        fake.add_task(task, int(path.split("/")[3]))
                    return self._answer(201, {"task_count": len(body)})
                if path == "/api/tasks":
                    tasks = fake.find(parse_qs(query))
                    return self._answer(200, {"tasks": tasks, "total": len(tasks)})
                if path == "/api/current-user/whoami":
                    return self._answer(200, {"id": 1, "email": "owner@example.test"})
                if path == "/api/projects/":
                    projects = [{"id": i, "label_config": c} for i, c in enumerate(fake.projects, 1)]
                    return self._answer(200, {"results": projects, "count": len(projects)})
                if path.startswith("/api/projects/"):
                    return self._answer(200, {"id": 1, "label_config": fake.label_config})
                if path.endswith("/drafts"):
                    task_id = int(path.split("/")[3])
                    return self._answer(200, [d for d in fake.drafts if d.get("task", task_id) == task_id])
                if path.startswith("/api/drafts/"):
                    [draft] = [d for d in fake.drafts if d["id"] == int(path.split("/")[3])]
                    draft.update(body, updated_at=datetime.now(UTC).isoformat())
                    return self._answer(200, draft)
                if path == "/api/predictions/" and self.command == "GET":
                    task_id = int(parse_qs(query)["task"][0])
                    return self._answer(200, [p for p in fake.predictions.values() if p["task"] == task_id])
                if path == "/api/predictions/":
                    prediction = {"id": 500 + len(fake.predictions), **body}
                    fake.predictions[prediction["id"]] = prediction
                    return self._answer(201, prediction)
                if path.startswith("/api/predictions/"):
                    prediction = fake.predictions[int(path.split("/")[3])]
                    prediction.update(body)
                    return self._answer(200, prediction)
                if path.startswith("/api/tasks/") and path.endswith("/annotations/"):
                    task_id = int(path.split("/")[3])
                    return self._answer(200, [a for a in fake.annotations.values() if a["task"] == task_id])
                if path.startswith("/api/annotations/"):
                    annotation = fake.annotations[int(path.strip("/").rpartition("/")[2])]
                    annotation.update(body or {})
                    return self._answer(200, annotation)
                name = path.strip("/").rpartition("/")[2]
                task = fake.tasks.get(int(name)) if name.isascii() and name.isdigit() and len(name) < 20 else None
                if task is None:
                    return self._answer(404, {"detail": "No Task matches the given query."})
                if self.command == "PATCH":
                    task["data"] = body["data"]
                return self._answer(200, task)

            do_GET = do_POST = do_PATCH = _handle  # noqa: N815

        return Handler
