"""What became of our masks, counted from Label Studio's events."""

from __future__ import annotations

import time

from tam_backend.labelstudio.config import parse_label_config
from tam_backend.labelstudio.outcomes import judge, offered_in
from tam_backend.sessions.outcomes import Outcome
from tests.server.conftest import Backend, masks_of, point

VERSION = "fake 1"


def send(backend: Backend, action: str, **fields: object) -> None:
    project = {"id": 1, "label_config": backend.config}
    assert backend.client.post("/webhook", json={"action": action, "project": project, **fields}).status_code == 200


#: The point that brought the masks, as the annotation keeps it.
POINT = point("p1", 3, 30, 20, new=False)


def submit(
    backend: Backend, task: dict, result: list[dict], number: int = 7, action: str = "ANNOTATION_CREATED", **more
):
    send(backend, action, annotation={"id": number, "task": task["id"], "result": [*result, POINT], **more})


def counted(backend: Backend, annotations: int = 1) -> dict[str, tuple[int, int, int, int]]:
    """Version -> (accepted, fixed, rejected, drawn), once that many are counted."""
    deadline = time.monotonic() + 5
    while True:
        rows = backend.client.get("/status.json").json["outcomes"]
        if sum(r["annotations"] for r in rows if r["version"] == VERSION) == annotations or time.monotonic() > deadline:
            return {r["version"]: (r["accepted"], r["fixed"], r["rejected"], r["drawn"]) for r in rows}
        time.sleep(0.02)


def settle(backend: Backend) -> None:
    """Wait for the work behind events."""
    for future in [backend.service._workers.submit(int) for _ in range(4)]:
        future.result(5)
    time.sleep(0.05)


def clicked(backend: Backend) -> tuple[dict, list[dict]]:
    """A task, and the masks that a click has brought to its 12 frames."""
    task = backend.uploaded()
    masks = masks_of(backend.click(task, point("p1", 3, 30, 20)))
    assert len(masks) == 12
    return task, [masks[i] for i in sorted(masks)]


def test_masks_are_accepted_fixed_rejected_or_drawn(backend):
    task, masks = clicked(backend)
    assert {m["meta"]["version"] for m in masks} == {"1"}
    drawn = masks[0] | {"id": "mine", "origin": "manual", "meta": {}}
    changed = masks[1] | {"origin": "prediction-changed"}
    submit(backend, task, [drawn, changed, *masks[2:10]])
    assert counted(backend) == {VERSION: (8, 1, 3, 0), "": (0, 0, 0, 1)}


def test_what_came_to_somebody_elses_page_is_not_rejected_here(backend):
    task, masks = clicked(backend)
    send(backend, "ANNOTATION_CREATED", annotation={"id": 7, "task": task["id"], "result": masks[:2]})
    assert counted(backend) == {VERSION: (2, 0, 0, 0)}


def test_a_later_save_replaces_what_was_counted(backend):
    task, masks = clicked(backend)
    submit(backend, task, masks)
    assert counted(backend) == {VERSION: (12, 0, 0, 0)}
    submit(backend, task, masks[:6], action="ANNOTATION_UPDATED")
    settle(backend)
    assert counted(backend) == {VERSION: (6, 0, 6, 0)}
    submit(backend, task, masks, number=8)
    settle(backend)
    assert counted(backend, 2) == {VERSION: (18, 0, 6, 0)}


def test_deleted_and_skipped_annotations_do_not_count(backend):
    task, masks = clicked(backend)
    submit(backend, task, masks)
    submit(backend, task, masks, number=8)
    assert counted(backend, 2) == {VERSION: (24, 0, 0, 0)}
    send(backend, "ANNOTATIONS_DELETED", annotations=[{"id": 8}])
    assert counted(backend) == {VERSION: (12, 0, 0, 0)}
    submit(backend, task, masks, action="ANNOTATION_UPDATED", was_cancelled=True)
    settle(backend)
    assert counted(backend, 0) == {}


def test_a_deleted_task_takes_its_counts_along(backend):
    task, masks = clicked(backend)
    submit(backend, task, masks)
    assert counted(backend)
    send(backend, "TASKS_DELETED", tasks=[{"id": task["id"]}])
    assert counted(backend, 0) == {}


def test_counts_survive_a_restart(backend, tmp_path, label_studio):
    task, masks = clicked(backend)
    submit(backend, task, masks)
    before = counted(backend)
    backend.service.close()
    assert counted(Backend(tmp_path / "data", label_studio)) == before


def test_predictions_count_by_their_own_version(backend):
    masks = clicked(backend)[1]
    config = parse_label_config(backend.config)
    old = [m | {"meta": {"engine": "embedded", "version": "3"}} for m in masks[:2]]
    offered = offered_in({"result": old + masks[2:]}, config)
    assert judge(masks[1:], offered, config) == {VERSION: Outcome(accepted=11), "embedded 3": Outcome(rejected=1)}
    bare = [{k: v for k, v in masks[0].items() if k != "meta"}]
    assert judge(bare, {}, config) == {"unknown": Outcome(accepted=1)}
