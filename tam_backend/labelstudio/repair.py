"""Saved annotations made whole: what Label Studio's editor leaves half-done in a submitted annotation.

- A mask fixed or drawn by hand on a frame that was not looked at again before submitting is saved as strokes beside an
  old ``rle``, or without one. Exports and training code read ``rle`` only: the person's fix would be missing from them.
- When an answer arrives while a label is selected, the editor gives that label to the masks and prompts in it, or adds
  second results of the wrong type to them.
"""

from __future__ import annotations

from tam_backend.errors import BadInput
from tam_backend.labelstudio.config import Control, LabelConfig
from tam_backend.labelstudio.prompts import Json, is_second_result, true_label
from tam_backend.labelstudio.requests import BY_HAND, MASK_TYPES, decode_region_mask, is_mask
from tam_backend.masks import encode_brush_rle


def repaired(result: list[Json], config: LabelConfig) -> list[Json] | None:
    """The annotation's regions made whole; None if they are whole already. Nothing that a person made is dropped."""
    masks = {c.name: c for c in config.masks}
    prompts = {c.name: c for c in (*config.points, *config.boxes)}

    def mask_of(region: Json) -> Control | None:
        return masks.get(str(region.get("from_name"))) if is_mask(region) else None

    def prompt_of(region: Json) -> Control | None:
        return None if is_second_result(region) else prompts.get(str(region.get("from_name")))

    whole = {r.get("id") for r in result if mask_of(r) or prompt_of(r)}
    changed = False
    regions = []
    for region in result:
        mended = region
        if control := mask_of(region):
            mended = _mended_mask(region, control)
        elif control := prompt_of(region):
            mended = _mended_prompt(region, control)
        elif region.get("id") in whole and _labels_a_shape(region):
            changed = True  # a second result, of another type
            continue
        changed = changed or mended is not region
        regions.append(mended)
    return regions if changed else None


def _labels_a_shape(region: Json) -> bool:
    """Whether this is a result of a tag that draws. What a person says about a region in other tags has its id, too."""
    kind = str(region.get("type"))
    return kind.endswith("labels") and kind != "labels"


def _mended_prompt(region: Json, control: Control) -> Json:
    value = region.get("value")
    shown = value.get(control.type) if isinstance(value, dict) else None
    if not (isinstance(shown, list) and len(shown) == 1):
        return region
    label = true_label(region, shown[0], control.labels)
    return region if label == shown[0] else {**region, "value": {**region["value"], control.type: [label]}}


def _mended_mask(region: Json, control: Control) -> Json:
    value, kind, mended = dict(region["value"]), region.get("type"), False
    if value.get("touches") and kind == "brushlabels":
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
        if owners and kind in MASK_TYPES and value.get(kind) != owners:
            value[kind] = owners
            mended = True
    return {**region, "value": value} if mended else region
