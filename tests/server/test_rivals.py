"""No pixel belongs to two objects: the surer one has it, and what a person drew or clicked on a frame counts most."""

from __future__ import annotations

import itertools

import numpy as np

from tam_backend.labelstudio import delivery
from tests.server.conftest import LABELS, masks_of, point, regions_of
from tests.server.test_background import accepted, draft, leave, quick, tracked, until
from tests.server.test_two_people import FRAMES, drawn, mask


def by_label(regions):
    """(label, frame) -> pixels, of the masks among some regions."""
    return {(r["value"]["brushlabels"][0], r["item_index"]): mask(r) for r in regions if r["type"] == "brushlabels"}


def shared(masks) -> int:
    """Pixels that two labels have on one frame."""
    frames = {f for _, f in masks}
    return sum(
        int(np.count_nonzero(masks[a, f] & masks[b, f]))
        for f in frames
        for a, b in itertools.combinations([label for label, frame in masks if frame == f], 2)
    )


def both_clicked(backend, label_studio):
    """Two overlapping discs, clicked on frame 5, the second label last: (task, points, the page's regions)."""
    backend.autosave = False
    task = backend.uploaded(FRAMES)
    one, two = point("p1", 5, 20, 24), point("q1", 5, 28, 24, label=LABELS[1])
    label_studio.drafts = [draft(one)]
    page = {r["id"]: r for r in regions_of(backend.click(task, one, drafts=[draft()]))}
    backend.arrived()
    label_studio.drafts = [draft(*page.values(), two)]
    page |= {r["id"]: r for r in regions_of(backend.click(task, two, drafts=[draft(*page.values())]))}
    backend.arrived()
    return task, accepted(one, two), page


def test_two_clicked_objects_never_share_a_pixel(backend, label_studio):
    _, _, page = both_clicked(backend, label_studio)
    masks = by_label(page.values())
    assert len(masks) == 2 * FRAMES
    assert shared(masks) == 0
    assert masks[LABELS[1], 5][24, 22], "who was clicked last on a frame has what both want there"
    assert not masks[LABELS[0], 5][24, 22]
    assert masks[LABELS[0], 5][24, 14]
    assert masks[LABELS[0], 9][24, 26], "elsewhere both are equally sure: the first label has it"


def test_a_mask_by_hand_of_an_object_without_clicks_is_left_free(backend, label_studio):
    backend.autosave = False
    task = backend.uploaded(FRAMES)
    hand, clicked = drawn(7, label=LABELS[1]), point("p1", 5, 34, 30)
    label_studio.drafts = [draft(hand, clicked)]
    masks = masks_of(backend.click(task, clicked, drafts=[draft(hand)]))
    assert (mask(masks[6]) & mask(hand)).any()
    assert not (mask(masks[7]) & mask(hand)).any()


def test_without_a_saved_draft_the_other_object_is_put_right_later_and_nobody_waits(backend, label_studio):
    """What the page shows of another object may just have been fixed by hand. It loses pixels when that is known."""
    backend.autosave = False
    task = backend.uploaded(FRAMES)
    one, two = point("p1", 5, 20, 24), point("q1", 5, 28, 24, label=LABELS[1])
    label_studio.drafts = [draft(one)]
    first = masks_of(backend.click(task, one, drafts=[draft()]))
    backend.arrived()
    before = draft(*accepted(one), *first.values())
    label_studio.drafts = [before]
    answer = regions_of(backend.click(task, two, drafts=[before]))
    assert {label for label, _ in by_label(answer)} == {LABELS[1]}
    backend.arrived()
    label_studio.drafts = [draft(*accepted(one), *first.values(), *answer)]
    assert shared(by_label(label_studio.drafts[0]["result"])) > 0
    tracked(backend)
    leave(backend)
    backend.batch(task)
    masks = by_label(label_studio.drafts[0]["result"])
    assert len(masks) == 2 * FRAMES
    assert shared(masks) == 0


def test_predictions_do_not_overlap(backend, label_studio, monkeypatch):
    quick(backend)
    monkeypatch.setattr(delivery, "LEFT_ALONE", 0.0)
    backend.autosave = False
    task = backend.uploaded(FRAMES)
    backend.click(task, point("p1", 5, 20, 24))
    backend.click(task, point("q1", 5, 28, 24, label=LABELS[1]))
    until(lambda: not backend.service.jobs.running and len(label_studio.predictions) == 1)
    prediction = label_studio.predictions[500]
    until(lambda: len(by_label(prediction["result"])) == 2 * FRAMES)
    assert shared(by_label(prediction["result"])) == 0
