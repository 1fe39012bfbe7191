"""Tasks that say how their video is to be cut, or which of its frames their pictures are; tasks with seeds."""

from __future__ import annotations

import re
import time

import numpy as np
import pytest

from tam_backend.labelstudio.cuts import Cut, CutPlan
from tam_backend.labelstudio.requests import decode_region_mask
from tam_backend.labelstudio.seeds import Seed
from tam_backend.prompts import Box
from tam_backend.sessions.progress import JobState
from tam_backend.video.jpeg import decode_jpeg
from tests.fakes import make_video
from tests.server.conftest import Backend, masks_of, point

LABEL = "Object 1"
SIZE = 48, 64


def imported(backend: Backend, plan: CutPlan, frames: int = 30, seeds: list[Seed] | None = None) -> list[dict]:
    """The tasks of a video that was imported with a plan, as they are once the backend has seen them."""
    make_video(backend.label_studio.root / "a.mp4", frames)
    backend.connect()
    data = {"video": "/data/upload/1/a.mp4", "source": "a.mp4#1", "cut_plan": plan.as_json()}
    if seeds:
        data["seeds"] = [seed.as_json() for seed in seeds]
    first = backend.label_studio.add_task(data)
    assert backend.batch(first).status_code == 200
    for task in list(backend.label_studio.tasks.values())[1:]:
        created(backend, task)
    return sorted(backend.label_studio.tasks.values(), key=lambda t: t["id"])


def created(backend: Backend, task: dict) -> None:
    """Label Studio's event about a new task."""
    event = {"action": "TASKS_CREATED", "project": {"id": 1, "label_config": backend.config}, "tasks": [task]}
    assert backend.client.post("/webhook", json=event).status_code == 200


def until(condition, seconds: float = 20.0):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def predicted(label_studio) -> dict[int, dict[int, np.ndarray]]:
    """Task -> item_index -> mask of its prediction."""
    return {
        p["task"]: {r["item_index"]: decode_region_mask(r, *SIZE) for r in p["result"] if r["type"] == "brushlabels"}
        for p in list(label_studio.predictions.values())
    }


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A draft counts as left alone at once."""
    monkeypatch.setattr("tam_backend.labelstudio.delivery.LEFT_ALONE", 0.0)


def test_clips_as_the_plan_says(backend):
    tasks = imported(backend, CutPlan(10, overlap=1, first=2, last=25))
    assert [t["data"]["clip"] for t in tasks] == [
        "frames 2 to 11 of 30",
        "frames 11 to 20 of 30",
        "frames 20 to 25 of 30",
    ]
    assert [t["data"]["cut"] for t in tasks] == [Cut(2, 10).as_json(), Cut(11, 10).as_json(), Cut(20, 6).as_json()]
    assert all("cut_plan" not in t["data"] and t["data"]["source"] == "a.mp4#1" for t in tasks)
    assert tasks[1]["data"]["frames"][0].partition("?")[0].endswith("/11.jpg")


def test_every_third_frame_is_shown_and_tracked(backend, label_studio):
    tasks = imported(backend, CutPlan(4, overlap=1, every=3, first=1))
    assert [t["data"]["clip"] for t in tasks] == [
        "frames 1 to 10 of 30, every 3", "frames 10 to 19 of 30, every 3", "frames 19 to 28 of 30, every 3",
    ]  # fmt: skip
    url = tasks[1]["data"]["frames"][2]
    shown = decode_jpeg(backend.client.get(url.removeprefix("http://backend.test")).data)
    assert abs(int(shown[40, 60, 0]) - (10 + 5 * 16)) <= 3  # frame 16 of the video is this grey
    answer = backend.click(tasks[1], point("p1", 2, 20, 24))
    assert set(masks_of(answer)) == {0, 1, 2, 3}
    assert backend.engine.propagator.steps


def test_a_plan_that_cannot_be_is_said_in_the_task(backend, label_studio):
    [task] = imported(backend, CutPlan(first=99))
    assert task["data"]["clip"] == "ERROR: there is no frame 99, the video has frames 0 to 29"
    task["data"]["cut_plan"] = {"length": "many"}
    backend.batch(task)
    assert "length must be a whole number" in label_studio.tasks[1]["data"]["clip"]


def test_a_task_without_a_plan_is_cut_as_the_settings_say(tmp_path, label_studio):
    backend = Backend(tmp_path / "data", label_studio, clip_length=20)
    backend.uploaded(30)
    assert [t["data"]["cut"] for t in label_studio.tasks.values()] == [Cut(0, 20).as_json(), Cut(20, 10).as_json()]


# ---- borders


def test_a_mask_on_the_border_frame_is_known_in_the_next_clip(backend, label_studio, at_once):
    """Frame 9 is the last of the first clip and the first of the second one."""
    tasks = imported(backend, CutPlan(10, overlap=1))
    backend.autosave = False
    backend.click(tasks[0], point("p1", 9, 20, 24))
    found = until(lambda: (p := predicted(label_studio)) and tasks[2]["id"] in p and p)
    assert (found[tasks[1]["id"]][0] == found[tasks[0]["id"]][9]).all()
    [prediction] = [p for p in label_studio.predictions.values() if p["task"] == tasks[1]["id"]]
    answer = backend.click(tasks[1], point("p2", 8, 40, 24), predictions=[prediction])
    assert 0 not in masks_of(answer)  # it stands as it was decided
    [track] = [t for t in backend.service._tracks.of_task(label_studio.url, tasks[1]["id"]) if not t.follows]
    assert sorted(track.anchors) == [9, 17]


def test_a_border_mask_that_was_deleted_counts_no_more(backend, label_studio, at_once):
    tasks = imported(backend, CutPlan(10, overlap=1))
    backend.autosave = False
    backend.click(tasks[0], point("p1", 9, 20, 24))
    until(lambda: [v.state for v in backend.service.jobs.views() if v.follows] == [JobState.DONE])
    [prediction] = [p for p in label_studio.predictions.values() if p["task"] == tasks[1]["id"]]
    kept = [r for r in prediction["result"] if r["item_index"] != 0]
    draft = {"id": 7, "task": tasks[1]["id"], "result": kept, "updated_at": "2026-01-01T00:00:00Z"}
    backend.click(tasks[1], point("p2", 8, 40, 24), predictions=[prediction], drafts=[draft])
    [track] = [t for t in backend.service._tracks.of_task(label_studio.url, tasks[1]["id"]) if not t.follows]
    assert sorted(track.anchors) == [17]


# ---- pictures of a video


def test_pictures_of_a_video_are_tracked_in_the_video(backend, label_studio, at_once):
    """Frames uploaded as pictures: the video beside them links the clips."""
    make_video(label_studio.root / "a.mp4", 30)
    backend.connect()
    backend.autosave = False
    tasks = [
        label_studio.add_task(
            {
                "video": "/data/upload/1/a.mp4", "cut": cut.as_json(),
                "frames": [f"/data/upload/1/a-{n}.jpg" for n in cut.frames],
            }
        )
        for cut in CutPlan(5, overlap=1, every=2).cuts(18)
    ]  # fmt: skip
    backend.click(tasks[0], point("p1", 4, 20, 24))
    found = until(lambda: (p := predicted(label_studio)) and tasks[1]["id"] in p and p)
    assert set(found[tasks[1]["id"]]) == {0, 1, 2, 3, 4}
    assert not [path for _, path, _ in label_studio.requests if path.endswith(".jpg")]


# ---- seeds


def test_seeds_start_tracks_without_a_click(backend, label_studio):
    mask = np.zeros(SIZE, bool)
    mask[10:20, 30:50] = True
    seeds = [
        Seed(LABEL, 3, box=Box(4, 6, 20, 30)),
        Seed("Object 2", 14, mask=mask),
        Seed(LABEL, 27, box=Box(0, 0, 9, 9)),
    ]
    tasks = imported(backend, CutPlan(10), seeds=seeds)
    assert [[s["frame"] for s in t["data"].get("seeds", [])] for t in tasks] == [[3], [14], [27]]
    found = until(lambda: (p := predicted(label_studio)) and [len(m) for m in p.values()] == [10, 10, 10] and p)
    assert found.keys() == {t["id"] for t in tasks}
    [prediction] = [p for p in label_studio.predictions.values() if p["task"] == tasks[1]["id"]]
    [seeded] = [r for r in prediction["result"] if r["meta"]["object"] == "Object 2" and r["item_index"] == 4]
    assert (decode_region_mask(seeded, *SIZE) == mask).all()
    for task in tasks:  # opening tasks, and events that come again, begin nothing anew
        created(backend, task)
        backend.batch(task)
    time.sleep(0.3)
    own = [
        t
        for t in tasks
        if len([r for r in backend.service._tracks.of_task(label_studio.url, t["id"]) if not r.follows])
    ]
    assert len(own) == 3
    assert len(backend.service._tracks.of_task(label_studio.url, tasks[1]["id"])) <= 2


def test_a_correction_of_a_seeded_prediction_joins_the_seed(backend, label_studio):
    [task] = imported(backend, CutPlan(30), seeds=[Seed(LABEL, 3, box=Box(4, 6, 20, 30))])
    until(lambda: task["id"] in predicted(label_studio))
    [prediction] = label_studio.predictions.values()
    answer = backend.click(task, point("p1", 20, 12, 18), predictions=[prediction])
    assert 20 in masks_of(answer)
    [track] = [t for t in backend.service._tracks.of_task(label_studio.url, task["id"]) if t.prompts]
    assert sorted(track.anchors) == [3, 20]


@pytest.mark.parametrize(
    ("seed", "message"),
    [
        ({"label": LABEL, "frame": 1, "box": [0, 0, 65, 9]}, "must be left < right <= 64"),
        ({"label": LABEL, "frame": 1, "box": [0, 0, 5]}, "a box of four numbers"),
        ({"label": "Cat", "frame": 1, "box": [0, 0, 5, 5]}, "no label 'Cat'"),
        ({"label": LABEL, "box": [0, 0, 5, 5]}, "must name a frame and a label"),
        ({"label": LABEL, "frame": 1, "mask": "data:image/png;base64,AAAA"}, r"seeds\[0\] of the task"),
        ("seed", "must be a list"),
    ],
)
def test_seeds_that_cannot_be_used_are_named_and_leave_the_task_usable(seed, message, backend, label_studio, caplog):
    make_video(label_studio.root / "a.mp4", 5)
    backend.connect()
    task = label_studio.add_task({"video": "/data/upload/1/a.mp4", "seeds": [seed]})
    backend.batch(task)
    until(lambda: re.search(message, caplog.text + str(label_studio.tasks[1]["data"].get("clip"))))
    assert not backend.service.jobs.views()
