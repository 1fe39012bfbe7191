"""Boxes as Label Studio's page sends them, alone and together with points."""

import pytest

from tam_backend.errors import BadInput
from tests.labelstudio.payloads import asks_of, edit, in_draft, request_body


def test_first_box():
    [ask] = asks_of(request_body("09_predict_interactive_first_box"), 8)
    assert (ask.label, ask.mask_control.name, ask.focus, ask.continued) == ("A", "mask", 2, False)
    [box] = ask.boxes
    assert (box.frame, box.new) == (2, True)
    assert ask.new_prompts == ask.echoed == (box,)
    pixels = box.box(240, 320)
    assert (pixels.left, pixels.top) == pytest.approx((48.12, 35.83), abs=0.01)
    assert (pixels.right, pixels.bottom) == pytest.approx((192.14, 155.96), abs=0.01)
    asked = ask.prompts_by_frame(240, 320)[2]
    assert (asked.first, asked.new, asked.prompts.box, asked.prompts.clicks) == (box.id, True, pixels, ())


def test_a_point_after_a_box_brings_the_box_from_the_draft():
    [ask] = asks_of(request_body("10_predict_interactive_point_after_box"), 8)
    [point], [box] = ask.points, ask.boxes
    assert (point.frame, point.positive, point.new, point.merged) == (3, False, True, False)
    assert (box.frame, box.new, box.merged) == (2, False, True)
    assert ask.new_prompts == ask.echoed == (point,)  # an answered box stays on the page by itself
    assert (ask.focus, ask.continued, sorted(ask.ours)) == (3, True, [2, 3])
    assert ask.ids == {point.id, box.id}
    by_frame = ask.prompts_by_frame(240, 320)
    assert list(by_frame) == [2, 3]
    assert by_frame[2].prompts.box == box.box(240, 320)
    assert not by_frame[3].prompts.locates


def test_a_box_after_a_point_brings_the_point_from_the_draft():
    [ask] = asks_of(request_body("11_predict_interactive_box_after_point"), 8)
    assert [(p.frame, p.merged) for p in ask.points] == [(3, True)]
    assert [(b.frame, b.new, b.merged) for b in ask.boxes] == [(2, False, False), (3, True, False)]
    assert ask.focus == 3
    prompts = ask.prompts_by_frame(240, 320)[3].prompts
    assert [c.positive for c in prompts.clicks] == [False]
    assert prompts.box == ask.boxes[1].box(240, 320)  # dragged from the lower right: the page turns it round


def test_a_waiting_prompt_of_the_other_tag_is_echoed():
    """The page drops every waiting prompt, of any tag, that the answer does not bring along."""
    body = request_body("10_predict_interactive_point_after_box")
    del next(r for r in in_draft(body) if r["type"] == "rectanglelabels")["meta"]  # as saved before the answer came
    [ask] = asks_of(body, 8)
    [box] = ask.boxes
    assert (box.new, box.merged) == (True, True)
    assert ask.new_prompts == ask.points
    assert ask.echoed == (box, *ask.points)
    body = request_body("11_predict_interactive_box_after_point")
    next(r for r in in_draft(body) if r["type"] == "keypointlabels")["is_positive"] = False
    [ask] = asks_of(body, 8)
    assert len(ask.echoed) == 2


def test_a_box_deleted_on_the_page_is_gone_when_the_draft_knows():
    body = request_body("10_predict_interactive_point_after_box")
    in_draft(body)[:] = [r for r in in_draft(body) if r["type"] != "rectanglelabels"]
    [ask] = asks_of(body, 8)
    assert ask.boxes == ()


def test_boxes_of_other_objects_and_of_other_people_are_not_merged():
    body = request_body("10_predict_interactive_point_after_box")
    box = next(r for r in in_draft(body) if r["type"] == "rectanglelabels")
    box |= {"value": box["value"] | {"rectanglelabels": ["B"]}, "meta": {"object": "B"}}
    assert asks_of(body, 8)[0].boxes == ()
    box["meta"] = {"object": "A"}  # it shows B by mistake: a label that was selected when its answer came
    assert len(asks_of(body, 8)[0].boxes) == 1

    task = body["tasks"][0]
    task["annotations"], task["drafts"] = [task["drafts"][0] | {"id": 7}], []
    assert len(asks_of(body, 8)[0].boxes) == 1  # the only annotation: the person has it open, or there would be a draft
    task["annotations"].append({"id": 8, "result": [], "updated_at": "2020-01-01T00:00:00Z"})
    [ask] = asks_of(body, 8)
    assert ask.boxes == ()  # the newest is another person's, maybe
    assert sorted(ask.ours) == [2, 3]
    task["annotations"][0]["result"].append(body["params"]["context"]["result"][0])
    assert len(asks_of(body, 8)[0].boxes) == 1  # it has this request's point: the person's own


def test_what_is_unreadable_in_saved_work_is_left_out():
    body = request_body("10_predict_interactive_point_after_box")
    next(r for r in in_draft(body) if r["type"] == "rectanglelabels")["item_index"] = 99
    assert asks_of(body, 8)[0].boxes == ()


def test_the_newest_box_of_a_frame_counts_and_holds_all_positive_points():
    body = request_body("11_predict_interactive_box_after_point")
    first, second = body["params"]["context"]["result"]
    first["item_index"] = 3
    point = next(r for r in in_draft(body) if r["type"] == "keypointlabels")
    point |= {"meta": {"object": "A", "is_positive": True}, "value": point["value"] | {"x": 99.9, "y": 5}}
    [ask] = asks_of(body, 8)
    box, newest = ask.prompts_by_frame(240, 320)[3].prompts.box, ask.boxes[1].box(240, 320)
    assert ask.boxes[1].region is second
    assert (box.left, box.bottom) == (newest.left, newest.bottom)
    assert (box.top, box.right) == (12, 320)


def test_prompts_on_frames_with_a_mask_by_hand_do_not_count():
    body = request_body("10_predict_interactive_point_after_box")
    next(r for r in in_draft(body) if r["type"] == "brushlabels" and r["item_index"] == 2)["origin"] = "manual"
    [ask] = asks_of(body, 8)
    assert set(ask.by_hand) == {2}
    assert list(ask.prompts_by_frame(240, 320)) == [3]


def box_body(**value: object) -> dict:
    body = request_body("09_predict_interactive_first_box")
    region = body["params"]["context"]["result"][0]
    region["value"] = region["value"] | {"x": 50, "y": 50, "width": 10, "height": 20} | value
    return body


@pytest.mark.parametrize(
    ("value", "pixels"),
    [
        ({}, (160, 120, 192, 168)),
        ({"width": -10, "height": -20}, (128, 72, 160, 120)),  # reversed
        ({"x": -5, "y": -10}, (0, 0, 16, 24)),  # partly outside
        ({"x": 95, "y": 90, "width": 30, "height": 30}, (304, 216, 320, 240)),
        ({"x": 0, "y": 0, "width": 100, "height": 100}, (0, 0, 320, 240)),
        ({"rotation": 90}, (112, 120, 160, 152)),  # 32 x 48 pixels, turned clockwise around the upper left corner
        ({"rotation": 180}, (128, 72, 160, 120)),
        ({"rotation": 45}, (160 - 33.94, 120, 160 + 22.63, 120 + 56.57)),
    ],
)
def test_boxes_become_pixels(value, pixels):
    [ask] = asks_of(box_body(**value), 8)
    box = ask.boxes[0].box(240, 320)
    assert (box.left, box.top, box.right, box.bottom) == pytest.approx(pixels, abs=0.01)
    ask.prompts_by_frame(240, 320)[2].prompts.validate(240, 320)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"x": "12"}, r"value\.x is '12'.*a number"),
        ({"y": None}, r"value\.y is None"),
        ({"y": True}, r"value\.y is True"),
        ({"width": float("nan")}, r"value\.width is nan"),
        ({"height": float("inf")}, r"value\.height is inf"),
        ({"height": [1]}, r"value\.height is \[1\]"),
        ({"rotation": "45"}, r"value\.rotation is '45'"),
        ({"width": 0}, "covers nothing"),
        ({"height": 0}, "covers nothing"),
        ({"x": 100}, "covers nothing"),
        ({"x": -20}, "covers nothing"),
        ({"y": 1e308, "height": 1e308}, "covers nothing"),
        ({"x": 1e308, "width": 1e308, "rotation": 200}, "covers nothing"),
        ({"rectanglelabels": ["C"]}, "unknown label 'C'.*A, B"),
        ({"rectanglelabels": ["A", "B"]}, "exactly one label"),
        ({"rectanglelabels": [5]}, "exactly one label"),
        ({"rectanglelabels": "A"}, "exactly one label"),
    ],
)
def test_what_is_wrong_with_a_box_is_named(value, says):
    with pytest.raises(BadInput, match=says):
        asks_of(box_body(**value), 8)


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("item_index", 8, r"item_index is 8.*0 to 7"),
        ("item_index", None, None),  # the page leaves it out for the first frame
        ("id", None, "id must be a text"),
        ("from_name", 5, "from_name must be a text"),
        ("original_width", 0, "original_width and original_height are"),
        ("original_height", "240", "original_width and original_height are"),
        ("original_height", None, "original_width and original_height are"),
    ],
)
def test_what_is_wrong_around_a_box_is_named(path, value, says):
    body = box_body()
    edit(path, value)(body)
    if says is None:
        assert asks_of(body, 8)[0].focus == 0
    else:
        with pytest.raises(BadInput, match=says):
            asks_of(body, 8)


def test_boxes_of_tags_that_are_not_smart_are_no_prompts():
    body = request_body("10_predict_interactive_point_after_box")
    body["label_config"] = body["label_config"].replace(
        'name="box" toName="image" smart="true" smartOnly="true"', 'name="box" toName="image" smart="false"'
    )
    assert asks_of(body, 8)[0].boxes == ()
    body = request_body("09_predict_interactive_first_box") | {"label_config": body["label_config"]}
    assert asks_of(body, 8) == []


def test_results_that_the_editor_adds_by_mistake_are_no_prompts():
    """A label of another tag, selected while a box is drawn or an answer comes, lands on the regions as well."""
    body = request_body("09_predict_interactive_first_box")
    [box] = body["params"]["context"]["result"]
    value = {k: v for k, v in box["value"].items() if k != "rectanglelabels"}
    second = box | {"type": "keypointlabels", "from_name": "point", "value": value | {"keypointlabels": ["B"]}}
    body["params"]["context"]["result"] = [box, second]
    [ask] = asks_of(body, 8)
    assert (ask.label, ask.points, len(ask.boxes)) == ("A", (), 1)

    body = request_body("10_predict_interactive_point_after_box")
    [point] = body["params"]["context"]["result"]
    value = {k: v for k, v in point["value"].items() if k in ("x", "y", "width")}
    second = point | {"type": "rectanglelabels", "from_name": "box", "value": value | {"rectanglelabels": ["B"]}}
    masks = [
        mask | {"type": "rectanglelabels", "from_name": "box", "value": mask["value"] | {"rectanglelabels": ["A"]}}
        for mask in in_draft(body)
        if mask["type"] == "brushlabels"
    ]
    body["params"]["context"]["result"] = [point, second, point, *masks]
    [ask] = asks_of(body, 8)
    assert (ask.label, len(ask.points), len(ask.boxes)) == ("A", 1, 1)


def test_boxes_that_strayed_are_told_apart():
    body = request_body("11_predict_interactive_box_after_point")
    body["params"]["context"]["result"][0]["meta"]["object"] = "B"
    [ask] = asks_of(body, 8)
    assert [b.frame for b in ask.boxes] == [3]
    assert [(p.frame, p.label) for p in ask.strayed] == [(2, "B")]


def test_both_kinds_in_one_request_need_no_draft():
    body = request_body("11_predict_interactive_box_after_point")
    body["params"]["context"]["result"] = [r for r in in_draft(body) if r["type"] != "brushlabels"]
    [ask] = asks_of(body, 8)
    assert [(p.frame, p.merged) for p in ask.prompts] == [(2, False), (3, False)]
