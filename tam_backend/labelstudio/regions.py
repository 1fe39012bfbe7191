"""What we answer: masks and prompts become Label Studio regions, checked once more on the way out.

Label Studio stores almost anything and its editor then fails on the person's page: a wrong ``item_index`` or a missing
size makes an annotation unsaveable. So nothing leaves that does not fit the configuration and the task.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tam_backend.labelstudio.config import Control, LabelConfig
from tam_backend.labelstudio.prompts import Json, Point, Prompt
from tam_backend.masks import encode_bitmask_url, encode_brush_rle
from tam_backend.prompts import Mask


def mask_region(control: Control, label: str, frame: int, mask: Mask, score: float, meta: dict[str, Any]) -> Json:
    """A brush or bitmask region. frame: ``item_index``; mask: HxW bool, not empty; score in [0, 1].

    ``meta.object`` keeps the label: the editor gives suggestions the label that happens to be selected when they come.
    """
    height, width = mask.shape
    value: Json = {control.type: [label]}
    if control.type == "brushlabels":
        value |= {"format": "rle", "rle": encode_brush_rle(mask)}
    else:
        value |= {"imageDataURL": encode_bitmask_url(mask)}
    return {
        "id": control.region_id(label, frame),
        "from_name": control.name,
        "to_name": control.image,
        "type": control.type,
        "origin": "prediction",
        "item_index": frame,
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "score": round(score, 4),
        "meta": {"object": label} | meta,
        "value": value,
    }


def quality_note(engine: str, frame: int, quality: float, version: str = "") -> dict[str, Any]:
    """What ``meta`` says of a mask: who made it, on which frame of the video, and its estimated IoU. version: of the
    engine, "" if it is not to be told."""
    made_by = {"engine": engine} | ({"version": version} if version else {})
    return made_by | {"frame": frame, "quality": round(quality, 4)}


def mark_next(region: Json) -> None:
    """Say in ``meta`` that this is the mask to fix next."""
    region["meta"]["fix_next"] = True


def echo_prompt(prompt: Prompt) -> Json:
    """A point or box, to be sent back: a smart one that is not echoed vanishes from the page.

    It keeps its id; what it was (its object; whether a point is positive) moves into ``meta``, where the editor keeps
    it.
    """
    region = {k: v for k, v in prompt.region.items() if k not in ("is_positive", "parentID")}
    region["value"] = {k: v for k, v in prompt.region["value"].items() if k != "labels"}
    region["value"][region["type"]] = [prompt.label]
    meta = prompt.region.get("meta")
    noted: Json = {"object": prompt.label, "text": ["around the object"]}
    if isinstance(prompt, Point):
        noted |= {"is_positive": prompt.positive, "text": ["on the object" if prompt.positive else "not the object"]}
    region["meta"] = (meta if isinstance(meta, dict) else {}) | noted
    return region


def check_regions(regions: Iterable[Json], config: LabelConfig, frames: int) -> None:
    """Raise ValueError (a fault of ours, never the client's) if a region does not fit configuration and task."""
    controls = {c.name: c for c in (*config.points, *config.boxes, *config.masks)}
    seen: set[str] = set()
    for region in regions:
        control = controls.get(region["from_name"])
        if control is None or region["type"] != control.type or region["to_name"] != control.image:
            raise ValueError(f"region {region['id']}: no such control {region['from_name']!r}/{region['type']!r}")
        if not set(region["value"][control.type]) <= set(control.labels):
            raise ValueError(f"region {region['id']}: unknown label {region['value'][control.type]!r}")
        if not 0 <= region["item_index"] < frames:
            raise ValueError(f"region {region['id']}: item_index {region['item_index']} of {frames}")
        if region["original_width"] <= 0 or region["original_height"] <= 0:
            raise ValueError(f"region {region['id']}: size missing")
        if not 0 <= region.get("score", 0) <= 1:
            raise ValueError(f"region {region['id']}: score {region['score']}")
        if region["id"] in seen:
            raise ValueError(f"region {region['id']} twice")
        seen.add(region["id"])
