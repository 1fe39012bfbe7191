import copy

import numpy as np

from tam_backend.labelstudio.config import EXAMPLE, parse_label_config
from tam_backend.labelstudio.regions import mask_region
from tam_backend.labelstudio.repair import repaired
from tam_backend.labelstudio.requests import decode_region_mask

CONFIG = parse_label_config(EXAMPLE)
BOXES = parse_label_config(EXAMPLE.replace('name="box" toName="image" smart="false"', 'name="box" toName="image"'))
BRUSH = CONFIG.masks[0]
STROKE = {"type": "add", "relativePoints": [50, 50, 75, 50], "relativeStrokeWidth": 10}


def ours(frame: int = 2, label: str = "Object 1") -> dict:
    mask = np.zeros((20, 30), bool)
    mask[3:9, 4:20] = True
    return mask_region(BRUSH, label, frame, mask, 0.5, {})


def point() -> dict:
    return {"id": "p", "from_name": "point", "to_name": "image", "type": "keypointlabels", "item_index": 2,
            "value": {"x": 1, "y": 2, "width": 1, "keypointlabels": ["Object 1"]}}  # fmt: skip


def box() -> dict:
    value = {"x": 1, "y": 2, "width": 9, "height": 8, "rotation": 0, "rectanglelabels": ["Object 1"]}
    return {"id": "b", "from_name": "box", "to_name": "image", "type": "rectanglelabels", "item_index": 2,
            "value": value}  # fmt: skip


def second(region: dict, tag: str, kind: str) -> dict:
    """What the editor adds when a label of another tag is selected: the region's own value under that label."""
    value = {k: v for k, v in region["value"].items() if k != region["type"]}
    return region | {"from_name": tag, "type": kind, "value": value | {kind: ["Object 2"]}}


def test_whole_annotations_are_left_alone():
    assert repaired([ours(), ours(3), point()], CONFIG) is None
    assert repaired([ours(), box(), point()], BOXES) is None
    assert repaired([ours(), box(), point()], CONFIG) is None
    assert repaired([], CONFIG) is None


def test_strokes_become_pixels():
    fixed = ours() | {"origin": "prediction-changed"}
    fixed["value"] = fixed["value"] | {"touches": [STROKE], "points": []}
    drawn = ours(4) | {"id": "by hand", "origin": "manual"}
    drawn["value"] = {"format": "rle", "touches": [STROKE], "brushlabels": ["Object 2"]}
    result = [fixed, point(), drawn, ours(5)]
    before = copy.deepcopy(result)
    whole = repaired(result, CONFIG)
    assert result == before
    assert [r["id"] for r in whole] == [r["id"] for r in result]
    for old, new in ((fixed, whole[0]), (drawn, whole[2])):
        assert set(new["value"]) == {"format", "rle", "brushlabels"}
        assert new["value"]["brushlabels"] == old["value"]["brushlabels"]
        assert new["origin"] == old["origin"]
        mask = decode_region_mask(new, 20, 30)
        np.testing.assert_array_equal(mask, decode_region_mask(old, 20, 30))
        assert mask[10, 18]
    assert repaired(whole, CONFIG) is None


def test_strokes_that_cannot_be_read_stay_as_they_are():
    odd = ours() | {"origin": "manual"}
    odd["value"] = odd["value"] | {"touches": [{"type": "flood"}]}
    assert repaired([odd], CONFIG) is None


def test_labels_gone_astray_come_back():
    """A label that was selected while an answer arrived: other label, and second results of the wrong type."""
    strayed = ours()
    strayed["value"] = strayed["value"] | {"brushlabels": ["Object 2"]}
    doubled = ours(3)
    second = {**doubled, "from_name": "point", "type": "keypointlabels"}
    second["value"] = {"format": "rle", "rle": doubled["value"]["rle"], "keypointlabels": ["Object 2"]}
    assert repaired([strayed, doubled, second, point()], CONFIG) == [ours(), ours(3), point()]


def test_points_go_back_to_their_object():
    strayed = point() | {"meta": {"object": "Object 2", "is_positive": True}}
    [whole] = repaired([strayed], CONFIG)
    assert whole["value"]["keypointlabels"] == ["Object 2"]
    assert repaired([whole], CONFIG) is None


def test_boxes_go_back_to_their_object():
    strayed = box() | {"meta": {"object": "Object 2"}}
    [whole] = repaired([strayed], BOXES)
    assert whole == strayed | {"value": strayed["value"] | {"rectanglelabels": ["Object 2"]}}
    assert repaired([whole], BOXES) is None
    assert repaired([strayed], CONFIG) is None  # its boxes are no prompts


def test_second_results_of_prompts_go():
    regions = [
        box(), second(box(), "point", "keypointlabels"), second(box(), "mask", "brushlabels"),
        second(point(), "box", "rectanglelabels"), point(), second(point(), "mask", "brushlabels"),
        second(ours(), "box", "rectanglelabels"), ours(),
    ]  # fmt: skip
    assert repaired(regions, BOXES) == [box(), point(), ours()]


def test_what_a_person_said_about_a_region_stays():
    said = [
        ours() | {"from_name": "how", "type": "choices", "value": {"choices": ["blurred"]}},
        box() | {"from_name": "kind", "type": "labels", "value": box()["value"] | {"labels": ["Car"]}},
    ]
    assert repaired([ours(), box(), *said], BOXES) is None


def test_masks_of_the_other_mask_tag_keep_their_kind():
    bitmask = parse_label_config(EXAMPLE.replace("BrushLabels", "BitmaskLabels"))
    strayed = ours()
    strayed["value"] = strayed["value"] | {"brushlabels": ["Object 2"]}
    assert repaired([strayed], bitmask) == [ours()]


def test_a_label_that_a_person_changed_stays():
    changed = ours() | {"origin": "prediction-changed"}
    changed["value"] = changed["value"] | {"brushlabels": ["Object 2"]}
    assert repaired([changed], CONFIG) is None
