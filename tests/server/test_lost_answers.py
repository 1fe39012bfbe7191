"""What a person asked for is answered, whatever became of earlier answers; found by the random lives in test_life."""

from __future__ import annotations

import numpy as np

from tests.server.conftest import LABELS, Backend, masks_of, point, regions_of
from tests.server.test_background import draft, leave, quick, tracked
from tests.server.test_two_people import FRAMES, drawn, first_click, mask


def ids(answer):
    return {r["id"] for r in answer}


def test_a_point_whose_answer_a_restart_lost_comes_with_the_next_click_on_another_object(backend, label_studio):
    """The page drops a waiting point that an answer does not hold."""
    backend.autosave = False
    task = backend.uploaded(FRAMES)
    one, two = point("p1", 5, 20, 24), point("q1", 5, 40, 24, label=LABELS[1])
    backend.click(task, one)
    backend.service.close()
    again = Backend(backend.settings.data_dir, label_studio)
    again.autosave = False
    again.connect()
    label_studio.drafts = [draft(one, two)]
    answer = regions_of(again.click(task, two, drafts=[draft(one)]))
    assert {"p1", "q1"} <= ids(answer)
    masks = [r for r in answer if r["type"] == "brushlabels"]
    assert sum(r["meta"]["object"] == LABELS[0] for r in masks) == FRAMES


def test_all_points_of_several_lost_answers_come_back(backend, label_studio):
    backend.autosave = False
    task = backend.uploaded(FRAMES)
    one, two, other = point("p1", 5, 20, 24), point("p2", 8, 20, 24), point("q1", 5, 40, 24, label=LABELS[1])
    label_studio.drafts = [draft(one, two, other)]
    backend.click(task, one, drafts=[draft()])
    backend.click(task, one, two, drafts=[draft(one)])
    assert {"p1", "p2", "q1"} <= ids(regions_of(backend.click(task, other, drafts=[draft(one, two)])))


def test_a_mask_by_hand_saved_since_counts_for_what_was_left_behind(backend, label_studio):
    """The first answer was lost; then a mask was drawn on frame 6, and another object was clicked."""
    backend.autosave = False
    task = backend.uploaded(FRAMES)
    one, two = point("p1", 5, 20, 24), point("q1", 5, 40, 24, label=LABELS[1])
    backend.click(task, one)
    hand = drawn(6)
    label_studio.drafts = [draft(one, hand, two)]
    answer = regions_of(backend.click(task, two, drafts=[draft(one, hand)]))
    mine = {r["item_index"]: r for r in answer if r["type"] == "brushlabels" and r["meta"]["object"] == LABELS[0]}
    assert 6 not in mine
    assert np.array_equal(mask(mine[FRAMES - 1]), mask(hand))


def test_a_click_where_a_mask_was_deleted_begins_anew(backend, label_studio):
    task, p1, masks = first_click(backend)
    left = [m for f, m in masks.items() if f != 8]
    p2 = point("p2", 8, 50, 24)
    label_studio.drafts = [draft(p1, p2, *left)]
    answer = masks_of(backend.click(task, p1, p2, drafts=[draft(p1, *left)]))
    assert mask(answer[8])[24, 50]
    assert not mask(answer[8])[24, 20]  # that was in the mask that the person took away


def test_a_click_on_a_frame_that_shows_nothing_yet_begins_anew(backend, label_studio):
    """What was finished behind the first answer was never on the page."""
    quick(backend)
    backend.autosave = False
    task = backend.uploaded(FRAMES)
    p1, p2 = point("p1", 2, 20, 24), point("p2", 9, 50, 24)
    first = masks_of(backend.click(task, p1))
    assert 9 not in first
    tracked(backend)
    label_studio.drafts = [draft(p1, p2)]
    answer = masks_of(backend.click(task, p1, p2, drafts=[draft(p1)]))
    assert not mask(answer[9])[24, 20]


def test_an_object_that_was_removed_begins_anew(backend, label_studio):
    """Its masks came in one delivery with another object's, which still shows that the delivery arrived."""
    backend.autosave = False
    task = backend.uploaded(FRAMES)
    one, two = point("p1", 5, 20, 24), point("q1", 5, 40, 24, label=LABELS[1])
    quick(backend)
    label_studio.drafts = [draft(one, two)]
    backend.click(task, one)
    backend.click(task, two)
    tracked(backend)
    leave(backend)
    backend.batch(task)
    delivered = label_studio.drafts[0]["result"]
    assert sum(r["type"] == "brushlabels" for r in delivered) == 2 * FRAMES
    other = [r for r in delivered if r.get("meta", {}).get("object") == LABELS[1]]
    again = point("p2", 2, 20, 24)
    label_studio.drafts = [draft(again, *other)]
    backend.service._clicks._answer_seconds = 60.0
    assert len(masks_of(backend.click(task, again, drafts=[draft(*other)]))) == FRAMES
