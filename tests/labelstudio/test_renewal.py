"""Frames' addresses that end are renewed in the tasks, before they do and without anybody opening them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tam_backend.labelstudio import renewal
from tam_backend.labelstudio.config import EXAMPLE
from tests.fakes import FakeLabelStudio
from tests.server.conftest import Backend

DAY = 86_400


@pytest.fixture
def backend(tmp_path: Path, label_studio: FakeLabelStudio, monkeypatch: pytest.MonkeyPatch) -> Backend:
    """Its addresses are good for four days. Between renewals the thread waits next to nothing."""
    monkeypatch.setattr(renewal, "CHECK_SECONDS", 0.02)
    label_studio.projects = ["<View/>", EXAMPLE]
    return Backend(tmp_path / "data", label_studio, frame_link_days=4)


def later(backend: Backend, days: float) -> None:
    backend.service.links._clock = lambda: time.time() + days * DAY


def until(condition) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_tasks_get_new_addresses_in_time_without_being_opened(backend: Backend, label_studio: FakeLabelStudio):
    task = backend.uploaded()
    before = task["data"]["frames"]
    foreign = label_studio.add_task({"frames": ["http://elsewhere.test/0.jpg"]})["data"].copy()
    broken = label_studio.add_task(task["data"] | {"clip": "ERROR: no video"})["data"].copy()
    assert backend.client.get(before[0]).headers["Cache-Control"].startswith("private, max-age=")
    later(backend, 2)
    until(lambda: task["data"]["frames"] != before)
    after = task["data"]["frames"]
    assert len(after) == len(before)
    assert [backend.client.get(url).status_code for url in (before[5], after[5])] in ([200, 200], [403, 200])
    later(backend, 4)
    refused = backend.client.get(before[5])
    assert refused.status_code == 403
    assert "open the task again" in refused.json["error"]
    assert label_studio.tasks[2]["data"] == foreign
    assert label_studio.tasks[3]["data"] == broken


def test_what_was_renewed_is_not_read_again(backend: Backend, label_studio: FakeLabelStudio):
    backend.uploaded()
    until(lambda: (backend.settings.data_dir / "renewed").exists())
    del label_studio.requests[:]
    assert backend.service._renewal.renew() == 0
    time.sleep(0.1)
    assert label_studio.requests == []


def test_label_studio_that_is_down_is_asked_again(backend: Backend, label_studio: FakeLabelStudio, caplog):
    task = backend.uploaded()
    before = task["data"]["frames"]
    label_studio.failing = True
    later(backend, 3)
    until(lambda: "tried again" in caplog.text)
    label_studio.failing = False
    until(lambda: task["data"]["frames"] != before)


def test_addresses_are_made_to_last_when_the_setting_is_taken_back(
    backend: Backend, tmp_path: Path, label_studio: FakeLabelStudio
):
    task = backend.uploaded()
    until(lambda: (backend.settings.data_dir / "renewed").exists())
    assert "exp=" in task["data"]["frames"][0]
    backend.service.close()
    again = Backend(tmp_path / "data", label_studio)
    again.connect()
    until(lambda: "exp=" not in task["data"]["frames"][0])
