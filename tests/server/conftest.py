from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from model import TrackAnything
from tam_backend.engines import Engine
from tam_backend.labelstudio.config import EXAMPLE
from tam_backend.labelstudio.service import Service
from tam_backend.server.app import create_app
from tam_backend.settings import Settings
from tests.fakes import FakeLabelStudio, fake_engine, make_video

BASE = "http://backend.test"
LABELS = ("Object 1", "Object 2")


_opened: list[Backend] = []


_indices: list[Path] = []


@pytest.fixture(scope="session", autouse=True)
def _shared_indices(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Backends share what they know of files by their content: most read the same few, and a first look is a process
    of its own."""
    _indices.append(tmp_path_factory.mktemp("indices"))


@pytest.fixture(autouse=True)
def _close_all() -> Iterator[None]:
    """No backend's threads and files outlive its test."""
    yield
    while _opened:
        _opened.pop().service.close()


class Backend:
    """The application with a fake Label Studio and an engine, a fake one if none is given, and the requests that Label
    Studio would make."""

    def __init__(
        self,
        data_dir: Path,
        label_studio: FakeLabelStudio,
        config: str = EXAMPLE,
        engine: Engine | None = None,
        **settings: Any,
    ) -> None:
        self.label_studio = label_studio
        label_studio.label_config = config
        self.config = config
        self.autosave = True
        self.settings = Settings(**{"data_dir": data_dir, "public_url": BASE} | settings)
        if _indices and not (index := data_dir / "videos" / "index").exists():
            index.parent.mkdir(parents=True)
            index.symlink_to(_indices[0])
        self.engine = engine or fake_engine()
        self.service = Service(self.settings, self.engine)
        _opened.append(self)
        self.app = create_app(self.settings, TrackAnything, self.service)
        self.client = self.app.test_client()

    def connect(self) -> Any:
        return self.client.post(
            "/setup",
            json={
                "project": "1.2", "schema": self.config, "hostname": self.label_studio.url,
                "access_token": self.label_studio.TOKEN, "extra_params": None,
            },
        )  # fmt: skip

    def batch(self, *tasks: dict[str, Any]) -> Any:
        return self.client.post("/predict", json=self._request(list(tasks), None))

    def click(self, task: dict[str, Any], *points: dict[str, Any], **work: Any) -> Any:
        """An interactive request. work: drafts=[...] or annotations=[...].

        Meanwhile the page saves a draft, as it does, with the points and what was there.
        """
        if self.autosave:
            before = [r for d in work.get("drafts", []) for r in d["result"]]
            draft = {"id": 900 + len(self.label_studio.drafts), "result": [*before, *points]}
            self.label_studio.drafts = [*self.label_studio.drafts, draft]
        task = {"drafts": [], "annotations": [], "predictions": []} | task | work
        return self.client.post("/predict", json=self._request([task], {"result": list(points)}))

    def arrived(self) -> None:
        """Let all answers reach the page: time passes."""
        for ticket in self.service._clicks._pending._tickets:
            ticket.answered_at -= 60

    def _request(self, tasks: list[dict[str, Any]], context: object) -> dict[str, Any]:
        params = {"login": None, "password": None, "context": context}
        return {"tasks": tasks, "project": "1.2", "label_config": self.config, "params": params}

    def uploaded(self, frames: int = 12) -> dict[str, Any]:
        """A task as it is after an upload and the first opening: with frames."""
        make_video(self.label_studio.root / "a.mp4", frames)
        self.connect()
        task = self.label_studio.add_task({"video": "/data/upload/1/a.mp4"})
        assert self.batch(task).status_code == 200
        return self.label_studio.tasks[task["id"]]


@pytest.fixture
def backend(tmp_path: Path, label_studio: FakeLabelStudio) -> Iterator[Backend]:
    backend = Backend(tmp_path / "data", label_studio)
    yield backend
    backend.service.close()


def point(id: str, frame: int, x: float, y: float, *, positive: bool = True, new: bool = True, label: str = LABELS[0]):
    """A keypoint at pixel x, y of the 64x48 test video as Label Studio sends it: clicked just now, or echoed before."""
    value = {"x": x / 64 * 100, "y": y / 48 * 100, "width": 0.3, "keypointlabels": [label]}
    region = {
        "id": id, "from_name": "point", "to_name": "image", "type": "keypointlabels", "origin": "manual",
        "item_index": frame, "original_width": 64, "original_height": 48, "image_rotation": 0, "value": value,
    }  # fmt: skip
    if new:
        value["labels"] = [label]
        region["is_positive"] = positive
    else:
        region["meta"] = {"is_positive": positive}
    return region


def regions_of(response: Any) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.json
    [result] = response.json["results"]
    return result["result"]


def masks_of(response: Any) -> dict[int, dict[str, Any]]:
    """Frame -> mask region of an answer."""
    return {r["item_index"]: r for r in regions_of(response) if r["type"] in ("brushlabels", "bitmasklabels")}
