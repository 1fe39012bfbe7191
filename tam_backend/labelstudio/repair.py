"""Saved annotations made whole: what Label Studio's editor leaves half-done in a submitted annotation.

- A mask fixed or drawn by hand on a frame that was not looked at again before submitting is saved as strokes beside an
  old ``rle``, or without one. Exports and training code read ``rle`` only: the person's fix would be missing from them.
- When an answer arrives while a label is selected, the editor gives that label to the masks and points in it, or adds
  second results of the wrong type to them.
"""

from __future__ import annotations

from tam_backend.errors import BadInput
from tam_backend.labelstudio.config import Control, LabelConfig
from tam_backend.labelstudio.requests import BY_HAND, Json, decode_region_mask, is_mask, true_label
from tam_backend.masks import encode_brush_rle


def repaired(result: list[Json], config: LabelConfig) -> list[Json] | None:
    """The annotation's regions made whole; None if they are whole already. Nothing that a person made is dropped."""
    masks = {c.name: c for c in config.masks}
    points = {c.name: c for c in config.points}
    whole = {r.get("id") for r in result if r.get("from_name") in masks and is_mask(r)}
    changed = False
    regions = []
    for region in result:
        control = masks.get(str(region.get("from_name")))
        if region.get("id") in whole and not (control and is_mask(region)):
            changed = True  # a second result of a mask, of another type
            continue
        mended = region
        if control and is_mask(region):
            mended = _mended_mask(region, control)
        elif region.get("from_name") in points:
            mended = _mended_point(region, points[region["from_name"]])
        changed = changed or mended is not region
        regions.append(mended)
    return regions if changed else None


def _mended_point(region: Json, control: Control) -> Json:
    value = region.get("value")
    shown = value.get("keypointlabels") if isinstance(value, dict) else None
    if not (isinstance(shown, list) and len(shown) == 1):
        return region
    label = true_label(region, shown[0], control.labels)
    return region if label == shown[0] else {**region, "value": {**region["value"], "keypointlabels": [label]}}


def _mended_mask(region: Json, control: Control) -> Json:
    value, mended = dict(region["value"]), False
    if value.get("touches") and control.type == "brushlabels":
        width, height = region.get("original_width"), region.get("original_height")
        if isinstance(width, int) and isinstance(height, int) and 0 < width * height <= 1 << 27:
            try:
                mask = decode_region_mask(region, height, width)
            except BadInput:
                return region  # not as the editor writes it: better left as it is
            value = {k: v for k, v in value.items() if k not in ("touches", "points", "maskDataURL")}
            value |= {"format": "rle", "rle": encode_brush_rle(mask)}
            mended = True
    frame = region.get("item_index", 0)
    if region.get("origin") not in BY_HAND and isinstance(frame, int):
        owners = [label for label in control.labels if control.region_id(label, frame) == region.get("id")]
        if owners and value.get(control.type) != owners:
            value[control.type] = owners
            mended = True
    return {**region, "value": value} if mended else region
