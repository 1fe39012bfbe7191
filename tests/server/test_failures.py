"""What goes wrong around a server: its disk, the clock, Label Studio, too many people. No click is lost."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tam_backend.commands.serve import ANSWERED_WITHIN, PARKED_WITHIN
from tam_backend.labelstudio.config import EXAMPLE
from tam_backend.sessions import turns
from tam_backend.sessions.progress import JobState
from tests.fakes import FakeLabelStudio, make_video
from tests.server.conftest import Backend, point
from tests.server.kills import Server
from tests.server.page import Page
from tests.server.test_background import LABELS, predicted, quick, split, until

FRAMES = 12
PR_CAPBSET_DROP, CAP_DAC_OVERRIDE = 24, 1


@pytest.fixture
def office(tmp_path: Path, label_studio: FakeLabelStudio) -> Iterator[tuple[Server, Page]]:
    """A running server, and a page with a task open."""
    label_studio.label_config = EXAMPLE
    make_video(label_studio.root / "a.mp4", FRAMES, 320, 240)
    server = Server(tmp_path / "data", label_studio, FRAMES)
    server.start()
    try:
        task = label_studio.add_task({"video": "/data/upload/1/a.mp4"})
        server.predict(task, [])

        def post(body):
            return server.post("/predict", body)

        yield server, Page(label_studio, "ann", task["id"], "Object 1", (320, 240), EXAMPLE, post)
    finally:
        server.end(signal.SIGTERM)


def click(page: Page, frame: int) -> dict[int, dict]:
    page.click(frame, 100 * (17 + frame) / 320, 100 * 17 / 240)
    return page.masks


def done(server: Server) -> bool:
    return not any(j["state"] in ("waiting", "running") for j in server.jobs())


def test_told_to_stop_it_answers_what_is_under_way_and_goes_on_at_the_next_start(tmp_path, label_studio):
    label_studio.label_config = EXAMPLE
    make_video(label_studio.root / "a.mp4", 100, 640, 480)
    server = Server(tmp_path / "data", label_studio, 100, TAM_ANSWER_SECONDS="90")
    server.start()
    try:
        task = label_studio.add_task({"video": "/data/upload/1/a.mp4"})
        server.predict(task, [])
        page = Page(
            label_studio, "ann", task["id"], "Object 1", (640, 480), EXAMPLE, lambda b: server.post("/predict", b)
        )
        asking = threading.Thread(target=lambda: page.click(2, 100 * 19 / 640, 100 * 17 / 480))
        asking.start()
        until(lambda: len(server.blobs()) >= 5)
        started = time.monotonic()
        server.end(signal.SIGTERM)
        assert time.monotonic() - started < ANSWERED_WITHIN + PARKED_WITHIN
        asking.join(10)
        assert 1 <= len(page.masks) < 100
    finally:
        server.start()
    try:
        until(lambda: [j["frames_done"] > len(page.masks) for j in server.jobs()] == [True], 60)
    finally:
        server.end(signal.SIGTERM)
    assert "Traceback" not in server.log.read_text()


def test_a_full_disk_stops_nobody_and_what_was_clicked_meanwhile_is_stored_later(office):
    server, page = office
    assert 2 in click(page, 2)
    until(lambda: done(server))
    _, most = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (50_000, most))  # no file grows beyond this
    assert 9 in click(page, 9)
    until(lambda: done(server))
    assert len(page.masks) > 1
    with urllib.request.urlopen(f"{server.url}/health", timeout=1) as response:
        assert response.status == 200
    frames = page._label_studio.tasks[page.task]["data"]["frames"]
    for url in frames:
        urllib.request.urlopen(url, timeout=10).close()
    stored = len(server.blobs())
    assert not any(page.answered <= ids for _, _, ids in server.prompts()), "the disk was not full"
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (most, most))
    until(lambda: any(page.answered <= ids for _, _, ids in server.prompts()))
    until(lambda: len(server.blobs()) >= stored + 2)
    server.end(signal.SIGKILL)
    assert len(server.blobs()) > stored
    server.start()
    until(lambda: done(server))
    page.ask()
    until(lambda: done(server))
    page.ask()
    assert sorted(page.masks) == list(range(FRAMES))
    log = server.log.read_text()
    assert "a restart would not know of it" in log
    assert "Traceback" not in log


def test_a_directory_that_cannot_be_written_is_named_at_the_start(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    folder.chmod(0o500)

    def as_anybody() -> None:
        if os.geteuid() == 0:  # whom modes do not bind, unless this is given up
            assert ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE) == 0

    ended = subprocess.run(
        [sys.executable, "-c", "import sys; sys.modules['torch'] = None; from tam_backend.cli import main; main()",
         "serve", "--port", "0"],
        env={**os.environ, "TAM_DATA_DIR": str(folder), "TAM_ENGINE": "embedded"},
        capture_output=True, text=True, timeout=60, preexec_fn=as_anybody, check=False,
    )  # fmt: skip
    folder.chmod(0o700)
    assert f"{folder}" in ended.stderr
    assert "TAM_DATA_DIR" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_clock_that_was_set_back_a_day_changes_nothing(office, tmp_path, label_studio):
    server, page = office
    click(page, 2)
    server.end(signal.SIGKILL)
    back = "import time; real = time.time; time.time = lambda: real() - 86400; "
    yesterday = Server(tmp_path / "data", label_studio, FRAMES, back)
    yesterday.start()
    try:
        until(lambda: done(yesterday))
        page._post = lambda body: yesterday.post("/predict", body)
        click(page, 9)
        until(lambda: done(yesterday))
        page.ask()
        assert sorted(page.masks) == list(range(FRAMES))
    finally:
        yesterday.end(signal.SIGTERM)
    server.start()  # and forward again
    assert done(server)
    assert "Traceback" not in server.log.read_text()


def test_a_clock_that_was_set_back_delays_no_delivery(backend, label_studio, monkeypatch):
    quick(backend)
    backend.autosave = False
    task = backend.uploaded(FRAMES)
    backend.click(task, point("p1", 5, 20, 24))
    until(lambda: not backend.service.jobs.running)
    backend.service.jobs._delivering.close()  # here and not in its thread as well: both would bring the prediction
    [track] = backend.service._tracks.of_task(label_studio.url, task["id"])
    backend.service._activity._last.clear()
    assert backend.service._deliveries.deliver(track) is not None, "the page may not have saved yet"
    now = time.time()
    monkeypatch.setattr("tam_backend.labelstudio.delivery.time.time", lambda: now - 86400)
    assert backend.service._deliveries.deliver(track) is None
    assert len(label_studio.predictions) == 1


def test_label_studio_is_away_and_gets_each_prediction_later_once_and_in_order(tmp_path, label_studio, monkeypatch):
    monkeypatch.setattr("tam_backend.sessions.delivering.RETRY_LINE", (0.1, 0.3))
    backend = Backend(tmp_path / "data", label_studio, clip_length=10)
    try:
        backend.autosave = False
        quick(backend)
        tasks = split(backend)
        label_studio.drafts = [{"id": 7, "task": tasks[1]["id"], "result": [point("p1", 5, 20, 24)],
                                "updated_at": "2026-01-01T00:00:00Z"}]  # fmt: skip
        order: list[int] = []
        fill = backend.service._deliveries.fill

        def filling(track, task):
            fill(track, task)
            order.append(task)

        monkeypatch.setattr(backend.service._deliveries, "fill", filling)
        arrived = [False]

        def away(frame: int) -> None:
            if frame == 25 and not arrived[0]:  # the first of the other tasks are under way
                arrived[0] = True
                label_studio.close()

        backend.engine.propagator.before_step = away
        backend.click(tasks[1], point("p1", 5, 20, 24))
        until(lambda: arrived[0] and not backend.service.jobs.running)
        time.sleep(1.0)
        waiting = [v for v in backend.service.jobs.views() if v.state is JobState.DELIVERING]
        assert any("does not answer" in v.error for v in waiting)
        planned = [t["id"] for t in tasks if t is not tasks[1]]
        assert len(order) < len(planned)
        label_studio.restart()
        until(lambda: len(order) == len(planned))
        created = [path for method, path, _ in label_studio.requests if (method, path) == ("POST", "/api/predictions/")]
        assert len(created) == len(planned)
        assert set(predicted(label_studio)) == set(planned)
        assert order == sorted(order, key=lambda t: abs(t - tasks[1]["id"])), "the nearest first, as they were finished"
        until(lambda: [v.state for v in backend.service.jobs.views() if v.follows] == [JobState.DONE])
    finally:
        backend.service.close()


def test_more_people_than_can_be_served_are_told_so_and_get_their_masks_later(tmp_path, label_studio):
    backend = Backend(tmp_path / "data", label_studio, queue_limit=1)
    try:
        backend.autosave = False
        task = backend.uploaded(FRAMES)
        with backend.service._clicks._turns.request():  # somebody is being served
            answer = backend.click(task, point("p1", 5, 20, 24))
        [result] = answer.json["results"]
        assert result["busy"].startswith("busy, position 2: ")
        assert [r["id"] for r in result["result"]] == ["p1"], "the point is not lost"
        until(lambda: not backend.service.jobs.running)
        [job] = backend.service.jobs.views()
        assert job.frames_done == FRAMES
        [result] = backend.click(task, point("p1", 5, 20, 24)).json["results"]
        assert "busy" not in result
        assert sum(r["type"] == "brushlabels" for r in result["result"]) == FRAMES
    finally:
        backend.service.close()


def test_where_many_are_at_work_an_answer_is_short(backend, monkeypatch):
    monkeypatch.setattr("tam_backend.labelstudio.clicks.CROWDED_SECONDS", 0.05)
    backend.autosave = False
    backend.engine.propagator.before_step = lambda _: time.sleep(0.03)
    task = backend.uploaded(FRAMES)
    for person in range(turns.CROWD[0]):
        with backend.service._clicks._turns.interactive(person):
            pass
    masks = [r for r in backend.click(task, point("p1", 5, 20, 24)).json["results"][0]["result"] if "score" in r]
    assert 1 <= len(masks) < FRAMES
    assert 5 in {m["item_index"] for m in masks}
    until(lambda: not backend.service.jobs.running)


def test_the_waiting_know_their_place_in_line(backend):
    backend.autosave = False
    quick(backend)
    task = backend.uploaded(FRAMES)
    with backend.service._clicks._turns.request():
        for i, label in enumerate(LABELS):
            backend.click(task, point(f"p{i}", 5, 20, 24, label=label))
        places = {v.label: v.position for v in backend.service.jobs.views() if v.state is JobState.WAITING}
        assert places
        assert sorted(places.values()) == list(range(len(LABELS) - len(places) + 1, len(LABELS) + 1)), (
            "one may be at work"
        )
    until(lambda: not backend.service.jobs.running)
