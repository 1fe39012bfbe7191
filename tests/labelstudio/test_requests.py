import copy

import numpy as np
import pytest

from tam_backend.errors import BadInput
from tam_backend.labelstudio.config import parse_label_config
from tam_backend.labelstudio.requests import check_size, decode_region_mask, made_by_hand
from tam_backend.masks import encode_bitmask_url, encode_brush_rle
from tests.labelstudio.payloads import asks_of, edit, in_draft, request_body


def test_first_click():
    [ask] = asks_of(request_body("05_predict_interactive_first_click"))
    assert ask.label == "Object"
    assert ask.mask_control.name == "mask"
    assert ask.focus == 3
    [point] = ask.points
    assert (point.id, point.positive, point.new) == ("ycOWHJr3ww", True, True)
    click = point.click(480, 854)
    assert (click.x, click.y) == pytest.approx((341.225, 264.356), abs=1e-3)
    assert not ask.by_hand
    assert not ask.ours


def test_old_points_say_in_meta_what_they_were():
    [ask] = asks_of(request_body("06_predict_interactive_negative"))
    assert [(p.frame, p.positive, p.new) for p in ask.points] == [(3, False, False), (2, False, True)]
    assert ask.focus == 2


def test_draft_tells_what_is_by_hand_and_what_is_ours():
    body = request_body("07_predict_interactive_with_draft")
    regions = body["tasks"][0]["drafts"][0]["result"]
    by_hand = {r["item_index"] for r in regions if r["type"] == "brushlabels" and r["origin"] == "prediction-changed"}
    [ask] = asks_of(body)
    assert by_hand
    assert set(ask.by_hand) == by_hand
    assert set(ask.ours) == {
        r["item_index"] for r in regions if r["type"] == "brushlabels" and r["origin"] == "prediction"
    }
    assert ask.draft == "draft:3"
    assert "ouynPfk2D2" in ask.ids


def test_submitted_annotation_counts_like_a_draft():
    [ask] = asks_of(request_body("08_predict_interactive_on_submitted"))
    assert ask.draft == ""  # it names the annotation, which others may have open too
    assert 0 in ask.ours


def test_newest_work_wins_and_own_work_wins_over_newer():
    body = request_body("07_predict_interactive_with_draft")
    task = body["tasks"][0]
    other = copy.deepcopy(task["drafts"][0]) | {"id": 99, "updated_at": "2027-01-01T00:00:00Z"}
    other["result"] = [r for r in other["result"] if r["type"] == "brushlabels"]
    task["drafts"].append(other)
    [ask] = asks_of(body)
    assert ask.draft == "draft:3"  # it holds this person's points
    for region in body["params"]["context"]["result"]:
        region["id"] += "x"
    [ask] = asks_of(body)
    assert ask.draft == "draft:99"  # nothing says whose is whose: the latest change


def test_skipped_annotations_do_not_count():
    body = request_body("08_predict_interactive_on_submitted")
    body["tasks"][0]["annotations"][0]["was_cancelled"] = True
    [ask] = asks_of(body)
    assert not ask.ours


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (edit("value.x", 100.5), r"value\.x is 100\.5.*0 to 100"),
        (edit("value.y", -1), r"value\.y is -1"),
        (edit("value.y", True), r"value\.y is True"),
        (edit("value.x", "12"), r"value\.x is '12'"),
        (edit("value.x", float("nan")), r"value\.x is nan"),
        (edit("value.x", None), r"value\.x is None"),
        (edit("value", None), r"value must be an object"),
        (edit("value.keypointlabels", ["Cat"]), "unknown label 'Cat'.*Object, Other"),
        (edit("value.keypointlabels", ["Object", "Other"]), "exactly one label"),
        (edit("item_index", 20), r"item_index is 20.*0 to 19"),
        (edit("item_index", -1), "item_index is -1"),
        (edit("item_index", 1.5), r"item_index is 1\.5"),
        (edit("from_name", "box"), "'box'.*point"),
        (edit("from_name", None), "from_name must be a text"),
        (edit("id", None), "id must be a text"),
        (edit("is_positive", "yes"), "is_positive must be true or false"),
    ],
)
def test_what_is_wrong_with_a_point_is_named(change, says):
    body = request_body("05_predict_interactive_first_click")
    change(body)
    with pytest.raises(BadInput, match=says):
        asks_of(body)


@pytest.mark.parametrize("size", [(640, 480), (None, 480), ("854", 480)])
def test_a_point_from_another_picture_size_is_refused(size):
    [ask] = asks_of(request_body("05_predict_interactive_first_click"))
    region = ask.points[0].region | {"original_width": size[0], "original_height": size[1]}
    with pytest.raises(BadInput, match="854x480"):
        check_size(region, 480, 854, "point")


def test_rotated_pictures_are_refused():
    region = {"original_width": 8, "original_height": 6, "image_rotation": 90}
    with pytest.raises(BadInput, match="upright"):
        check_size(region, 6, 8, "point")


def test_point_on_the_far_edge_is_on_the_last_pixel():
    body = request_body("05_predict_interactive_first_click")
    body["params"]["context"]["result"][0]["value"] |= {"x": 100, "y": 100}
    click = asks_of(body)[0].points[0].click(480, 854)
    assert (int(click.x), int(click.y)) == (853, 479)


@pytest.mark.parametrize("kind", ["rle", "imageDataURL"])
def test_region_masks_decode(kind):
    mask = np.zeros((6, 8), bool)
    mask[2:4, 1:7] = True
    value = {"rle": encode_brush_rle(mask)} if kind == "rle" else {"imageDataURL": encode_bitmask_url(mask)}
    region = {"id": "r", "original_width": 8, "original_height": 6, "value": value}
    np.testing.assert_array_equal(decode_region_mask(region, 6, 8), mask)
    with pytest.raises(BadInput, match="8x6"):
        decode_region_mask(region, 8, 8)
    with pytest.raises(BadInput, match="no mask"):
        decode_region_mask(region | {"value": {}}, 6, 8)


def without(point: dict) -> dict:
    """The point as an old one."""
    return {k: v for k, v in point.items() if k != "is_positive"}


@pytest.mark.parametrize("change", [{"from_name": "gone"}, {"value": {"keypointlabels": ["Gone"], "x": 1, "y": 1}}])
def test_old_points_of_labels_and_tags_that_are_gone_are_not_in_the_way(change):
    body = request_body("06_predict_interactive_negative")
    points = body["params"]["context"]["result"]
    points.insert(0, points[0] | {"id": "old"} | change)
    [ask] = asks_of(body)
    assert [(p.frame, p.new) for p in ask.points] == [(3, False), (2, True)]
    points[0]["is_positive"] = True  # an answer never reached it: still not what the person has just done
    [ask] = asks_of(body)
    assert len(ask.points) == 2
    points.append(points.pop(0))
    assert len(asks_of(body | {"params": {"context": {"result": [points[0], without(points[-1])]}}})[0].points) == 1
    with pytest.raises(BadInput, match=r"'Gone'|'gone'"):
        asks_of(body)


def test_an_old_label_without_a_mask_tag_is_not_in_the_way():
    body = request_body("11_predict_interactive_box_after_point")
    head, tail = body["label_config"].split("<BrushLabels")
    body["label_config"] = f"{head}<BrushLabels" + tail.replace('<Label value="A" background="red"/>', "")
    old, new = body["params"]["context"]["result"]
    new["value"]["rectanglelabels"] = ["B"]
    assert [a.label for a in asks_of(body, 8)] == ["B"]
    old.pop("meta")  # an answer never reached it: still not what the person has just done
    assert [a.label for a in asks_of(body, 8)] == ["B"]
    body["params"]["context"]["result"].reverse()
    with pytest.raises(BadInput, match="the label 'A'"):
        asks_of(body, 8)


@pytest.mark.parametrize("origin", ["manual", "prediction-changed", "prediction"])
def test_masks_of_the_other_mask_tag_count(origin):
    """After BrushLabels became BitmaskLabels: a mask of ours has the id that the drawing has, and would replace it."""
    body = request_body("10_predict_interactive_point_after_box")
    body["label_config"] = body["label_config"].replace("BrushLabels", "BitmaskLabels")
    config = parse_label_config(body["label_config"])
    [drawn] = [r for r in in_draft(body) if r["type"] == "brushlabels" and r["item_index"] == 2]
    drawn |= {"id": config.masks[0].region_id("A", 2), "origin": origin}
    [ask] = asks_of(body, 8)
    by_hand = {("mask", "A", 2)} if origin != "prediction" else set()
    assert set(ask.by_hand) == {frame for _, _, frame in by_hand}
    assert (2 in ask.ours) == (origin == "prediction")
    assert made_by_hand(in_draft(body), config) == by_hand
    assert decode_region_mask(drawn, 240, 320).any()
