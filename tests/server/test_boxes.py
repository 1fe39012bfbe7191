"""Boxes in, masks out: alone, and together with points of the same object."""

import copy
import threading
import time

import numpy as np
import pytest

from tam_backend.labelstudio.config import EXAMPLE
from tam_backend.labelstudio.requests import decode_region_mask
from tam_backend.sessions.unsaved import UnsavedPrompts
from tests.server.conftest import LABELS, Backend, masks_of, point, regions_of

BOXES = EXAMPLE.replace('name="box" toName="image" smart="false"', 'name="box" toName="image" smart="true"')


@pytest.fixture
def backend(tmp_path, label_studio):
    backend = Backend(tmp_path / "data", label_studio, BOXES)
    yield backend
    backend.service.close()


def box(id: str, frame: int, left: float, top: float, right: float, bottom: float, *, new=True, label=LABELS[0]):
    """A box in pixels of the 64x48 test video as Label Studio sends it: drawn just now, or echoed before."""
    value = {"x": left / 0.64, "y": top / 0.48, "width": (right - left) / 0.64, "height": (bottom - top) / 0.48}
    region = {
        "id": id, "from_name": "box", "to_name": "image", "type": "rectanglelabels", "origin": "manual",
        "item_index": frame, "original_width": 64, "original_height": 48, "image_rotation": 0,
        "value": value | {"rotation": 0, "rectanglelabels": [label]},
    }  # fmt: skip
    return region if new else region | {"meta": {"object": label, "text": ["around the object"]}}


def draft(*regions: dict, id: int = 3, updated: str = "2026-11-22T10:00:00Z") -> list[dict]:
    return [{"id": id, "result": copy.deepcopy(list(regions)), "updated_at": updated}]


def decoded(region: dict) -> np.ndarray:
    return decode_region_mask(region, 48, 64)


def prompts_of(answer) -> list[str]:
    return [r["id"] for r in regions_of(answer) if r["type"] in ("keypointlabels", "rectanglelabels")]


def test_a_box_gives_masks_on_all_frames_and_stays(backend):
    task = backend.uploaded()
    answer = backend.click(task, box("b1", 4, 10, 12, 30, 40))
    masks = masks_of(answer)
    assert set(masks) == set(range(12))
    expected = np.zeros((48, 64), bool)
    expected[12:40, 10:30] = True
    for region in masks.values():
        np.testing.assert_array_equal(decoded(region), expected)
    [echo] = [r for r in regions_of(answer) if r["type"] == "rectanglelabels"]
    assert echo == box("b1", 4, 10, 12, 30, 40, new=False)


def test_a_point_joins_the_box_of_the_draft(backend):
    task = backend.uploaded()
    first = masks_of(backend.click(task, box("b1", 4, 10, 12, 30, 40)))
    saved = draft(box("b1", 4, 10, 12, 30, 40, new=False), *first.values())
    answer = backend.click(task, point("p1", 4, 12, 14, positive=False), drafts=saved)
    assert prompts_of(answer) == ["p1"]
    both = decoded(masks_of(answer)[4])
    assert both[38, 28]
    assert not both[14, 12]
    assert set(masks_of(answer)) == set(range(12))


def test_a_box_joins_the_points_of_the_draft(backend):
    task = backend.uploaded()
    p1 = point("p1", 4, 8, 8)
    first = masks_of(backend.click(task, p1))
    saved = draft(point("p1", 4, 8, 8, new=False), *first.values())
    answer = backend.click(task, box("b1", 4, 30, 20, 50, 40), drafts=saved)
    mask = decoded(masks_of(answer)[4])
    assert mask[39, 49]
    assert mask[8, 8]
    assert prompts_of(answer) == ["b1"]


def test_a_box_on_another_frame_is_an_anchor_of_its_own(backend):
    task = backend.uploaded()
    first = masks_of(backend.click(task, point("p1", 2, 8, 8)))
    saved = draft(point("p1", 2, 8, 8, new=False), *first.values())
    masks = masks_of(backend.click(task, box("b1", 9, 30, 20, 50, 40), drafts=saved))
    assert set(masks) == {6, 7, 8, 9, 10, 11}  # nearer to the box
    assert all(decoded(m)[39, 49] and not decoded(m)[8, 8] for m in masks.values())


def test_a_deleted_box_does_not_count_any_more(backend):
    task = backend.uploaded()
    backend.click(task, box("b1", 4, 10, 12, 30, 40))
    old = point("p1", 9, 50, 40, new=False)
    answer = backend.click(task, old, point("p2", 9, 52, 40), drafts=draft(old))
    assert not any(decoded(m)[14, 12] for m in masks_of(answer).values())


@pytest.mark.parametrize("order", ["box first", "point first"])
def test_prompts_made_before_the_page_has_saved_are_waited_for(backend, label_studio, order):
    """The page saves up to 5 s after a change, and sends points or boxes, not both."""
    task = backend.uploaded()
    backend.autosave = False
    one, two = box("b1", 4, 10, 12, 30, 40), point("p1", 4, 50, 10)
    if order == "point first":
        one, two = two, one
    backend.click(task, one)

    def save():
        time.sleep(0.3)
        label_studio.drafts = draft(one, two)  # the first answer has not reached the page: both are waiting

    thread = threading.Thread(target=save)
    thread.start()
    answer = backend.click(task, two)
    thread.join()
    assert sorted(prompts_of(answer)) == ["b1", "p1"]
    for mask in masks_of(answer).values():
        assert decoded(mask)[38, 28]
        assert decoded(mask)[10, 50]


def test_what_was_deleted_before_the_page_has_saved_stays_deleted(backend, label_studio):
    task = backend.uploaded()
    backend.autosave = False
    backend.click(task, box("b1", 4, 10, 12, 30, 40))
    label_studio.drafts = draft(point("p1", 4, 50, 10))
    answer = backend.click(task, point("p1", 4, 50, 10))
    assert prompts_of(answer) == ["p1"]
    assert not any(decoded(m)[38, 28] for m in masks_of(answer).values())


def test_a_draft_that_never_comes_costs_the_other_prompts_only(backend, monkeypatch):
    monkeypatch.setattr("tam_backend.labelstudio.drafts.SAVED_WITHIN", 0.3)
    task = backend.uploaded()
    backend.autosave = False
    backend.click(task, box("b1", 4, 10, 12, 30, 40))
    answer = backend.click(task, point("p1", 4, 50, 10))
    assert prompts_of(answer) == ["p1"]
    assert decoded(masks_of(answer)[4])[10, 50]


@pytest.mark.parametrize("arrived", [False, True])
def test_a_box_whose_answer_has_not_reached_the_page_is_answered_again(backend, label_studio, arrived):
    """The page drops the answer, and the box, when a click on another object was sent meanwhile."""
    task = backend.uploaded()
    backend.click(task, box("b1", 4, 10, 12, 30, 40))
    other = point("q1", 4, 50, 10, label=LABELS[1])
    backend.autosave = False
    label_studio.drafts = draft(box("b1", 4, 10, 12, 30, 40, new=not arrived), other)
    answer = backend.click(task, other)
    assert prompts_of(answer) == (["q1"] if arrived else ["q1", "b1"])
    labels = {r["value"][r["type"]][0] for r in regions_of(answer)}
    assert labels == ({LABELS[1]} if arrived else set(LABELS))


def test_saved_prompts_are_not_waited_for():
    unsaved = UnsavedPrompts()
    assert not unsaved.note("a", "boxes", "@")
    assert not unsaved.note("a", "boxes", "@")
    assert not unsaved.note("b", "points", "@")  # another object
    assert not unsaved.note("a", "points", "draft:1@later")  # a draft was saved since
    assert unsaved.note("a", "points", "@")
    assert unsaved.note("a", "boxes", "@")
    for i in range(2000):
        unsaved.note(i, "boxes", "@")
    assert not unsaved.note("a", "points", "@")  # too long ago
    assert unsaved.note(1999, "points", "@")


def test_another_persons_box_is_not_mine(backend, label_studio):
    task = backend.uploaded()
    anna = masks_of(backend.click(task, box("b1", 4, 10, 12, 30, 40)))  # its draft is Anna's
    ben = backend.click(task, point("p1", 4, 50, 10))
    assert prompts_of(ben) == ["p1"]
    assert not any(decoded(m)[38, 28] for m in masks_of(ben).values())
    assert decoded(anna[4])[38, 28]


@pytest.mark.parametrize(
    ("region", "says"),
    [
        (box("b1", 12, 10, 12, 30, 40), "item_index is 12"),
        (box("b1", 4, 10, 12, 30, 40, label="Cat"), "unknown label 'Cat'"),
        (box("b1", 4, 70, 12, 90, 40), "covers nothing"),
        (box("b1", 4, 10, 12, 30, 40) | {"original_width": 128}, "64x48"),
        (box("b1", 4, 10, 12, 30, 40) | {"image_rotation": 90}, "upright"),
        (box("b1", 4, 10, 12, 30, 40) | {"from_name": "nope"}, "no keypoints or boxes"),
    ],
)
def test_bad_boxes_get_a_sentence(backend, region, says):
    answer = backend.click(backend.uploaded(), region)
    assert answer.status_code == 400
    assert says in answer.json["error"]
    assert set(answer.json) == {"error"}


def test_a_drawing_of_the_other_mask_tag_is_not_replaced(tmp_path, label_studio):
    """BrushLabels became BitmaskLabels under an open task: the drawing has the id that our new mask would have."""
    before = Backend(tmp_path / "data", label_studio)
    task = before.uploaded()
    masks = masks_of(before.click(task, point("p1", 4, 20, 24)))
    fixed = masks[7] | {"origin": "prediction-changed"}
    before.service.close()
    after = Backend(tmp_path / "data", label_studio, EXAMPLE.replace("BrushLabels", "BitmaskLabels"))
    old = point("p1", 4, 20, 24, new=False)
    answer = masks_of(
        after.click(
            task, old, point("p2", 9, 40, 24), drafts=draft(old, fixed, *[m for f, m in masks.items() if f != 7])
        )
    )
    after.service.close()
    assert masks[8]["id"] == answer[8]["id"]
    assert 7 not in answer
    np.testing.assert_array_equal(decoded(answer[6]), decoded(fixed))  # it is an anchor


def test_an_old_point_of_a_label_that_is_gone_is_not_in_the_way(backend):
    task = backend.uploaded()
    gone = point("p0", 4, 20, 24, new=False, label="Gone")
    answer = backend.click(task, gone, point("p1", 4, 20, 24))
    assert set(masks_of(answer)) == set(range(12))
    assert prompts_of(answer) == ["p1"]
