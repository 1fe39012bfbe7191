"""Every row of the table "Two people, one task" in docs/how-it-works.md."""

from __future__ import annotations

import time

import numpy as np

from tam_backend.labelstudio.config import EXAMPLE, parse_label_config
from tam_backend.labelstudio.regions import mask_region
from tam_backend.labelstudio.requests import decode_region_mask
from tam_backend.sessions.progress import JobState
from tests.server.conftest import LABELS, Backend, masks_of, point, regions_of
from tests.server.test_background import accepted, draft, leave, quick, tracked, until

FRAMES = 12


def mask(region):
    return decode_region_mask(region, 48, 64)


def drawn(frame: int, label: str = LABELS[0], origin: str = "manual", id: str | None = None, config: str = EXAMPLE):
    pixels = np.zeros((48, 64), bool)
    pixels[30:40, 30:50] = True
    control = parse_label_config(config).masks[0]
    region = mask_region(control, label, frame, pixels, 1.0, {})
    return region | {"origin": origin, "id": id or f"hand{frame}"}


def first_click(backend: Backend, id: str = "p1", frame: int = 5):
    """One click and its answer on the page: (task, point, masks by frame)."""
    backend.autosave = False
    task = backend.uploaded(FRAMES)
    clicked = point(id, frame, 20, 24)
    answer = backend.click(task, clicked)
    assert len(masks_of(answer)) == FRAMES
    backend.arrived()
    return task, accepted(clicked)[0], masks_of(answer)


def test_two_people_do_not_mix(backend, label_studio):
    """Row 1: each gets masks from their own prompts only; neither one's job stops the other's."""
    backend.autosave = False
    quick(backend)
    task = backend.uploaded(FRAMES)
    backend.engine.propagator.before_step = lambda _: time.sleep(0.01)
    mine, theirs = point("a1", 2, 10, 10), point("b1", 9, 50, 40)
    one = masks_of(backend.click(task, mine, drafts=[]))
    two = masks_of(backend.click(task, theirs, drafts=[]))
    jobs = tracked(backend)
    assert len(jobs) == 2
    label_studio.drafts = [
        draft(*accepted(mine), *one.values(), id=1),
        draft(*accepted(theirs), *two.values(), id=2),
    ]
    leave(backend)
    backend.batch(task)
    for saved, (x, y), (ox, oy) in zip(label_studio.drafts, [(10, 10), (50, 40)], [(50, 40), (10, 10)], strict=True):
        masks = [mask(r) for r in saved["result"] if r["type"] == "brushlabels"]
        assert len(masks) == FRAMES
        assert all(m[y, x] and not m[oy, ox] for m in masks)


def test_a_second_tab_respects_what_the_first_one_saved(backend, label_studio):
    """Row 2: the draft is the newest the server knows; masks by hand in it stay, whichever tab asks."""
    task, p1, masks = first_click(backend)
    hand = drawn(8)
    saved = draft(p1, hand, *[m for f, m in masks.items() if f != 8])
    p2 = point("p2", 2, 40, 24)
    label_studio.drafts = [draft(p1, p2, hand, *[m for f, m in masks.items() if f != 8])]
    answer = masks_of(backend.click(task, p2, drafts=[saved]))  # the tab was opened before p1 was there
    assert 2 in answer
    assert 8 not in answer


def test_a_deleted_point_counts_no_more(backend, label_studio):
    """Row 3: what is not in the request is not a prompt. (The mask on the clicked frame is what a click changes.)"""
    task, p1, masks = first_click(backend)
    p2 = point("p2", 2, 40, 24)
    label_studio.drafts = [draft(p2, *masks.values())]
    answer = masks_of(backend.click(task, p2, drafts=[draft(p1, *masks.values())]))
    assert len(answer) == FRAMES
    assert all(mask(region)[24, 40] for region in answer.values())
    newest = backend.service._tracks.of_task(label_studio.url, task["id"])[0]
    assert sorted(newest.anchors) == [2]


def test_what_a_deleted_point_computed_is_not_delivered_later(backend, label_studio):
    """Row 3, in the background: the draft without the point gets nothing of it."""
    quick(backend)
    backend.autosave = False
    task = backend.uploaded(FRAMES)
    backend.click(task, point("p1", 5, 20, 24))
    tracked(backend)
    label_studio.drafts = [draft(*accepted(point("p9", 5, 60, 40)))]
    leave(backend)
    backend.batch(task)
    assert [r["id"] for r in label_studio.drafts[0]["result"]] == ["p9"]


def test_a_deleted_mask_means_not_here(backend, label_studio):
    """Row 4: neither the next click nor a delivery brings it back; a click on that very frame does."""
    task, p1, masks = first_click(backend)
    gone = {3, 4}
    left = [m for f, m in masks.items() if f not in gone]
    saved = draft(p1, *left)
    p2 = point("p2", 10, 40, 24)
    label_studio.drafts = [draft(p1, p2, *left)]
    answer = masks_of(backend.click(task, p1, p2, drafts=[saved]))
    assert 10 in answer
    assert not gone & answer.keys()
    backend.arrived()
    label_studio.drafts = [draft(p1, *accepted(p2), *left)]
    leave(backend)
    tracked(backend)
    backend.batch(task)
    shown = {r["item_index"] for r in label_studio.drafts[0]["result"] if r["type"] == "brushlabels"}
    assert shown == set(range(FRAMES)) - gone
    p3 = point("p3", 3, 20, 24)
    points = [p1, *accepted(p2)]
    saved = label_studio.drafts[0]
    label_studio.drafts = [draft(*points, p3, *saved["result"])]
    answer = masks_of(backend.click(task, *points, p3, drafts=[saved]))
    assert 3 in answer
    assert 4 not in answer


def test_a_mask_deleted_just_before_a_click_stays_deleted(backend, label_studio):
    """Row 4: the request's draft still has it; the one saved after the click has not."""
    task, p1, masks = first_click(backend)
    p2 = point("p2", 10, 40, 24)
    label_studio.drafts = [draft(p1, p2, *[m for f, m in masks.items() if f != 9])]
    answer = masks_of(backend.click(task, p1, p2, drafts=[draft(p1, *masks.values())]))
    assert 8 in answer
    assert 9 not in answer


def test_masks_that_never_arrived_are_sent_again(backend, label_studio):
    """Row 4, its limit: a point that is still waiting shows that the page dropped the answer."""
    backend.autosave = False
    task = backend.uploaded(FRAMES)
    p1 = point("p1", 5, 20, 24)
    backend.click(task, p1)
    backend.arrived()
    label_studio.drafts = [draft(p1)]
    assert len(masks_of(backend.click(task, p1, drafts=[draft(p1)]))) == FRAMES


def test_undo_and_redo(backend, label_studio):
    """Row 5: undo takes point and masks off the page; redo brings them back. Nothing is computed again."""
    task, p1, masks = first_click(backend)
    steps = len(backend.engine.propagator.steps)
    p2 = point("p2", 5, 20, 24)  # undone, then clicked once more at the same place
    label_studio.drafts = [draft(p2)]
    again = masks_of(backend.click(task, p2, drafts=[draft()]))
    assert {f: r["value"] for f, r in again.items()} == {f: r["value"] for f, r in masks.items()}
    assert len(backend.engine.propagator.steps) == steps
    backend.arrived()
    # Undo after a deletion, and redo: the masks are back in the draft, so they are not "deleted" any more.
    p3 = point("p3", 10, 40, 24)
    label_studio.drafts = [draft(p1, p3, *masks.values())]
    answer = masks_of(backend.click(task, p1, p3, drafts=[draft(p1, *masks.values())]))
    assert {8, 9, 10, 11} <= answer.keys()


def test_a_task_deleted_under_a_running_job(backend, label_studio):
    """Row 6: the event stops the job; without the event, delivering finds out."""
    quick(backend)
    backend.autosave = False
    task = backend.uploaded(60)
    backend.engine.propagator.before_step = lambda _: time.sleep(0.02)
    backend.click(task, point("p1", 5, 20, 24))
    until(lambda: len(backend.engine.propagator.steps) > 3)
    event = {"action": "TASKS_DELETED", "project": {"id": 1}, "tasks": [{"id": task["id"]}]}
    assert backend.client.post("/webhook", json=event).status_code == 200
    steps = len(backend.engine.propagator.steps)
    until(lambda: not backend.service.jobs.running)
    assert len(backend.engine.propagator.steps) <= steps + 1
    assert not backend.service._tracks.of_task(label_studio.url, task["id"])
    backend.engine.propagator.before_step = lambda _: None
    backend.click(task, point("p2", 5, 40, 24))
    del label_studio.tasks[task["id"]]
    until(lambda: not backend.service.jobs.views())
    assert not label_studio.predictions


def test_a_label_removed_under_a_running_job(backend, label_studio):
    """Row 7: the job stops and says why; the other label's goes on."""
    quick(backend)
    backend.autosave = False
    task = backend.uploaded(60)
    backend.engine.propagator.before_step = lambda _: time.sleep(0.05)
    backend.click(task, point("p1", 5, 20, 24))
    backend.click(task, point("q1", 5, 40, 24, label=LABELS[1]))
    config = EXAMPLE.replace(f'<Label value="{LABELS[0]}" background="#FFA39E"/>', "").replace(
        f'<Label value="{LABELS[0]}" background="#FF0000"/>', ""
    )
    event = {"action": "PROJECT_UPDATED", "project": {"id": 1, "label_config": config}}
    assert backend.client.post("/webhook", json=event).status_code == 200
    jobs = {v.label: v for v in tracked(backend)}
    assert jobs[LABELS[0]].state is JobState.STOPPED
    assert "label" in jobs[LABELS[0]].error
    assert jobs[LABELS[1]].frames_done == 60


def test_a_label_removed_without_an_event(backend, label_studio):
    """Row 7: delivering reads the configuration as it is."""
    quick(backend)
    backend.autosave = False
    task = backend.uploaded(FRAMES)
    label_studio.label_config = EXAMPLE.replace('value="Object 1"', 'value="Something else"')
    backend.click(task, point("p1", 5, 20, 24))
    [job] = until(lambda: [v for v in backend.service.jobs.views() if v.state is JobState.STOPPED])
    assert "'Object 1'" in job.error
    assert not label_studio.predictions


def test_another_mask_tag_under_an_open_task(tmp_path, label_studio):
    """Row 8: brush became bitmask. What a person changed under our id is theirs, whatever its type."""
    backend = Backend(tmp_path / "data", label_studio)
    try:
        task, p1, masks = first_click(backend)
        changed = masks[8] | {"origin": "prediction-changed"}
        saved = draft(p1, changed, *[m for f, m in masks.items() if f != 8])
        backend.config = EXAMPLE.replace("BrushLabels", "BitmaskLabels")
        p2 = point("p2", 10, 40, 24)
        label_studio.drafts = [draft(p1, p2, *saved["result"])]
        answer = regions_of(backend.click(task, p1, p2, drafts=[saved]))
        masks = {r["item_index"]: r for r in answer if r["type"] == "bitmasklabels"}
        assert 10 in masks
        assert 8 not in masks
    finally:
        backend.service.close()
