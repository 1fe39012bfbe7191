"""Taking objects out of videos by the backend: what is asked for, how it is done in the background, what comes back."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from werkzeug.serving import make_server

import tam_backend.inpainting.embedded.engine as embedded
from tam_backend.cli import main
from tam_backend.labelstudio.config import EXAMPLE, parse_label_config
from tam_backend.labelstudio.regions import mask_region, quality_note
from tam_backend.video import open_video
from tests.server.conftest import LABELS, Backend

FRAMES, WIDTH, HEIGHT = 12, 64, 48


def square(frame: int) -> np.ndarray:
    """The light square of the test video."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[10:24, 10 + frame : 24 + frame] = True
    return mask


def submit(backend: Backend, task: int, number: int = 31, when: str = "2026-11-28T10:00:00Z") -> None:
    """The square is submitted as the first label, another square as the second one."""
    [control, *_] = parse_label_config(EXAMPLE).masks
    note = quality_note("fake", 0, 0.9, "1")
    regions = [mask_region(control, LABELS[0], i, square(i), 0.9, note) for i in range(FRAMES)]
    regions += [mask_region(control, LABELS[1], i, np.roll(square(0), 22, 0), 0.9, note) for i in range(FRAMES)]
    backend.label_studio.annotations[number] = {
        "id": number, "task": task, "result": regions, "updated_at": when, "was_cancelled": False,
    }  # fmt: skip


@pytest.fixture
def task(backend: Backend) -> int:
    number = int(backend.uploaded(FRAMES)["id"])
    submit(backend, number)
    return number


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """What the engine computes, in order."""
    done: list[tuple[str, int]] = []
    put = embedded.EmbeddedFilling._put

    def noting(self, kind, frame, content):
        done.append((kind, frame))
        put(self, kind, frame, content)

    monkeypatch.setattr(embedded.EmbeddedFilling, "_put", noting)
    return done


def wait_for(backend: Backend, number: str, *states: str) -> dict:
    deadline = time.monotonic() + 30
    while True:
        found = backend.client.get(f"/removals/{number}").get_json()
        if found["state"] in states:
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.02)


def test_the_video_comes_back_without_the_object(backend, task, tmp_path):
    answer = backend.client.post("/removals", json={"task": task, "objects": [LABELS[0]], "dilate": 2})
    assert answer.status_code == 202, answer.text
    number = answer.get_json()["id"]
    assert backend.client.get("/removals/" + "0" * 32).status_code == 404
    done = wait_for(backend, number, "done", "failed")
    assert done["state"] == "done", done
    assert done["report"]["frames"] == done["report"]["with_hole"] == FRAMES
    assert 0 <= done["report"]["invented"] <= 1
    with backend.client.get(f"/removals/{number}/video.mp4") as answer:
        (tmp_path / "got.mp4").write_bytes(answer.data)
    before, after = open_video(backend.label_studio.root / "a.mp4"), open_video(tmp_path / "got.mp4")
    assert [after.time(i) for i in range(FRAMES)] == [before.time(i) for i in range(FRAMES)]
    for i in range(FRAMES):
        inside, beside = square(i), np.roll(square(0), 22, 0)
        assert before[i][inside].mean() - before[i][beside].mean() > 30
        assert abs(after[i][inside].mean() - after[i][beside].mean()) < 8, i
    store = backend.settings.data_dir / "removals" / number / "store"
    assert not store.exists(), "what is finished is not needed any more"
    assert backend.client.delete(f"/removals/{number}").status_code == 200
    assert not store.parent.exists()
    assert backend.client.get(f"/removals/{number}/video.mp4").status_code == 404


def test_it_is_in_the_queue_that_people_see(backend, task):
    with backend.service.jobs._turns.request():  # somebody waits for an answer
        number = backend.client.post("/removals", json={"task": task, "objects": [LABELS[0]]}).get_json()["id"]
        wait_for(backend, number, "running")
        time.sleep(0.3)
        assert backend.client.get(f"/removals/{number}").get_json()["steps"] == 0, "who clicks goes first"
        [job] = [j for j in backend.client.get("/status.json").get_json()["jobs"] if j["kind"] == "removal"]
        assert (job["task"], job["label"], job["state"]) == (task, LABELS[0], "running")
        page = backend.client.get("/status", headers={"Accept": "text/html"}).text
        assert "taking it out of the video" in page
    done = wait_for(backend, number, "done", "failed")
    assert done["steps"] == done["total"] == 3 * FRAMES
    assert "done; the video can be fetched" in backend.client.get("/status", headers={"Accept": "text/html"}).text


def test_the_same_again_is_the_same_until_the_annotation_changes(backend, task, steps):
    ask = lambda: backend.client.post("/removals", json={"task": task}).get_json()["id"]  # noqa: E731
    number = ask()
    wait_for(backend, number, "done")
    computed = len(steps)
    assert ask() == number
    assert len(steps) == computed
    submit(backend, task, when="2026-11-28T11:00:00Z")
    other = ask()
    assert other != number
    wait_for(backend, other, "done")


def test_it_goes_on_after_a_restart(backend, task, steps, monkeypatch, label_studio, tmp_path):
    slow = embedded.EmbeddedFilling._side

    def waiting(self, *arguments):
        time.sleep(0.05)
        return slow(self, *arguments)

    monkeypatch.setattr(embedded.EmbeddedFilling, "_side", waiting)
    number = backend.client.post("/removals", json={"task": task}).get_json()["id"]
    deadline = time.monotonic() + 20
    while len(steps) < 5:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    backend.service.close()
    before = list(steps)
    assert ("filled", FRAMES - 1) not in before
    again = Backend(tmp_path / "data", label_studio)
    again.connect()
    wait_for(again, number, "done", "failed")
    assert again.client.get(f"/removals/{number}").get_json()["state"] == "done"
    assert len(set(steps)) == len(steps), "nothing is computed twice"
    assert set(before) < set(steps)


def test_what_changed_between_asking_and_doing_is_said(backend, task):
    with backend.service.jobs._turns.request():
        first = backend.client.post("/removals", json={"task": task}).get_json()["id"]
        wait_for(backend, first, "running")
        second = backend.client.post("/removals", json={"task": task, "dilate": 1}).get_json()["id"]
        submit(backend, task, when="2026-11-28T12:00:00Z")
    failed = wait_for(backend, second, "failed", "done")
    assert failed["error"] == f"task {task} was changed after this was asked for: ask again"
    assert wait_for(backend, first, "done", "failed")["state"] == "done", "it had begun with what was accepted then"


def test_what_is_dropped_stops(backend, task, steps):
    with backend.service.jobs._turns.request():
        number = backend.client.post("/removals", json={"task": task}).get_json()["id"]
        wait_for(backend, number, "running")
        assert backend.client.delete(f"/removals/{number}").status_code == 200
    other = backend.client.post("/removals", json={"task": task, "dilate": 1}).get_json()["id"]
    wait_for(backend, other, "done")
    assert [p.name for p in (backend.settings.data_dir / "removals").iterdir()] == [other]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "task is missing"),
        ({"task": "1"}, "task must be the number of a task, not '1'"),
        ({"task": True}, "task must be"),
        ({"task": 99}, "task 99: there is no such task"),
        ({"task": 1, "objects": "Object 1"}, "objects must be a list of labels"),
        ({"task": 1, "objects": ["Cat"]}, "objects: there is no label 'Cat'; there are Object 1, Object 2"),
        ({"task": 1, "dilate": 201}, "dilate must be a number of pixels from 0 to 200"),
        ({"task": 1, "engine": "other"}, "engine must be one of embedded, e2fgvi"),
        ({"task": 1, "keep_audio": 1}, "keep_audio must be true or false"),
        ({"task": 1, "video": "/etc/passwd"}, "'video' is no field of a removal"),
        ([1], "must be a JSON object"),
    ],
)
def test_what_cannot_be_asked_for(backend, task, body, message):
    answer = backend.client.post("/removals", json=body)
    assert answer.status_code == 400
    assert message in answer.get_json()["error"]
    assert not (backend.settings.data_dir / "removals").exists()


def test_what_cannot_be_done_is_said_by_the_removal(backend, task):
    number = backend.client.post("/removals", json={"task": task, "end": 99}).get_json()["id"]
    assert "there is no such frame" in wait_for(backend, number, "failed", "done")["error"]
    for annotation in backend.label_studio.annotations.values():
        annotation["was_cancelled"] = True
    answer = backend.client.post("/removals", json={"task": task})
    assert answer.status_code == 400
    assert "nobody has submitted an annotation" in answer.get_json()["error"]


@pytest.mark.parametrize("number", ["..", "%2e%2e", "0" * 31, "g" * 32, "0" * 32])
def test_an_id_is_no_path(backend, task, number):
    for call in (backend.client.get, backend.client.delete):
        assert call(f"/removals/{number}").status_code in (404, 405)
        assert call(f"/removals/{number}/video.mp4").status_code in (404, 405)


# ---- tam inpaint --backend


@pytest.fixture
def address(backend: Backend) -> Iterator[str]:
    server = make_server("127.0.0.1", 0, backend.app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tam_backend.commands.inpaint_remote.LOOK_EVERY", 0.02)


def test_a_command_has_it_done_and_fetches_it(backend, task, address, tmp_path, capfd):
    out = tmp_path / "without.mp4"
    given = ["inpaint", "--task", str(task), "--object", LABELS[0], "--backend", address, "--out", str(out)]
    assert main([*given, "--dry-run"]) == 0
    assert not out.exists()
    assert not (backend.settings.data_dir / "removals").exists()
    assert main(given) == 0
    said = capfd.readouterr().out
    assert f"{FRAMES} frames in {out}: holes on {FRAMES} of them" in said
    assert "Never seen on any frame, and so invented:" in said
    assert len(open_video(out)) == FRAMES
    assert list((backend.settings.data_dir / "removals").iterdir()) == [], "fetched, so it is not kept"


@pytest.mark.parametrize(
    ("given", "code", "message"),
    [
        (["--task", "99"], 2, "the backend says: task 99: there is no such task"),
        (["--task", "1", "--object", "Cat"], 2, "there is no label 'Cat'"),
        (["--task", "1", "--end", "99"], 1, "the backend could not do it: --end 99: there is no such frame"),
        (["--task", "1", "--compare"], 2, "--compare cannot go with --backend"),
        (["--task", "1", "--backend", "ADDRESS/secret"], 2, "knows no such address"),
        (["--task", "1", "--backend", "http://127.0.0.1:9", "--wait", "0"], 1, "does not answer"),
        (["--task", "1", "--backend", "here"], 2, "'here' is not an address"),
    ],
)
def test_what_a_command_says(backend, task, address, tmp_path, capfd, given, code, message):
    arguments = [g.replace("ADDRESS", address) for g in given]
    out = tmp_path / "without.mp4"
    assert main(["inpaint", "--backend", address, *arguments, "--out", str(out)]) == code
    error = capfd.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert [p.name for p in tmp_path.iterdir() if p.name != "data"] == (
        [backend.label_studio.root.name] if backend.label_studio.root.parent == tmp_path else []
    )
