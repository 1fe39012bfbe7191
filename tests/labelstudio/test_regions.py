import numpy as np
import pytest

from tam_backend.labelstudio.config import EXAMPLE, parse_label_config
from tam_backend.labelstudio.regions import check_regions, echo_prompt, mask_region
from tam_backend.labelstudio.requests import decode_region_mask, parse_asks

CONFIG = parse_label_config(EXAMPLE)
BITMASK = parse_label_config(EXAMPLE.replace("BrushLabels", "BitmaskLabels"))


def some_mask() -> np.ndarray:
    mask = np.zeros((20, 30), bool)
    mask[3:9, 4:20] = True
    return mask


@pytest.mark.parametrize("config", [CONFIG, BITMASK])
def test_mask_region_round_trip(config):
    control = config.masks[0]
    region = mask_region(control, "Object 2", 7, some_mask(), 0.81234567, {"frame": 107})
    check_regions([region], config, 8)
    assert region["item_index"] == 7
    assert region["score"] == 0.8123
    assert region["origin"] == "prediction"
    assert region["value"][control.type] == ["Object 2"]
    np.testing.assert_array_equal(decode_region_mask(region, 20, 30), some_mask())


def test_ids_are_stable_and_tell_objects_and_frames_apart():
    brush, bitmask = CONFIG.masks[0], BITMASK.masks[0]
    assert brush.region_id("Object 1", 3) == bitmask.region_id("Object 1", 3)
    ids = {brush.region_id(label, i) for label in ("Object 1", "Object 2") for i in range(50)}
    assert len(ids) == 100


def point_region(**changes):
    return {
        "id": "p1", "from_name": "point", "to_name": "image", "type": "keypointlabels", "item_index": 2,
        "original_width": 30, "original_height": 20, "image_rotation": 0, "is_positive": False, "origin": "manual",
        "value": {"x": 10, "y": 20, "width": 0.5, "labels": ["Object 1"], "keypointlabels": ["Object 1"]},
    } | changes  # fmt: skip


def test_echoed_point_keeps_its_id_and_remembers_its_sign():
    [ask] = parse_asks({}, {"result": [point_region()]}, CONFIG, 5)
    echo = echo_prompt(ask.points[0])
    assert echo["id"] == "p1"
    assert "is_positive" not in echo
    assert "labels" not in echo["value"]
    assert echo["meta"]["is_positive"] is False
    check_regions([echo], CONFIG, 5)
    [again] = parse_asks({}, {"result": [echo]}, CONFIG, 5)
    assert not again.points[0].positive
    assert not again.points[0].new


def test_echoed_box_is_an_old_one():
    config = parse_label_config(EXAMPLE.replace('name="box" toName="image" smart="false"', 'name="box" toName="image"'))
    value = {"x": 10, "y": 20, "width": 30, "height": 40, "rotation": 15, "rectanglelabels": ["Object 2"]}
    region = point_region(id="b1", from_name="box", type="rectanglelabels", value=value)
    region.pop("is_positive")
    [ask] = parse_asks({}, {"result": [region]}, config, 5)
    assert ask.boxes[0].new
    echo = echo_prompt(ask.boxes[0])
    assert echo == region | {"meta": {"object": "Object 2", "text": ["around the object"]}}
    check_regions([echo], config, 5)
    [again] = parse_asks({}, {"result": [echo]}, config, 5)
    assert not again.boxes[0].new
    with pytest.raises(ValueError, match="no such control"):
        check_regions([echo], CONFIG, 5)


@pytest.mark.parametrize(
    "change",
    [
        {"from_name": "box"},
        {"type": "bitmasklabels"},
        {"to_name": "video"},
        {"item_index": 8},
        {"item_index": -1},
        {"original_width": 0},
        {"score": 1.5},
        {"value": {"brushlabels": ["Cat"]}},
    ],
)
def test_nothing_leaves_that_does_not_fit(change):
    region = mask_region(CONFIG.masks[0], "Object 1", 7, some_mask(), 0.5, {})
    with pytest.raises(ValueError, match="region tam-"):
        check_regions([region | change], CONFIG, 8)


def test_an_id_leaves_once():
    region = mask_region(CONFIG.masks[0], "Object 1", 7, some_mask(), 0.5, {})
    with pytest.raises(ValueError, match="twice"):
        check_regions([region, region], CONFIG, 8)
