"""The page /status in a real browser, on a backend that is told what to show."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from werkzeug.serving import make_server

from model import TrackAnything
from tam_backend.labelstudio.service import Service
from tam_backend.server.app import create_app
from tam_backend.sessions.progress import JobState
from tam_backend.settings import Settings
from tests.browser.editor import StatusPage
from tests.fake_progress import FakeProgress, job
from tests.fakes import fake_engine

pytestmark = [pytest.mark.browser, pytest.mark.timeout(60)]

SCRIPT = "<script>window.smuggled = true</script>"


@pytest.fixture
def progress() -> FakeProgress:
    return FakeProgress()


@pytest.fixture
def page(tmp_path: Path, progress: FakeProgress) -> Iterator[StatusPage]:
    service = Service(Settings(data_dir=tmp_path / "data"), fake_engine())
    app = create_app(service.settings, TrackAnything, service, progress)
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        with StatusPage(f"http://127.0.0.1:{server.server_port}") as page:
            yield page
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        service.close()
        service.close()


def test_it_keeps_itself_up_to_date(
    page: StatusPage, progress: FakeProgress, screenshots: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    full = "Only 120 MB of disk space are left; free some and click again."
    done = [job(4, JobState.DONE, label="Dog", frames_done=100, updated=now - 4000),
            job(5, JobState.STOPPED, label="Ball", frames_done=40, updated=now - 90000)]  # fmt: skip
    failed = job(3, JobState.FAILED, label=f"Cat {SCRIPT}", error=full, updated=now - 300)
    running = [job(1, frames_done=25, seconds_left=75.0, updated=now)]
    progress.jobs = [*running, failed, *done]
    page.call("open")
    page.call("unfold")
    page.call("touch")
    shown = page.call("read")
    assert shown["summary"] == "1 running, 0 waiting, 1 failed"
    assert list(shown["jobs"]) == ["job-1", "job-3", "job-4", "job-5"]
    assert "25 of 100 frames (25 %)" in shown["jobs"]["job-1"]["text"]
    assert SCRIPT in shown["jobs"]["job-3"]["text"]
    assert full in shown["jobs"]["job-3"]["text"]

    # One job goes on; others come before and after it.
    progress.jobs = [
        job(7, label="Horse in the very back of the picture", seconds_left=None, frames_done=0, updated=now),
        job(1, frames_done=60, seconds_left=40.0, updated=now),
        job(8, JobState.DELIVERING, label="Bird", frames_done=100, error="Label Studio does not answer.", updated=now),
        job(9, JobState.WAITING, label="Rider", frames_done=0, updated=now), failed, *done,
    ]  # fmt: skip
    page.call("waitForText", "60 of 100 frames")
    shown = page.call("read")
    assert shown["summary"] == "2 running, 1 waiting, 1 to be saved, 1 failed"
    assert shown["title"].startswith(shown["summary"])
    assert list(shown["jobs"]) == ["job-7", "job-1", "job-8", "job-9", "job-3", "job-4", "job-5"]
    assert shown["jobs"]["job-1"]["part"] == 0.6
    assert [name for name, each in shown["jobs"].items() if each["touched"]] == ["job-1", "job-3", "job-4", "job-5"]
    assert shown["unfolded"], "what was unfolded has been folded"
    assert shown["loads"] == 1
    for name, look in {"light": {}, "dark": {"dark": True}, "phone": {"width": 360, "height": 740}}.items():
        page.call("look", look)
        assert not page.call("overflows")
        page.call("screenshot", str(screenshots / f"{name}.png"))
    assert page.call("takeProblems") == []

    with monkeypatch.context() as broken:
        broken.setattr(progress, "views", lambda: 1 / 0)
        page.call("waitForText", "What you see here may be out of date.")
        assert page.call("read")["jobs"].keys() == shown["jobs"].keys()
    page.call("takeProblems")  # the browser reports that answer itself

    progress.jobs = []
    page.call("waitForText", "Nothing is being tracked now.")
    shown = page.call("read")
    assert shown["jobs"] == {}
    assert not shown["unreachable"]
    assert shown["loads"] == 1
    page.call("screenshot", str(screenshots / "nothing.png"))
    assert page.call("takeProblems") == []

    assert not page.call("smuggleScript")
    [problem] = page.call("takeProblems")
    assert "Content Security Policy" in problem
