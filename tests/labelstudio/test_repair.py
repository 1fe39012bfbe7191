import copy

import numpy as np

from tam_backend.labelstudio.config import EXAMPLE, parse_label_config
from tam_backend.labelstudio.regions import mask_region
from tam_backend.labelstudio.repair import repaired
from tam_backend.labelstudio.requests import decode_region_mask

CONFIG = parse_label_config(EXAMPLE)
BRUSH = CONFIG.masks[0]
STROKE = {"type": "add", "relativePoints": [50, 50, 75, 50], "relativeStrokeWidth": 10}


def ours(frame: int = 2, label: str = "Object 1") -> dict:
    mask = np.zeros((20, 30), bool)
    mask[3:9, 4:20] = True
    return mask_region(BRUSH, label, frame, mask, 0.5, {})


def point() -> dict:
    return {"id": "p", "from_name": "point", "to_name": "image", "type": "keypointlabels", "item_index": 2,
            "value": {"x": 1, "y": 2, "width": 1, "keypointlabels": ["Object 1"]}}  # fmt: skip


def test_whole_annotations_are_left_alone():
    assert repaired([ours(), ours(3), point()], CONFIG) is None
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


def test_a_label_that_a_person_changed_stays():
    changed = ours() | {"origin": "prediction-changed"}
    changed["value"] = changed["value"] | {"brushlabels": ["Object 2"]}
    assert repaired([changed], CONFIG) is None
