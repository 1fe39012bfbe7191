"""A real Prometheus (Debian's package) reads a real server, and answers every query of the dashboard and the alerts."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from tam_backend.labelstudio.config import EXAMPLE
from tests.fakes import FakeLabelStudio, make_video
from tests.server.conftest import point
from tests.server.test_serve import free_port, server  # noqa: F401 (a fixture)

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

FOLDER = Path(__file__).parents[2] / "docs" / "monitoring"
JOB = "track-anything"
#: Seconds between two readings, and the span over which rates are taken here.
EVERY, SPAN = 1, "10s"


class Prometheus:
    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, path: str, **query: str) -> Any:
        answer = requests.get(f"{self.url}/api/v1/{path}", params=query, timeout=10).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    def ask(self, query: str) -> list[dict[str, Any]]:
        return self.get("query", query=query)["result"]


def until(condition: Callable[[], Any], seconds: float = 40.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.2)
    return found


@pytest.fixture
def prometheus(tmp_path: Path, server: str) -> Iterator[Prometheus]:  # noqa: F811
    """One with the configuration of the documentation, which reads the server every second."""
    program = shutil.which("prometheus")
    assert program, "this test needs the program prometheus: apt-get install prometheus"
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": f"{EVERY}s", "evaluation_interval": f"{EVERY}s"}
    config["scrape_configs"][0]["static_configs"] = [{"targets": [server.removeprefix("http://")]}]
    shutil.copy(FOLDER / "alerts.yml", tmp_path)
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/tsdb",
             f"--web.listen-address=127.0.0.1:{port}"],
            stdout=log, stderr=log,
        )  # fmt: skip
    found = Prometheus(f"http://127.0.0.1:{port}")

    def answers() -> bool:
        assert process.poll() is None, (tmp_path / "log").read_text()
        try:
            return requests.get(f"{found.url}/-/ready", timeout=2).status_code == 200
        except requests.ConnectionError:
            return False

    try:
        until(answers)
        yield found
    finally:
        process.terminate()
        process.wait(20)


def queries() -> dict[str, str]:
    """Panel and legend -> query of the dashboard, its variables filled in as Grafana does."""
    panels = json.loads((FOLDER / "dashboard.json").read_text())["panels"]
    return {
        f"{panel['title']}: {target['legendFormat']}": target["expr"]
        .replace("$__rate_interval", SPAN)
        .replace("$job", JOB)
        for panel in panels
        for target in panel["targets"]
    }


def work(server: str, label_studio: FakeLabelStudio) -> None:  # noqa: F811
    """An upload, two clicks of which the second finds all in caches, a picture, a refusal, and a job that ends."""
    make_video(label_studio.root / "a.mp4", frames=30, width=320, height=240)
    setup = {"project": "1.2", "schema": EXAMPLE, "hostname": label_studio.url, "access_token": label_studio.TOKEN}
    requests.post(f"{server}/setup", json=setup, timeout=3).raise_for_status()
    task = label_studio.add_task({"video": "/data/upload/1/a.mp4"})
    request = {"tasks": [task], "project": "1.2", "label_config": EXAMPLE, "params": {"context": None}}
    requests.post(f"{server}/predict", json=request, timeout=60).raise_for_status()
    task = label_studio.tasks[1]
    for _ in range(2):
        requests.get(task["data"]["frames"][0], timeout=10).raise_for_status()
    for frame in (0, 0, 29):
        keypoint = point(f"p{frame}", frame, 0, 0) | {"original_width": 320, "original_height": 240}
        keypoint["value"] = keypoint["value"] | {"x": (17 + frame) / 3.2, "y": 17 / 2.4}
        click = request | {
            "tasks": [{**task, "drafts": [], "annotations": []}], "params": {"context": {"result": [keypoint]}}
        }  # fmt: skip
        requests.post(f"{server}/predict", json=click, timeout=60).raise_for_status()
    event = {"action": "TASKS_DELETED", "tasks": [{"id": 1}], "project": {"id": 1}}
    requests.post(f"{server}/webhook", json=event, timeout=5).raise_for_status()
    assert requests.post(f"{server}/predict", json=[], timeout=5).status_code == 400


def test_it_reads_the_server_and_answers_the_dashboard(
    prometheus: Prometheus,
    server: str,  # noqa: F811
    label_studio: FakeLabelStudio,
):
    def scraped(query: str, least: float) -> bool:
        found = prometheus.ask(query)
        return bool(found) and float(found[0]["value"][1]) >= least

    until(lambda: scraped(f'up{{job="{JOB}"}}', 1))
    work(server, label_studio)
    until(lambda: scraped("sum(tam_frame_seconds_count)", 30))
    time.sleep(3 * EVERY)
    [target] = prometheus.get("targets")["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")
    assert target["lastScrapeDuration"] < 1
    asked = queries()
    assert len(asked) >= 25
    for panel, query in asked.items():
        found = prometheus.ask(query)
        assert found, f"{panel}: {query}"
        # of a quotient or a quantile that has nothing to go by in this span there is no number, and no line
        assert any(re.fullmatch(r"[0-9.e+-]+", s["value"][1]) for s in found), f"{panel}: {found}"
    assert float(prometheus.ask(asked["Ready: ready"])[0]["value"][1]) == 1
    masks = prometheus.ask("sum(tam_frame_seconds_count)")[0]["value"][1]
    assert float(masks) >= 30
    rules = [r for g in prometheus.get("rules")["groups"] for r in g["rules"]]
    assert {(r["name"], r["health"], r["state"]) for r in rules} == {
        (name, "ok", "inactive")
        for name in ("BackendDown", "BackendNotReady", "ClicksFail", "ClicksWait", "JobsFail", "MemoryAtItsLimit")
    }


def test_the_figures_are_named_as_prometheus_wants_it(server: str):  # noqa: F811
    text = requests.get(f"{server}/metrics", timeout=5).text
    ours = "".join(line for line in text.splitlines(keepends=True) if "process_" not in line)
    done = subprocess.run(["promtool", "check", "metrics"], input=ours, capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
