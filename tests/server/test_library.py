"""model.py under both versions of Label Studio's ML backend library, and _wsgi.py under a WSGI server not ours."""

from __future__ import annotations

import importlib
import importlib.util
import multiprocessing
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server
from wsgiref.validate import validator

import numpy as np
import pytest
import requests
from flask.testing import FlaskClient

import model as model_module
from tam_backend.labelstudio.config import EXAMPLE, parse_label_config
from tam_backend.labelstudio.regions import mask_region
from tam_backend.server.app import create_app
from tests.fakes import FakeLabelStudio, make_video
from tests.server import library_2x
from tests.server.conftest import BASE, Backend, point, regions_of

ROOT = Path(__file__).parents[2]


@pytest.fixture
def module_2x(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """model.py as it is where 2.x is installed."""
    monkeypatch.setattr(library_2x.LabelStudioMLBase, "CACHE", {})
    library = ModuleType("label_studio_ml.model")
    library.LabelStudioMLBase = library_2x.LabelStudioMLBase  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "label_studio_ml.model", library)
    spec = importlib.util.spec_from_file_location("model_on_2x", ROOT / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def client_1(tmp_path: Path) -> FlaskClient:
    """The server of the installed 1.0.9."""
    from label_studio_ml.api import init_app

    return init_app(model_class=model_module.TrackAnything, model_dir=str(tmp_path / "models")).test_client()


def client_2x(module_2x: ModuleType, backend: Backend, monkeypatch: pytest.MonkeyPatch) -> FlaskClient:
    monkeypatch.setattr(module_2x, "shared_service", lambda: backend.service)
    return library_2x.make_server(module_2x.TrackAnything).test_client()


@pytest.fixture(params=["1.0.9", "2.x"])
def client(request, backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FlaskClient:
    """A library's own server with our class, on the service of ``backend``."""
    if request.param == "1.0.9":
        monkeypatch.setattr(model_module, "shared_service", lambda: backend.service)
        return client_1(tmp_path)
    return client_2x(request.getfixturevalue("module_2x"), backend, monkeypatch)


def connect(client: FlaskClient, label_studio: FakeLabelStudio, config: str = EXAMPLE, project: str = "1.2") -> Any:
    body = {"project": project, "schema": config, "hostname": label_studio.url, "access_token": label_studio.TOKEN}
    answer = client.post("/setup", json={**body, "extra_params": None})
    assert answer.status_code == 200
    return answer.json


def test_a_click(client: FlaskClient, backend: Backend, label_studio: FakeLabelStudio):
    task = backend.uploaded()
    connect(client, label_studio)
    body = backend._request([task | {"drafts": []}], {"result": [point("p1", 4, 20, 24)]})
    answer = client.post("/predict", json=body)
    assert answer.status_code == 200
    [result] = answer.json["results"]
    assert result["model_version"] == backend.service.model_version
    assert result["result"] == regions_of(backend.click(task, point("p1", 4, 20, 24)))
    assert {r["item_index"] for r in result["result"]} == set(range(12))


def test_a_batch_gives_tasks_their_frames_and_no_predictions(client, backend, label_studio):
    connect(client, label_studio)
    backend.service.connections.remember(label_studio.url, label_studio.TOKEN)  # 2.x does not pass it on
    make_video(label_studio.root / "a.mp4")
    tasks = [label_studio.add_task({"video": "/data/upload/1/a.mp4"}) for _ in range(2)]
    answer = client.post("/predict", json=backend._request(tasks, None))
    assert answer.json["results"] == [[], []]
    for task in label_studio.tasks.values():
        assert task["data"]["frames"][11].startswith(f"{BASE}/frames/")


def test_projects_in_turn_under_2x(module_2x, backend, label_studio, monkeypatch):
    """Each with its own configuration. (1.0.9 has one model for all projects: the last that connected counts.)"""
    client = client_2x(module_2x, backend, monkeypatch)
    task = backend.uploaded()
    brush, bitmask = EXAMPLE, EXAMPLE.replace("BrushLabels", "BitmaskLabels")
    for config, project, kind in [(brush, "1.2", "brushlabels"), (bitmask, "2.2", "bitmasklabels")] * 2:
        backend.config = config
        connect(client, label_studio, config, project)
        body = backend._request([task | {"drafts": []}], {"result": [point("p1", 4, 20, 24)]})
        [result] = client.post("/predict", json=body | {"project": project}).json["results"]
        assert {r["type"] for r in result["result"]} == {"keypointlabels", kind}


def test_the_project_of_a_task_that_does_not_say_it_under_2x(module_2x, backend, label_studio, monkeypatch):
    client = client_2x(module_2x, backend, monkeypatch)
    backend.service.connections.remember(label_studio.url, label_studio.TOKEN)
    make_video(label_studio.root / "a.mp4")
    task = label_studio.add_task({"video": "/data/upload/1/a.mp4"})
    bare = {"id": task["id"], "data": task["data"]}
    assert client.post("/predict", json=backend._request([bare], None)).json["results"] == [[]]
    assert len(label_studio.tasks[1]["data"]["frames"]) == 12


def broken_annotation(label_studio: FakeLabelStudio) -> dict[str, Any]:
    """An event about a saved annotation in which a stroke is not part of the mask yet."""
    control = parse_label_config(EXAMPLE).masks[0]
    mask = np.zeros((48, 64), bool)
    mask[30:40, 30:50] = True
    region = mask_region(control, "Object 1", 2, mask, 1.0, {}) | {"origin": "prediction-changed"}
    region["value"]["touches"] = [{"type": "eraser", "relativePoints": [50, 75], "relativeStrokeWidth": 5}]
    label_studio.annotations[7] = {"id": 7, "result": [region]}
    project = {"id": 1, "label_config": EXAMPLE, "model_version": None}
    annotation = label_studio.annotations[7]
    return {"action": "ANNOTATION_UPDATED", "annotation": annotation, "task": {"id": 1}, "project": project}


def test_fit_under_2x_makes_saved_annotations_whole(module_2x, backend, label_studio, monkeypatch):
    client = client_2x(module_2x, backend, monkeypatch)
    backend.service.connections.remember(label_studio.url, label_studio.TOKEN)
    answer = client.post("/webhook", json=broken_annotation(label_studio))
    assert (answer.status_code, answer.json) == (201, {"result": {}, "status": "ok"})
    backend.service._workers.shutdown(wait=True)
    assert "touches" not in label_studio.annotations[7]["result"][0]["value"]


def test_fit_under_1_0_9_makes_saved_annotations_whole(label_studio, tmp_path, monkeypatch):
    """For real: it starts a new process for the event, in which the class is built without hostname and token."""
    monkeypatch.setenv("TAM_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("LABEL_STUDIO_URL", label_studio.url)
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", label_studio.TOKEN)
    answer = client_1(tmp_path).post("/webhook", json=broken_annotation(label_studio))
    assert answer.status_code == 201
    until = time.monotonic() + 60
    while "touches" in label_studio.annotations[7]["result"][0]["value"]:
        assert time.monotonic() < until
        time.sleep(0.1)
    result = tmp_path / "models" / str(answer.json["job_id"]) / "job_result.json"
    while not result.exists() or multiprocessing.active_children():  # the process ends by itself
        assert time.monotonic() < until
        time.sleep(0.1)


def test_the_class_alone_makes_one_service_from_the_environment(module_2x, label_studio, tmp_path, monkeypatch, caplog):
    """As the library's servers use it. They serve no frames, so tasks keep what they have if nobody says who does."""
    monkeypatch.setenv("TAM_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("LABEL_STUDIO_URL", label_studio.url)
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", label_studio.TOKEN)
    task = label_studio.add_task({"video": "/data/upload/1/a.mp4"})
    first = module_2x.TrackAnything(project_id="1", label_config=EXAMPLE)
    assert first.predict([task], context=None, login=None, password=None) == [[]]
    assert label_studio.tasks[1]["data"] == {"video": "/data/upload/1/a.mp4"}
    assert "TAM_PUBLIC_URL" in caplog.text
    second = module_2x.TrackAnything("1", label_config=EXAMPLE)
    service = module_2x.shared_service()
    assert first._service is second._service is service
    assert service.connections.current().token == label_studio.TOKEN
    assert first.model_version == service.model_version
    service.close()


def test_our_server_where_2x_is_installed(module_2x, backend, label_studio):
    app = create_app(backend.settings, module_2x.TrackAnything, backend.service)
    backend.client = app.test_client()
    task = backend.uploaded()
    assert {r["item_index"] for r in regions_of(backend.click(task, point("p1", 4, 20, 24)))} == set(range(12))


def test_requests_of_two_projects_at_once_on_our_server_where_2x_is_installed(module_2x, backend):
    """Its base class keeps one configuration for all models that are built without a project, as ours are there."""
    first = module_2x.TrackAnything(label_config=EXAMPLE, service=backend.service)
    bitmask = EXAMPLE.replace("BrushLabels", "BitmaskLabels")
    module_2x.TrackAnything(label_config=bitmask, service=backend.service)
    [result] = first.predict([backend.uploaded()], context={"result": [point("p1", 4, 20, 24)]}, project="1.2")
    assert {r["type"] for r in result["result"]} == {"keypointlabels", "brushlabels"}


class Silent(WSGIRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def wsgi_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """_wsgi:app under the server of Python's own library, which checks every call by the WSGI standard."""
    monkeypatch.setenv("TAM_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("TAM_SECRET_PATH", "s3cret-path-0123")
    monkeypatch.delitem(sys.modules, "_wsgi", raising=False)
    app = importlib.import_module("_wsgi").app
    monkeypatch.delitem(sys.modules, "_wsgi")
    server = make_server("127.0.0.1", 0, validator(app), handler_class=Silent)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()
    app.extensions["tam"].close()


def test_wsgi_app_under_another_server(wsgi_url: str, label_studio: FakeLabelStudio):
    base = f"{wsgi_url}/s3cret-path-0123"
    assert requests.get(f"{base}/health", timeout=10).json()["status"] == "UP"
    assert requests.get(f"{wsgi_url}/health", timeout=10).status_code == 404
    assert requests.post(f"{wsgi_url}/predict", data=b"x" * 100_000, timeout=10).status_code == 404
    setup = {"project": "1.2", "schema": EXAMPLE, "hostname": label_studio.url, "access_token": label_studio.TOKEN}
    assert requests.post(f"{base}/setup", json=setup, timeout=10).json()["model_version"].startswith("tam-")
    make_video(label_studio.root / "a.mp4")
    task = label_studio.add_task({"video": "/data/upload/1/a.mp4"})
    body = {"tasks": [task], "project": "1.2", "label_config": EXAMPLE, "params": {"context": None}}
    assert requests.post(f"{base}/predict", json=body, timeout=30).json()["results"] == [[]]
    frame = requests.get(label_studio.tasks[1]["data"]["frames"][3], timeout=30)
    assert frame.headers["Content-Type"] == "image/jpeg"
    assert frame.url.startswith(f"{wsgi_url}/frames/")
