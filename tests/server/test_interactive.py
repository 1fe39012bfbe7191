"""Clicks in, masks out: what an annotator's page gets."""

import copy
import threading
import time

import numpy as np
import pytest

from tam_backend.labelstudio.config import EXAMPLE, parse_label_config
from tam_backend.labelstudio.regions import mask_region
from tam_backend.labelstudio.requests import decode_region_mask
from tests.server.conftest import LABELS, Backend, masks_of, point, regions_of
from tests.tracking.fakes import steps_between

CONFIGS = {"brush": EXAMPLE, "bitmask": EXAMPLE.replace("BrushLabels", "BitmaskLabels")}


@pytest.fixture(params=CONFIGS)
def either(request, tmp_path, label_studio):
    """The backend with brush masks, then with bitmasks."""
    backend = Backend(tmp_path / "data", label_studio, CONFIGS[request.param])
    yield backend
    backend.service.close()


def saved(*regions: dict, id: int = 3, updated: str = "2026-11-22T10:00:00Z") -> list[dict]:
    return [{"id": id, "result": copy.deepcopy(list(regions)), "updated_at": updated}]


def decoded(region: dict) -> np.ndarray:
    return decode_region_mask(region, 48, 64)


def drawn(backend: Backend, frame: int, label: str = LABELS[0], origin: str = "manual") -> dict:
    """A mask that a person drew."""
    mask = np.zeros((48, 64), bool)
    mask[30:40, 30:50] = True
    control = parse_label_config(backend.config).masks[0]
    return mask_region(control, label, frame, mask, 1.0, {}) | {"origin": origin, "id": f"hand{frame}"}


def test_one_click_gives_masks_on_all_frames_nearest_first(either):
    task = either.uploaded()
    answer = either.click(task, point("p1", 4, 20, 24))
    regions = regions_of(answer)
    assert [r["item_index"] for r in regions if r["type"] != "keypointlabels"] == [4, 3, 5, 2, 6, 1, 7, 0, 8, 9, 10, 11]
    masks = masks_of(answer)
    for region in masks.values():
        assert decoded(region)[24, 20]
        assert not decoded(region)[5, 60]
        assert (region["original_width"], region["original_height"]) == (64, 48)
        assert 0 <= region["score"] <= 1
        assert region["meta"]["engine"] == "fake"
    [echo] = [r for r in regions if r["type"] == "keypointlabels"]
    assert (echo["id"], echo["meta"]["is_positive"]) == ("p1", True)


def test_clips_of_a_long_video_track_their_own_frames(tmp_path, label_studio):
    backend = Backend(tmp_path / "data", label_studio, clip_length=5)
    backend.uploaded(frames=12)
    masks = masks_of(backend.click(label_studio.tasks[2], point("p1", 1, 20, 24)))
    assert sorted(masks) == [0, 1, 2, 3, 4]
    assert [masks[i]["meta"]["frame"] for i in range(5)] == [5, 6, 7, 8, 9]
    assert set(backend.engine.propagator.steps) == {5, 7, 8, 9}


def test_masks_by_hand_are_kept_and_used(either):
    task = either.uploaded()
    by_hand = [drawn(either, 2), drawn(either, 9, origin="prediction-changed")]
    old = point("p1", 4, 10, 10, new=False)
    masks = masks_of(either.click(task, old, point("p2", 5, 12, 10), drafts=saved(old, *by_hand)))
    assert set(masks) == set(range(12)) - {2, 9}
    for frame in (0, 1, 8, 10, 11):  # nearest to a drawn frame
        np.testing.assert_array_equal(decoded(masks[frame]), decoded(by_hand[0]))
    assert decoded(masks[4])[10, 10]
    assert decoded(masks[5])[10, 12]


def test_a_click_on_a_frame_drawn_by_hand_leaves_the_drawing(backend):
    task = backend.uploaded()
    hand = drawn(backend, 4)
    answer = backend.click(task, point("p1", 4, 10, 10), drafts=saved(hand))
    assert 4 not in masks_of(answer)
    np.testing.assert_array_equal(decoded(masks_of(answer)[5]), decoded(hand))
    assert [r["id"] for r in regions_of(answer) if r["type"] == "keypointlabels"] == ["p1"]


def test_a_drawing_saved_while_we_computed_is_not_overwritten(either, label_studio):
    task = either.uploaded()
    p2 = point("p2", 5, 21, 24)
    old = point("p1", 4, 20, 24, new=False)
    label_studio.drafts = saved(old, p2, drawn(either, 7, origin="prediction-changed"), drawn(either, 8, LABELS[1]))
    assert set(masks_of(either.click(task, old, p2))) == set(range(12)) - {7}


def test_frames_shown_before_wait_for_a_draft_that_says_they_are_untouched(either, monkeypatch):
    monkeypatch.setattr("tam_backend.labelstudio.drafts.SAVED_WITHIN", 0.3)
    task = either.uploaded()
    first = masks_of(either.click(task, point("p1", 4, 20, 24)))
    assert len(first) == 12
    either.autosave = False  # as when a person pages on within some seconds
    old = point("p1", 4, 20, 24, new=False)
    assert set(masks_of(either.click(task, old, point("p2", 9, 30, 24)))) == {9}
    either.autosave = True
    older = [old, point("p2", 9, 30, 24, new=False)]
    answer = masks_of(either.click(task, *older, point("p3", 9, 31, 24), drafts=saved(*older, *first.values())))
    assert set(answer) >= {8, 9, 10, 11}


def test_a_mask_that_is_gone_is_taken_off_the_page(either):
    task = either.uploaded()
    p1 = point("p1", 4, 20, 24)
    first = masks_of(either.click(task, p1))
    old = point("p1", 4, 20, 24, new=False)
    nothing = drawn(either, 10) | {"origin": "prediction-changed"}
    nothing["value"] = mask_region(
        parse_label_config(either.config).masks[0], LABELS[0], 10, np.zeros((48, 64), bool), 1.0, {}
    )["value"]
    draft = saved(old, *(m for i, m in first.items() if i not in (10, 11)), nothing)
    answer = masks_of(either.click(task, old, point("p2", 4, 21, 24), drafts=draft))
    assert 10 not in answer  # erased by hand: the person's own
    assert not decoded(answer[9]).any()  # shown, and gone
    assert answer[9]["id"] == first[9]["id"]
    assert 11 not in answer  # gone, and not shown


def test_drawings_of_another_object_do_not_count(backend):
    task = backend.uploaded()
    masks = masks_of(backend.click(task, point("p1", 4, 10, 10), drafts=saved(drawn(backend, 2, LABELS[1]))))
    assert set(masks) == set(range(12))


def test_two_objects_have_regions_of_their_own(either):
    task = either.uploaded()
    one = masks_of(either.click(task, point("p1", 4, 10, 10)))
    either.arrived()
    two = masks_of(either.click(task, point("q1", 4, 50, 30, label=LABELS[1]), drafts=saved(*one.values())))
    assert not {r["id"] for r in one.values()} & {r["id"] for r in two.values()}
    kind = one[0]["type"]
    assert {r["value"][kind][0] for r in two.values()} == {LABELS[1]}


def test_a_mask_that_a_person_gave_to_another_object_is_theirs(either):
    """The page keeps our id on it, and an answer with that id would replace it."""
    task = either.uploaded()
    first = masks_of(either.click(task, point("p1", 4, 20, 24)))
    given = copy.deepcopy(first[6]) | {"origin": "prediction-changed"}
    given["value"][given["type"]] = [LABELS[1]]
    others = [mask for frame, mask in first.items() if frame != 6]
    old = point("p1", 4, 20, 24, new=False)
    answer = masks_of(either.click(task, old, point("p2", 5, 30, 24), drafts=saved(old, given, *others)))
    assert answer[6]["id"] not in {m["id"] for m in first.values()}
    assert answer[7]["id"] == first[7]["id"]
    again = masks_of(either.click(task, old, point("p3", 6, 30, 24), drafts=saved(old, given, *answer.values())))
    assert again[6]["id"] == answer[6]["id"]
    either.arrived()
    other = masks_of(either.click(task, point("q1", 4, 50, 30, label=LABELS[1]), drafts=saved(old, given, *others)))
    assert 6 not in other


def test_what_the_page_shows_already_is_not_sent_again(either):
    task = either.uploaded()
    p1 = point("p1", 4, 20, 24)
    first = masks_of(either.click(task, p1))
    steps = len(either.engine.propagator.steps)
    # A click inside the mask of frame 10 confirms it: the masks, all equal, stay.
    second = either.click(
        task, point("p1", 4, 20, 24, new=False), point("p2", 10, 21, 24), drafts=saved(p1, *first.values())
    )
    assert set(masks_of(second)) == {10}  # the clicked frame, in any case: its mask may have been deleted just now
    assert [r["id"] for r in regions_of(second) if r["type"] == "keypointlabels"] == ["p2"]
    # What is beyond the two clicked frames on the side of the first is as it was: it was not computed again.
    assert sorted(either.engine.propagator.steps[steps:]) == steps_between(range(5, 12), [4, 10])


def test_negative_click_on_another_frame_takes_a_piece_away(backend):
    task = backend.uploaded()
    p1, p2 = point("p1", 4, 20, 24), point("p2", 4, 40, 24)
    backend.engine.segmenter.radius = 12.0  # two discs that touch
    first = masks_of(backend.click(task, p1, p2))
    old = [point("p1", 4, 20, 24, new=False), point("p2", 4, 40, 24, new=False)]
    answer = backend.click(task, *old, point("p3", 10, 44, 24, positive=False), drafts=saved(*old, *first.values()))
    changed = decoded(masks_of(answer)[10])
    before = decoded(first[10])
    assert before[24, 44]
    assert not changed[24, 44]
    assert changed[24, 15]
    assert not (changed & ~before).any()
    assert 1 not in masks_of(answer)  # nearest to the first clicks: as it was


def test_a_lone_negative_click_only_keeps_its_point(backend):
    task = backend.uploaded()
    answer = backend.click(task, point("p1", 4, 20, 24, positive=False))
    assert [r["id"] for r in regions_of(answer)] == ["p1"]


def test_the_rest_comes_with_the_next_click(tmp_path, label_studio):
    backend = Backend(tmp_path / "data", label_studio, answer_seconds=0.25)
    task = backend.uploaded(frames=30)
    backend.engine.propagator.before_step = lambda _: time.sleep(0.03)
    first = masks_of(backend.click(task, point("p1", 15, 20, 24)))
    assert 2 <= len(first) < 25
    assert max(abs(i - 15) for i in first) <= len(first) // 2 + 1
    old = point("p1", 15, 20, 24, new=False)
    second = masks_of(backend.click(task, old, drafts=saved(old, *first.values())))
    assert second
    assert set(first) & set(second) <= {15}  # the clicked frame is sent in any case
    steps = backend.engine.propagator.steps
    assert len(steps) == len(set(steps))  # nothing was computed twice


def test_two_people_on_one_task_do_not_mix(backend):
    task = backend.uploaded()
    anna = masks_of(backend.click(task, point("a1", 4, 20, 24)))
    ben = masks_of(backend.click(task, point("b1", 4, 45, 24)))
    again = masks_of(backend.click(task, point("a1", 4, 20, 24, new=False)))
    assert decoded(ben[0])[24, 45]
    assert not decoded(ben[0])[24, 20]
    assert again == anna


class Slow:
    """Two requests, the second one sent while the first computes."""

    def __init__(self, backend: Backend, first: tuple, second: tuple) -> None:
        entered = threading.Event()

        def slow(_: int) -> None:
            entered.set()
            time.sleep(0.05)

        backend.engine.propagator.before_step = slow
        answers = {}
        thread = threading.Thread(target=lambda: answers.update(first=backend.click(*first)))
        thread.start()
        assert entered.wait(10)
        self.started = time.monotonic()
        answers["second"] = backend.click(*second)
        thread.join()
        self.first, self.second = answers["first"], answers["second"]


def test_an_overtaken_request_returns_only_its_own_point(backend):
    task = backend.uploaded()
    both = (point("p1", 4, 20, 24), point("p2", 6, 22, 24))
    slow = Slow(backend, (task, both[0]), (task, *both))
    assert [r["id"] for r in regions_of(slow.first)] == ["p1"]
    assert len(masks_of(slow.second)) == 12


def test_another_person_does_not_overtake(backend):
    task = backend.uploaded()
    slow = Slow(backend, (task, point("p1", 4, 20, 24)), (task, point("x1", 4, 22, 24)))
    assert len(masks_of(slow.first)) == len(masks_of(slow.second)) == 12


def labels_of(response) -> set[str]:
    return {r["value"][r["type"]][0] for r in regions_of(response)}


def test_a_click_on_another_object_answers_for_both(backend, label_studio):
    """The page drops the answer to the first click, and its point with it, when a second click was sent meanwhile."""
    task = backend.uploaded()
    one, two = point("p1", 5, 20, 24), point("p2", 4, 40, 24, label=LABELS[1])
    label_studio.drafts = saved(one, two)  # saved while both were under way: one person's
    slow = Slow(backend, (task, one), (task, two))
    assert labels_of(slow.second) == set(LABELS)
    regions = regions_of(slow.second)
    assert {r["id"] for r in regions if r["type"] == "keypointlabels"} == {"p1", "p2"}
    assert len(regions) == 2 + 12 + 12


def test_a_known_draft_tells_at_once_whose_click_it_is(backend, label_studio):
    task = backend.uploaded()
    one, two = point("p1", 5, 20, 24), point("p2", 4, 40, 24, label=LABELS[1])
    old = point("p0", 5, 20, 24, new=False), point("q0", 4, 40, 24, new=False, label=LABELS[1])
    task = task | {"drafts": saved(*old)}
    label_studio.drafts = saved(*old, one, two)
    slow = Slow(backend, (task, old[0], one), (task, old[1], two))
    assert labels_of(slow.second) == set(LABELS)


def test_an_answer_that_has_not_reached_the_page_is_given_again(backend):
    task = backend.uploaded()
    one, two = point("p1", 5, 20, 24), point("p2", 4, 40, 24, label=LABELS[1])
    backend.click(task, one)
    backend.autosave = False
    backend.label_studio.drafts = saved(one, two)
    assert labels_of(backend.click(task, two)) == set(LABELS)


def test_an_answer_that_has_reached_the_page_is_not_given_again(backend):
    task = backend.uploaded()
    one, two = point("p1", 5, 20, 24), point("p2", 4, 40, 24, label=LABELS[1])
    backend.click(task, one)
    backend.autosave = False
    backend.label_studio.drafts = saved(point("p1", 5, 20, 24, new=False), two)  # as the answer brought it back
    assert labels_of(backend.click(task, two)) == {LABELS[1]}


@pytest.mark.parametrize("evidence", ["two drafts", "no draft"])
def test_another_persons_click_on_another_object_is_left_alone(backend, label_studio, monkeypatch, evidence):
    monkeypatch.setattr("tam_backend.labelstudio.drafts.SAVED_WITHIN", 0.3)
    task = backend.uploaded()
    one, two = point("p1", 5, 20, 24), point("p2", 4, 40, 24, label=LABELS[1])
    backend.autosave = False
    if evidence == "two drafts":
        label_studio.drafts = saved(one, id=1) + saved(two, id=2)
    slow = Slow(backend, (task, one), (task, two))
    assert labels_of(slow.first) == {LABELS[0]}
    assert labels_of(slow.second) == {LABELS[1]}
    assert len(masks_of(slow.first)) == 12


def test_labels_that_the_editor_mixed_up_are_healed(either):
    task = either.uploaded()
    p1 = point("p1", 4, 20, 24)
    first = regions_of(either.click(task, p1))
    strayed = copy.deepcopy(first)
    for region in strayed:
        region["value"][region["type"]] = [LABELS[1]]  # selected while the answer came
    [echo] = [r for r in strayed if r["type"] == "keypointlabels"]
    either.arrived()
    again = regions_of(either.click(task, echo, point("q1", 4, 50, 30, label=LABELS[1]), drafts=saved(*strayed)))
    [healed] = [r for r in again if r["id"] == "p1"]
    assert healed["value"]["keypointlabels"] == [LABELS[0]]
    assert {r["value"][r["type"]][0] for r in again if r["id"] != "p1"} == {LABELS[1]}
    either.arrived()
    for region in masks_of(either.click(task, p1, drafts=saved(*strayed))).values():
        assert region["value"][region["type"]] == [LABELS[0]]
    assert len(masks_of(either.click(task, p1, drafts=saved(*strayed)))) == 12


def test_predictions_from_elsewhere_are_replaced_not_doubled(backend):
    task = backend.uploaded()
    control = parse_label_config(backend.config).masks[0]
    other = mask_region(control, LABELS[0], 6, np.eye(48, 64, dtype=bool), 0.4, {}) | {"id": "imported"}
    masks = masks_of(backend.click(task, point("p1", 4, 20, 24), drafts=saved(other)))
    assert masks[6]["id"] == "imported"
    assert masks[7]["id"] == control.region_id(LABELS[0], 7)


def test_the_same_work_is_not_done_twice_for_identical_requests(backend):
    task = backend.uploaded()
    slow = Slow(backend, (task, point("p1", 4, 20, 24, new=False)), (task, point("p1", 4, 20, 24, new=False)))
    assert len(masks_of(slow.second)) == 12
    assert len(backend.engine.propagator.steps) <= 13  # the frame under way when the second came may be done twice


@pytest.mark.parametrize(
    ("points", "says"),
    [
        ([point("p1", 12, 20, 24)], "item_index is 12"),
        ([point("p1", 4, 20, 24, label="Cat")], "unknown label 'Cat'"),
        ([point("p1", 4, 20, 24) | {"original_width": 128}], "64x48"),
        ([point("p1", 4, 20, 24) | {"type": "rectanglelabels"}], "no keypoints"),
        ([5], "must be an object"),
        ([{}], "no keypoints"),
    ],
)
def test_bad_points_get_a_sentence_and_lose_nothing(backend, points, says):
    task = backend.uploaded()
    good = masks_of(backend.click(task, point("p0", 4, 20, 24)))
    answer = backend.click(task, *points)
    assert answer.status_code == 400
    assert says in answer.json["error"]
    assert set(answer.json) == {"error"}
    assert masks_of(backend.click(task, point("p0", 4, 20, 24))) == good


def test_broken_mask_in_a_draft_is_named(backend):
    task = backend.uploaded()
    broken = drawn(backend, 2)
    broken["value"]["rle"] = [1, 2, 3]
    answer = backend.click(task, point("p1", 4, 20, 24), drafts=saved(broken))
    assert answer.status_code == 400
    assert answer.json["error"]


def test_restarted_backend_goes_on_from_what_the_request_carries(tmp_path, label_studio):
    first = Backend(tmp_path / "data", label_studio)
    task = first.uploaded()
    p1 = point("p1", 4, 20, 24)
    masks = masks_of(first.click(task, p1))
    second = Backend(tmp_path / "data", label_studio)  # no /setup: Label Studio sends none before a click
    old = point("p1", 4, 20, 24, new=False)
    hand = drawn(second, 9)
    draft = saved(old, *(m for i, m in masks.items() if i != 9), hand)
    answer = masks_of(second.click(task, old, point("p2", 0, 21, 24), drafts=draft))
    assert 9 not in answer
    assert 11 in answer  # nearest to the drawn frame now
    np.testing.assert_array_equal(decoded(answer[11]), decoded(hand))


def test_frames_from_elsewhere_are_tracked_too(backend, label_studio):
    import cv2

    for i in range(4):
        cv2.imwrite(str(label_studio.root / f"{i}.jpg"), np.full((48, 64, 3), 20 * i, np.uint8))
    backend.connect()
    task = label_studio.add_task({"frames": [f"/data/local-files/?d=frames/{i}.jpg" for i in range(4)]})
    assert set(masks_of(backend.click(task, point("p1", 1, 20, 24)))) == {0, 1, 2, 3}


def test_the_same_request_twice_at_once_is_computed_once_and_answered_the_same(backend):
    task = backend.uploaded()
    slow = Slow(backend, (task, point("p1", 4, 20, 24)), (task, point("p1", 4, 20, 24)))
    assert slow.first.json == slow.second.json
    assert len(masks_of(slow.first)) == 12
    assert len(backend.engine.propagator.steps) == 11
    assert backend.engine.segmenter.calls == 1
