"""The routes as Label Studio calls them: captured requests and refusals."""

import json
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from tam_backend.masks import encode_brush_rle
from tests.server.conftest import Backend, masks_of, point, regions_of

PAYLOADS = Path(__file__).parents[1] / "data" / "payloads"


def replay(backend: Backend, name: str):
    """Send a captured request. Lists that the capture cut short ("... 20 in all") are filled up again."""
    captured = json.loads((PAYLOADS / f"{name}.json").read_text())
    body = captured["body"]
    mask = np.zeros((480, 854), bool)
    mask[200:300, 300:400] = True
    for task in (body or {}).get("tasks", []):
        if len(task["data"].get("frames", [])) == 4:
            task["data"]["frames"] = [f"/data/local-files/?d=frames/{i:05d}.jpg" for i in range(20)]
        for work in task.get("drafts", []) + task.get("annotations", []):
            for region in work["result"]:
                if "rle" in region["value"]:
                    region["value"]["rle"] = encode_brush_rle(mask)
                for touch in region["value"].get("touches", []):
                    touch["relativePoints"] = touch["relativePoints"][:2]
    if context := ((body or {}).get("params") or {}).get("context"):
        backend.label_studio.drafts = [{"id": 1, "result": context["result"]}]
    return backend.client.open(captured["path"], method=captured["method"], json=body)


@pytest.fixture
def captured(backend, label_studio):
    """The backend with the frames that the captured requests are about."""
    for i in range(20):
        image = np.full((480, 854, 3), 60, np.uint8)
        cv2.circle(image, (341 + i, 264), 40, (200, 80, 30), -1)
        cv2.imwrite(str(label_studio.root / f"{i:05d}.jpg"), image)
    backend.service.connections.remember(label_studio.url, label_studio.TOKEN)
    return backend


@pytest.mark.parametrize("name", ["01_health", "02_setup", "03_setup_basic_auth", "04_predict_batch"])
def test_captured_requests_are_answered(captured, name):
    answer = replay(captured, name)
    assert answer.status_code == 200
    if "setup" in name:
        assert answer.json["model_version"].startswith("tam-")
    if "health" in name:
        assert answer.json["status"] == "UP"
    if "batch" in name:
        assert answer.json["results"] == [[]]  # one entry for the task; no prediction that Label Studio would keep


@pytest.mark.parametrize(
    "name",
    ["05_predict_interactive_first_click", "06_predict_interactive_negative", "07_predict_interactive_with_draft",
     "08_predict_interactive_on_submitted"],
)  # fmt: skip
def test_captured_clicks_are_answered_before_any_setup_too(captured, name):
    body = json.loads((PAYLOADS / f"{name}.json").read_text())["body"]
    answer = replay(captured, name)
    new = [r["id"] for r in body["params"]["context"]["result"] if "is_positive" in r]
    assert [r["id"] for r in regions_of(answer) if r["type"] == "keypointlabels"] == new
    drafts = body["tasks"][0]["drafts"] + body["tasks"][0]["annotations"]
    masks = [r for d in drafts for r in d["result"] if r["type"] == "brushlabels"]
    by_hand = {r["item_index"] for r in masks if r["origin"] == "prediction-changed"}
    if name.startswith("06"):  # nothing but negative points: they stay, and say nothing about where the object is
        assert masks_of(answer) == {}
    else:
        shown = {r["item_index"] for r in masks} - by_hand  # those may stand as they are
        assert set(range(20)) - by_hand - shown <= set(masks_of(answer)) <= set(range(20)) - by_hand


@pytest.mark.parametrize("name", sorted(p.stem for p in PAYLOADS.glob("webhook_*.json")))
def test_captured_events_are_answered_at_once(captured, name):
    started = time.monotonic()
    answer = replay(captured, name)
    assert answer.status_code == 200
    assert time.monotonic() - started < 0.5


def test_versions(backend):
    for method in ("GET", "POST"):
        answer = backend.client.open("/versions", method=method, json={"project": "1.2"})
        assert answer.json["versions"] == [backend.service.model_version]


def test_status(backend):
    task = backend.uploaded()
    backend.click(task, point("p1", 4, 20, 24))
    status = backend.client.get("/status").json
    assert status["engine"] == "fake"
    assert status["tracking_requests"] == 0
    assert status["result_cache_bytes"] > 0


def test_projects_with_different_configurations_at_once(backend, label_studio, tmp_path):
    task = backend.uploaded()
    brush = backend.config
    backend.config = brush.replace("BrushLabels", "BitmaskLabels").replace('"mask"', '"m2"')
    assert {r["from_name"] for r in masks_of(backend.click(task, point("p1", 4, 20, 24))).values()} == {"m2"}
    backend.config = brush
    assert {r["from_name"] for r in masks_of(backend.click(task, point("p1", 4, 20, 24))).values()} == {"mask"}


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("/predict", None, "JSON object"),
        ("/predict", b"{", "JSON object"),
        ("/predict", [], "JSON object"),
        ("/predict", {}, "list of tasks"),
        ("/predict", {"tasks": {}}, "list of tasks"),
        ("/predict", {"tasks": []}, "label_config"),
        ("/predict", {"tasks": [], "label_config": 5}, "label_config must be a text"),
        ("/predict", {"tasks": [], "label_config": "<View/>"}, "cannot work"),
        ("/predict", {"tasks": [5], "label_config": "EXAMPLE"}, "tasks[0]"),
        ("/predict", {"tasks": [{"id": 1}], "label_config": "EXAMPLE"}, "tasks[0]"),
        ("/predict", {"tasks": [], "label_config": "EXAMPLE", "params": {"context": 5}}, "params.context"),
        ("/predict", {"tasks": [], "label_config": "EXAMPLE", "params": {"context": {"result": [1]}}}, "one task"),
        ("/setup", {}, "no schema"),
        ("/setup", {"schema": "<View/>"}, "cannot work"),
        ("/setup", {"schema": "EXAMPLE", "hostname": 5}, "hostname"),
        ("/webhook", {}, "no action"),
        ("/webhook", {"action": "TASKS_CREATED"}, "project and tasks"),
    ],
)
def test_refusals_are_short_sentences(backend, path, body, says):
    if isinstance(body, dict):
        body = {k: backend.config if v == "EXAMPLE" else v for k, v in body.items()}
    sent = {"data": body} if isinstance(body, bytes) or body is None else {"json": body}
    answer = backend.client.post(path, **sent)
    assert answer.status_code == 400
    assert says in answer.json["error"]
    assert set(answer.json) == {"error"}


def test_click_on_a_task_without_frames_says_what_to_do(backend, label_studio):
    backend.connect()
    task = label_studio.add_task({"video": "/data/upload/1/a.mp4"})
    answer = backend.click(task, point("p1", 0, 20, 24))
    assert answer.status_code == 400
    assert "open it again" in answer.json["error"]


def test_unknown_routes_and_methods_are_json(backend):
    assert backend.client.get("/nothing").json["error"]
    assert backend.client.get("/predict").status_code == 405
    assert backend.client.get("/predict").json["error"]


def test_faults_of_ours_show_no_traceback(backend, monkeypatch, caplog):
    def fail(*args):
        raise RuntimeError("inner secret")

    monkeypatch.setattr(backend.service, "status", fail)
    answer = backend.client.get("/status")
    assert answer.status_code == 500
    assert "inner secret" not in answer.get_data(as_text=True)
    assert "inner secret" in caplog.text


def test_too_large_a_body_is_refused(tmp_path, label_studio):
    backend = Backend(tmp_path / "data", label_studio, max_request_mb=1)
    answer = backend.client.post("/predict", data=b" " * 1_100_000)
    assert answer.status_code in (400, 413)
    assert answer.json["error"]


def test_health_and_setup_answer_while_a_propagation_uses_every_core(backend):
    """Label Studio gives /health 1 s and /setup 3 s. The load is what engines make: numpy and OpenCV on big arrays."""
    task = backend.uploaded()
    image = np.random.default_rng(0).integers(0, 255, (1000, 1000, 3), np.uint8)

    def work(_: int) -> None:
        until = time.monotonic() + 0.3
        while time.monotonic() < until:
            cv2.GaussianBlur(image, (0, 0), 9)
            np.sort(image.astype(np.float32), axis=0)

    backend.engine.propagator.before_step = work
    thread = threading.Thread(target=backend.click, args=(task, point("p1", 4, 20, 24)))
    thread.start()
    slowest = {"health": 0.0, "setup": 0.0}
    while thread.is_alive():
        for route, call in (("health", lambda: backend.client.get("/health")), ("setup", backend.connect)):
            started = time.monotonic()
            assert call().status_code == 200
            slowest[route] = max(slowest[route], time.monotonic() - started)
        time.sleep(0.02)
    assert slowest["health"] < 1
    assert slowest["setup"] < 3
