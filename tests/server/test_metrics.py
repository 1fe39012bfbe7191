"""/metrics, /health with readiness, and lines of the log for programs."""

from __future__ import annotations

import io
import json
import logging
import threading
import time
from pathlib import Path

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from tam_backend.logfacts import current_facts, log_about
from tam_backend.metrics import Metrics, Reading
from tam_backend.server.logs import JsonFormatter
from tam_backend.sessions.progress import JobState
from tam_backend.settings import Settings
from tam_backend.tracking.refinement import Decision
from tests.fakes import FakeLabelStudio, make_video
from tests.server.conftest import Backend, masks_of, point
from tests.server.test_serve import server  # noqa: F401 (a fixture)

FRAMES = 12


def figures(text: str) -> dict[tuple[str, ...], float]:
    """(name, label values in the order of their names) -> value."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def read(backend: Backend) -> dict[tuple[str, ...], float]:
    answer = backend.client.get("/metrics")
    assert answer.status_code == 200
    assert answer.mimetype == "text/plain"
    return figures(answer.text)


def until(condition) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_click_and_its_masks_are_counted(backend):
    task = backend.uploaded(FRAMES)
    before = read(backend)
    assert before["tam_frame_seconds_count", "click"] == 0
    assert before["tam_click_seconds_count", "answered"] == 0
    assert len(masks_of(backend.click(task, point("p1", 0, 20, 24)))) == FRAMES
    until(lambda: read(backend)["tam_jobs", "delivering"] == 1)
    after = read(backend)
    assert after["tam_click_seconds_count", "answered"] == 1
    computed = sum(after["tam_frame_seconds_count", work] for work in ("click", "background"))
    assert computed == FRAMES
    assert after["tam_turn_wait_seconds_count",] >= after["tam_frame_seconds_count", "click"]
    assert after["tam_http_requests_total", "POST", "/predict", "200"] == 2
    assert after["tam_http_request_seconds_count", "/predict"] == 2
    assert after["tam_clicks_open",] == 0
    assert after["tam_ready",] == 1
    assert after["tam_memory_bytes",] > 10_000_000
    assert after["tam_cache_bytes", "masks"] > 0
    assert after["tam_cache_lookups_total", "masks", "miss"] >= FRAMES
    found = after["tam_cache_lookups_total", "masks", "memory"]
    backend.arrived()
    backend.click(task, point("p1", 0, 20, 24))
    again = read(backend)
    assert again["tam_cache_lookups_total", "masks", "memory"] >= found + FRAMES
    assert sum(again["tam_frame_seconds_count", work] for work in ("click", "background")) == FRAMES


def test_a_click_that_fails_is_counted(backend):
    task = backend.uploaded(FRAMES)
    assert backend.click(task, point("p1", 99, 20, 24)).status_code == 400
    after = read(backend)
    assert after["tam_click_seconds_count", "failed"] == 1
    assert after["tam_http_requests_total", "POST", "/predict", "400"] == 1


def test_pictures_are_counted_by_where_they_come_from(backend):
    task = backend.uploaded(FRAMES)
    path = task["data"]["frames"][3].partition("backend.test")[2]
    for _ in range(3):
        assert backend.client.get(path).status_code == 200
    after = read(backend)
    assert after["tam_cache_lookups_total", "pictures", "miss"] == 1
    assert after["tam_cache_lookups_total", "pictures", "disk"] == 2


def test_a_restart_resumes_jobs_and_says_so(tmp_path, label_studio, backend):
    backend.engine.propagator.before_step = lambda _: time.sleep(0.05)
    settings = {"answer_seconds": 0.1}
    slow = Backend(tmp_path / "other", label_studio, engine=backend.engine, **settings)
    task = slow.uploaded(FRAMES)
    slow.click(task, point("p1", 0, 20, 24))
    slow.service.close()
    assert read(slow)["tam_jobs_resumed_total",] == 0
    again = Backend(tmp_path / "other", label_studio, engine=backend.engine, **settings)
    assert read(again)["tam_jobs_resumed_total",] == 1
    again.service.jobs.drop(lambda track: True, "enough")
    assert read(again)["tam_jobs_ended_total", "stopped"] == 1
    assert set(again.service.jobs.count()) == {JobState.WAITING, JobState.RUNNING, JobState.DELIVERING}


def test_refinements_are_told_apart():
    metrics = Metrics()
    poor = Decision(3, 1, 0.4, 0.4, ())
    metrics.decided(poor.refuse("too few points"))
    metrics.decided(Decision(3, 1, 0.4, 0.4, (), ("not alike",), score=0.8))
    metrics.decided(Decision(3, 1, 0.4, 0.7, (), score=0.9))
    metrics.decided(Decision(3, 1, 0.4, 0.7, (), score=0.9))
    count = metrics.registry.get_sample_value
    counts = {o: count("tam_refinements_total", {"outcome": o}) for o in ("no_evidence", "rejected", "accepted")}
    assert counts == {"no_evidence": 1, "rejected": 1, "accepted": 2}


def test_figures_hold_no_secret_and_stay_few(tmp_path, label_studio):
    """Whatever callers invent: addresses, methods, names."""
    secret = "s3cret-path-0123456"
    backend = Backend(tmp_path / "data", label_studio, secret_path=secret)
    inside = f"/{secret}/metrics"
    assert backend.client.get("/metrics").status_code == 404
    backend.client.get(inside)
    many = len(figures(backend.client.get(inside).text))
    for i in range(50):
        assert backend.client.get(f"/{secret}/invented/{i}").status_code == 404
        backend.client.get(f"/wrong-{i}/health")
        backend.client.open(f"/{secret}/health", method=f"INVENTED{i}")
    text = backend.client.get(inside).text
    assert secret not in text
    assert "invented" not in text.lower()
    # a few new pairs of route and status, however many addresses
    assert len(figures(text)) < many + 30


def test_one_figure_that_cannot_be_had_costs_no_other(caplog):
    metrics = Metrics()
    metrics.watch([Reading("tam_bad", "bad", lambda: 1 / 0), Reading("tam_good", "good", lambda: 3)])
    assert metrics.registry.get_sample_value("tam_good") == 3
    assert metrics.registry.get_sample_value("tam_bad") is None
    assert "tam_bad" in caplog.text


def test_readiness(backend, monkeypatch):
    answer = backend.client.get("/health/ready")
    assert (answer.status_code, answer.json) == (200, {"ready": True, "obstacles": []})
    assert backend.client.get("/health").json["ready"] is True
    backend.service._store._failing = "database or disk is full"
    answer = backend.client.get("/health/ready")
    assert answer.status_code == 503
    assert answer.json["obstacles"] == ["finished masks cannot be stored on disk (database or disk is full)"]
    health = backend.client.get("/health")
    assert (health.status_code, health.json["status"], health.json["ready"]) == (200, "UP", False)
    page = backend.client.get("/status", headers={"Accept": "text/html"}).text
    assert "This backend should get no work now: finished masks cannot be stored on disk" in page
    backend.service._store._failing = ""
    backend.service.drain(1)
    assert backend.client.get("/health/ready").json["obstacles"] == ["it is stopping"]


def test_health_and_figures_are_quick_while_a_click_computes(server: str, label_studio: FakeLabelStudio):  # noqa: F811
    """Both wait for nothing that computes. What a loaded machine adds is not theirs, so the median counts."""
    make_video(label_studio.root / "a.mp4", frames=60, width=640, height=480)
    from tam_backend.labelstudio.config import EXAMPLE

    setup = {"project": "1.2", "schema": EXAMPLE, "hostname": label_studio.url, "access_token": label_studio.TOKEN}
    requests.post(server + "/setup", json=setup, timeout=3).raise_for_status()
    task = label_studio.add_task({"video": "/data/upload/1/a.mp4"})
    body = {"tasks": [task], "project": "1.2", "label_config": EXAMPLE, "params": {"context": None}}
    requests.post(server + "/predict", json=body, timeout=60).raise_for_status()
    keypoint = point("p1", 30, 0, 0) | {"original_width": 640, "original_height": 480}
    keypoint["value"] = keypoint["value"] | {"x": 47 / 6.4, "y": 17 / 4.8}
    click = {
        "tasks": [{**label_studio.tasks[1], "drafts": [], "annotations": []}], "project": "1.2",
        "label_config": EXAMPLE, "params": {"context": {"result": [keypoint]}},
    }  # fmt: skip
    answers: list[requests.Response] = []
    thread = threading.Thread(target=lambda: answers.append(requests.post(server + "/predict", json=click, timeout=90)))
    thread.start()
    took: dict[str, list[float]] = {"/health": [], "/health/ready": [], "/metrics": []}
    while thread.is_alive():
        for path, seconds in took.items():
            started = time.perf_counter()
            assert requests.get(server + path, timeout=5).status_code == 200
            seconds.append(time.perf_counter() - started)
        time.sleep(0.02)
    thread.join()
    assert answers[0].status_code == 200
    for path, seconds in took.items():
        assert len(seconds) >= 5, path
        assert sorted(seconds)[len(seconds) // 2] < 0.1, path
    after = figures(requests.get(server + "/metrics", timeout=5).text)
    assert after["tam_frame_seconds_count", "click"] > 10
    assert after["tam_click_seconds_count", "answered"] == 1
    assert after["tam_cache_lookups_total", "frames", "memory"] > 10


# ---- lines of the log


@pytest.fixture
def lines(tmp_path: Path):
    """What is logged, as a program reads it."""
    settings = Settings(data_dir=tmp_path, secret_path="s3cret-path-0123456", log_format="json")
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter(settings))
    logger = logging.getLogger("tam_backend")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    logger.removeHandler(handler)
    logger.setLevel(before)


def test_a_line_says_what_it_is_about(lines):
    log = logging.getLogger("tam_backend.test")
    with log_about(task=7, project=None), log_about(session=3):
        log.warning("two\nlines, and s3cret-path-0123456 ‮", extra={"facts": {"seconds": 1.5, "path": Path("a")}})
    try:
        raise ValueError("s3cret-path-0123456")
    except ValueError:
        log.exception("failed")
    first, second = lines()
    assert first["message"] == "two\nlines, and *** ‮"
    assert {k: first[k] for k in ("level", "logger", "task", "session", "seconds", "path")} == {
        "level": "WARNING", "logger": "tam_backend.test", "task": 7, "session": 3, "seconds": 1.5, "path": "a",
    }  # fmt: skip
    assert "project" not in first
    assert first["time"].endswith("+00:00")
    assert "task" not in second
    assert second["error"].endswith("ValueError: ***")
    assert current_facts() == {}


def test_a_click_and_its_job_share_task_and_session(backend, lines):
    task = backend.uploaded(FRAMES)
    backend.click(task, point("p1", 0, 20, 24))
    [answered] = [line for line in lines() if "click answered" in line["message"]]
    assert (answered["task"], answered["project"], answered["masks"]) == (task["id"], 1, FRAMES)
    assert len(answered["request"]) == 8
    backend.service.jobs.drop(lambda track: True, "enough")
    [ended] = [line for line in lines() if line["message"].endswith("enough")]
    assert (ended["task"], ended["project"], ended["label"]) == (task["id"], 1, "Object 1")
    [job] = backend.client.get("/status.json").json["jobs"]
    assert ended["session"] == job["id"]


def test_the_server_writes_json_if_it_is_told_to(tmp_path: Path):
    from tests.server.test_serve import free_port, start

    process = start(free_port(), tmp_path / "data", TAM_LOG_FORMAT="json")
    process.stdout.readline()
    process.terminate()
    _, err = process.communicate(timeout=20)
    said = [json.loads(line) for line in err.splitlines()]
    assert any("stopping" in line["message"] for line in said)
