"""What a click's answer could not carry is computed behind it, and reaches people as far as Label Studio permits."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from tam_backend.labelstudio.requests import decode_region_mask
from tam_backend.quality import review
from tam_backend.sessions.progress import JobState
from tests.server.conftest import LABELS, Backend, masks_of, point, regions_of

OLD = "2026-01-01T00:00:00Z"
FRAMES = 40


def until(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    """What ``condition`` returns once that is true."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)
    return result


def quick(backend: Backend) -> None:
    """Nobody waits for frames: the answer carries the clicked one, and what else is finished."""
    backend.service._clicks._answer_seconds = 0.0


def leave(backend: Backend) -> None:
    """Time passes without requests."""
    backend.service._activity._last.clear()


def tracked(backend: Backend) -> list[Any]:
    """All jobs, once none of them computes any more."""
    until(lambda: not backend.service.jobs.running)
    return backend.service.jobs.views()


def draft(*regions: dict[str, Any], updated: str = OLD, id: int = 7, task: int = 1) -> dict[str, Any]:
    return {"id": id, "result": list(regions), "updated_at": updated, "task": task}


def accepted(*points: dict[str, Any]) -> list[dict[str, Any]]:
    """Points as they are on the page when their answer has come."""
    result = []
    for p in points:
        value = {k: v for k, v in p["value"].items() if k != "labels"}
        kept = {k: v for k, v in p.items() if k != "is_positive"}
        result.append({**kept, "value": value, "meta": {"is_positive": p["is_positive"]}})
    return result


@pytest.fixture
def task(backend: Backend) -> Iterator[dict[str, Any]]:
    quick(backend)
    backend.autosave = False
    return backend.uploaded(FRAMES)


def test_the_next_click_returns_what_was_finished_since(backend, task):
    one = point("p1", 5, 20, 24)
    first = backend.click(task, one)
    assert len(masks_of(first)) == 1
    tracked(backend)
    steps = len(backend.engine.propagator.steps)
    assert steps == FRAMES - 1
    # The same object once more, a bit beside: by then the page has the first answer.
    [p1] = accepted(one)
    saved = draft(p1, *masks_of(first).values())
    backend.label_studio.drafts = [saved]
    leave(backend)
    second = backend.click(task, p1, point("p2", 30, 20, 24), drafts=[saved])
    assert 30 in masks_of(second)
    tracked(backend)
    # Page and draft have both points now, and still none of what was finished behind them.
    points = accepted(one, point("p2", 30, 20, 24))
    saved = draft(*points, masks_of(first)[5], masks_of(second)[30], id=8)
    backend.label_studio.drafts = [draft(*points, point("p3", 12, 21, 24), updated="2026-01-01T00:01:00Z", id=8)]
    steps = len(backend.engine.propagator.steps)
    masks = masks_of(backend.click(task, *points, point("p3", 12, 21, 24), drafts=[saved]))
    assert {0, 1, 2, 3, 4, 12, 31, 39} <= masks.keys()  # before p1, after p2: nothing changed there
    tracked(backend)
    assert set(backend.engine.propagator.steps[steps:]) <= set(range(6, 30))


def test_a_click_on_another_object_brings_what_was_finished_of_the_first(backend, task):
    one, two = point("p1", 5, 20, 24), point("p2", 5, 40, 24, label=LABELS[1])
    first = backend.click(task, one)
    tracked(backend)
    backend.arrived()
    saved = draft(*accepted(one), *masks_of(first).values())
    backend.label_studio.drafts = [
        draft(*accepted(one), *masks_of(first).values(), two, updated="2026-01-01T00:01:00Z")
    ]
    response = backend.click(task, two, drafts=[saved])
    masks = [r for r in regions_of(response) if r["type"] == "brushlabels"]
    assert sorted(r["item_index"] for r in masks if r["meta"]["object"] == LABELS[0]) == [
        i for i in range(FRAMES) if i not in masks_of(first)
    ]


def test_a_new_prompt_stops_the_job_within_one_frame(backend, task):
    backend.engine.propagator.before_step = lambda _: time.sleep(0.05)
    one = point("p1", 0, 20, 24)
    backend.click(task, one)
    until(lambda: len(backend.engine.propagator.steps) >= 3)
    backend.click(task, one, point("p2", 0, 30, 24))  # another mask on the same frame: all frames change
    before = len(backend.engine.propagator.steps)
    tracked(backend)
    # one frame of the old job may have been under way
    assert len(backend.engine.propagator.steps) - before <= FRAMES
    assert [(v.state, v.frames_done) for v in backend.service.jobs.views()] in ([(JobState.DELIVERING, FRAMES)],)


def test_a_restart_loses_no_finished_frame_and_goes_on(tmp_path, label_studio, backend, task):
    backend.engine.propagator.before_step = lambda _: time.sleep(0.02)
    one = point("p1", 5, 20, 24)
    backend.click(task, one)
    until(lambda: len(backend.engine.propagator.steps) >= 10)
    backend.service.close()
    finished = len(backend.engine.propagator.steps)
    assert finished < FRAMES - 1
    again = Backend(tmp_path / "data", label_studio)
    try:
        quick(again)
        again.connect()
        tracked(again)
        repeated = finished + len(again.engine.propagator.steps) - (FRAMES - 1)
        assert repeated == 0  # it was stopped, not killed: the state of the last frame was stored
        [job] = again.service.jobs.views()
        assert job.frames_done == FRAMES
        before = len(again.engine.propagator.steps)
        assert len(masks_of(again.click(task, one))) == FRAMES
        assert len(again.engine.propagator.steps) == before
    finally:
        again.service.close()


def test_a_draft_left_alone_gets_the_rest(backend, task, label_studio):
    one = point("p1", 5, 20, 24)
    first = backend.click(task, one)
    tracked(backend)
    label_studio.drafts = [draft(*accepted(one), *masks_of(first).values())]
    leave(backend)
    backend.batch(task)
    [saved] = label_studio.drafts
    masks = {r["item_index"]: r for r in saved["result"] if r["type"] == "brushlabels"}
    assert sorted(masks) == list(range(FRAMES))
    assert len({r["id"] for r in saved["result"]}) == len(saved["result"])
    leave(backend)
    saved["updated_at"] = "2026-01-01T00:01:00Z"  # and left alone again
    writes = len([r for r in label_studio.requests if r[0] == "PATCH"])
    backend.batch(task)
    assert len([r for r in label_studio.requests if r[0] == "PATCH"]) == writes  # there is nothing to add any more
    expected = decode_region_mask(masks[5], 48, 64)
    assert all(np.array_equal(decode_region_mask(m, 48, 64), expected) for m in masks.values())


def test_a_draft_somebody_works_on_is_not_touched(backend, task, label_studio):
    one = point("p1", 5, 20, 24)
    first = backend.click(task, one)
    tracked(backend)
    label_studio.drafts = [draft(*accepted(one), *masks_of(first).values())]
    backend.batch(task)  # the answer went out a moment ago
    assert len(label_studio.drafts[0]["result"]) == 2
    leave(backend)
    label_studio.drafts[0]["updated_at"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    backend.batch(task)
    assert len(label_studio.drafts[0]["result"]) == 2
    assert not label_studio.predictions


def test_a_click_whose_answer_nobody_waited_for_is_not_lost(backend, task, label_studio):
    """The page was closed: its draft has the point, still waiting, and no mask."""
    one = point("p1", 5, 20, 24)
    backend.click(task, one)
    tracked(backend)
    label_studio.drafts = [draft(one)]
    leave(backend)
    backend.batch(task)
    result = label_studio.drafts[0]["result"]
    assert sum(r["type"] == "brushlabels" for r in result) == FRAMES
    [p1] = [r for r in result if r["id"] == "p1"]
    assert "is_positive" not in p1
    assert p1["meta"]["is_positive"] is True


@pytest.fixture
def at_once(monkeypatch):
    """Deliveries do not wait for the page to save its draft."""
    monkeypatch.setattr("tam_backend.labelstudio.delivery.LEFT_ALONE", -1.0)


def test_no_prediction_while_the_page_has_not_saved_its_draft(backend, task, label_studio):
    backend.click(task, point("p1", 5, 20, 24))
    until(lambda: [v.state for v in tracked(backend)] == [JobState.DELIVERING])
    time.sleep(0.2)
    assert not label_studio.predictions


def test_without_draft_or_annotation_a_prediction_is_posted_and_replaced(backend, task, label_studio, at_once):
    one = point("p1", 5, 20, 24)
    backend.click(task, one)
    [prediction] = until(lambda: list(label_studio.predictions.values()))
    assert sum(r["type"] == "brushlabels" for r in prediction["result"]) == FRAMES
    assert [r["id"] for r in prediction["result"] if r["type"] == "keypointlabels"] == ["p1"]
    assert prediction["model_version"] == backend.service.model_version
    masks = [r for r in prediction["result"] if r["type"] == "brushlabels"]
    quality = {r["item_index"]: r["score"] for r in masks} | {5: 1.0}
    assert all(r["meta"]["quality"] == r["score"] for r in masks)
    assert prediction["score"] == pytest.approx(sum(quality.values()) / FRAMES, abs=1e-4), "the clicked frame is right"
    marked = [r["item_index"] for r in masks if r["meta"].get("fix_next")]
    found = review(quality, [5])
    assert marked == ([] if found.fix_next is None else [found.fix_next])
    old = prediction["result"]
    backend.click(task, one, point("p2", 9, 40, 24))
    until(lambda: label_studio.predictions[prediction["id"]]["result"] != old)
    assert len(label_studio.predictions) == 1


def split(backend: Backend) -> list[dict[str, Any]]:
    """A video in four tasks of ten frames."""
    backend.uploaded(FRAMES)
    return sorted(backend.label_studio.tasks.values(), key=lambda t: t["id"])


@pytest.fixture
def clips(tmp_path, label_studio) -> Iterator[tuple[Backend, list[dict[str, Any]]]]:
    backend = Backend(tmp_path / "data", label_studio, clip_length=10)
    backend.autosave = False
    quick(backend)
    yield backend, split(backend)
    backend.service.close()


def predicted(label_studio) -> dict[int, list[int]]:
    """Task -> frames with masks in its prediction."""
    return {
        p["task"]: sorted(r["item_index"] for r in p["result"] if r["type"] == "brushlabels")
        for p in label_studio.predictions.values()
    }


def test_one_click_reaches_all_tasks_of_the_video(clips, label_studio):
    backend, tasks = clips
    label_studio.drafts = [draft(point("p1", 5, 20, 24), task=tasks[1]["id"])]
    backend.click(tasks[1], point("p1", 5, 20, 24))
    others = [t["id"] for t in tasks if t is not tasks[1]]
    until(lambda: predicted(label_studio) == {t: list(range(10)) for t in others})
    until(lambda: [v.state for v in backend.service.jobs.views() if v.follows] == [JobState.DONE])
    assert len(label_studio.predictions) == 3


def test_tasks_that_someone_has_begun_keep_out_of_it(clips, label_studio, at_once):
    backend, tasks = clips
    label_studio.drafts = [draft(point("x", 5, 20, 24), task=tasks[0]["id"])]
    label_studio.tasks[tasks[2]["id"]]["annotations"] = [{"id": 1, "result": []}]
    backend.click(tasks[1], point("p1", 5, 20, 24))
    until(lambda: tasks[3]["id"] in predicted(label_studio))
    tracked(backend)
    assert set(predicted(label_studio)) == {tasks[1]["id"], tasks[3]["id"]}


def test_a_correction_of_a_prediction_joins_the_prompts_it_came_from(clips, label_studio, at_once):
    backend, tasks = clips
    backend.click(tasks[0], point("p1", 5, 20, 24))
    until(lambda: len(predicted(label_studio)) == 4)
    [prediction] = [p for p in label_studio.predictions.values() if p["task"] == tasks[1]["id"]]
    response = backend.click(tasks[1], point("p2", 9, 40, 24), predictions=[prediction])
    assert set(masks_of(response)) == {9}
    tracked(backend)
    [track] = [t for t in backend.service._tracks.of_task(label_studio.url, tasks[1]["id"]) if not t.follows]
    assert sorted(track.anchors) == [5, 19]
    # and the clicked mask is a change of the one that was there: disc and disc
    assert decode_region_mask(masks_of(response)[9], 48, 64)[24, 20]


def test_who_begins_on_an_empty_task_has_an_object_of_their_own(clips, label_studio, at_once):
    backend, tasks = clips
    backend.click(tasks[0], point("p1", 5, 20, 24))
    until(lambda: len(predicted(label_studio)) == 4)
    backend.click(tasks[1], point("p2", 9, 40, 24))
    tracked(backend)
    [track] = [t for t in backend.service._tracks.of_task(label_studio.url, tasks[1]["id"]) if not t.follows]
    assert sorted(track.anchors) == [19]


def test_nothing_is_followed_when_the_setting_says_so(tmp_path, label_studio):
    backend = Backend(tmp_path / "data", label_studio, clip_length=10, follow_frames=0)
    try:
        quick(backend)
        tasks = split(backend)
        backend.click(tasks[1], point("p1", 5, 20, 24))
        tracked(backend)
        until(lambda: [v.state for v in backend.service.jobs.views()] == [JobState.DELIVERING])
        assert not label_studio.predictions
    finally:
        backend.service.close()


def test_a_label_studio_that_does_not_answer_gets_its_masks_later(backend, task, label_studio, monkeypatch, at_once):
    monkeypatch.setattr("tam_backend.sessions.delivering.RETRY", (0.05, 0.1))
    label_studio.failing = True
    backend.click(task, point("p1", 5, 20, 24))
    until(lambda: [v for v in backend.service.jobs.views() if "answered 500" in v.error])
    label_studio.failing = False
    until(lambda: predicted(label_studio) == {1: list(range(FRAMES))})
    until(lambda: [(v.state, v.error) for v in backend.service.jobs.views()] == [(JobState.DONE, "")])


def test_a_video_that_breaks_in_the_middle_fails_with_a_reason(backend, task):
    def broken(frame: int) -> None:
        if frame == 20:
            raise ValueError("no such frame")

    backend.engine.propagator.before_step = broken
    backend.click(task, point("p1", 5, 20, 24))
    [job] = until(lambda: [v for v in backend.service.jobs.views() if v.state is JobState.FAILED])
    assert "log says why" in job.error
    assert job.frames_done == 20


def test_tasks_with_predictions_get_the_new_address_of_this_server(clips, label_studio, tmp_path, at_once):
    """Label Studio does not ask for predictions where there are some, so opening such a task tells us nothing."""
    backend, tasks = clips
    backend.click(tasks[1], point("p1", 5, 20, 24))
    until(lambda: len(predicted(label_studio)) == 4)
    tracked(backend)
    backend.service.close()
    moved = Backend(tmp_path / "data", label_studio, public_url="http://moved.test")
    try:
        moved.connect()
        until(
            lambda: (
                {t["data"]["frames"][-1].partition("/frames/")[0] for t in label_studio.tasks.values()}
                == {"http://moved.test"}
            )
        )
        assert all(len(t["data"]["frames"]) == 10 for t in label_studio.tasks.values())
    finally:
        moved.service.close()
