"""Regions that are prompts: smart points and smart boxes, as Label Studio's page sends and saves them.

A new point carries ``is_positive``; our answers echo it without, with ``meta.is_positive``. A new box carries no mark
(neither that nor ``value.labels``): it is the one that lacks the ``meta.object`` that our echoes have. All boxes of a
tag count, however they were drawn. Captured requests are in ``tests/data/payloads``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tam_backend.errors import BadInput
from tam_backend.labelstudio.config import Control, LabelConfig
from tam_backend.prompts import Box, Click

Json = dict[str, Any]

#: Types of the regions that can be prompts.
PROMPT_TYPES = frozenset({"keypointlabels", "rectanglelabels"})
#: Fields of a region's value that hold a mask: as pixels, or as brush strokes.
MASK_FIELDS = frozenset({"rle", "touches", "imageDataURL", "maskDataURL"})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prompt:
    """frame: its ``item_index``. new: no answer has reached it. merged: it is from saved work, not from the request."""

    id: str
    label: str
    frame: int
    new: bool
    region: Json
    merged: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Point(_Prompt):
    """One keypoint. x, y: percent of the frame."""

    x: float
    y: float
    positive: bool

    def click(self, height: int, width: int) -> Click:
        """In pixels. A point on the right or bottom edge itself belongs to the last pixel."""
        x = min(self.x / 100 * width, math.nextafter(width, 0))
        y = min(self.y / 100 * height, math.nextafter(height, 0))
        return Click(x, y, self.positive)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rectangle(_Prompt):
    """One box: left < right and top < bottom, percent of the frame, inside it."""

    left: float
    top: float
    right: float
    bottom: float

    def box(self, height: int, width: int) -> Box:
        """In pixels."""
        return Box(
            self.left / 100 * width, self.top / 100 * height, self.right / 100 * width, self.bottom / 100 * height
        )


Prompt = Point | Rectangle


def read_prompts(regions: Iterable[object], config: LabelConfig, frames: int, where: str) -> list[tuple[str, Prompt]]:
    """The prompts among a request's regions, each with the label that it shows, which may be wrong (``true_label``).

    Left out: results that the editor adds to masks and prompts by mistake; boxes of tags that are not smart; and
    prompts whose tag or label the configuration does not have any more, unless it is the newest one. Raises BadInput
    naming the field that is wrong. frames: number of frames of the task.
    """
    found: list[tuple[str, Prompt]] = []
    refused: _Unknown | None = None
    for i, region in enumerate(regions):
        at = f"{where}[{i}]"
        if not isinstance(region, dict):
            raise BadInput(f"{at} must be an object, not {type(region).__name__}")
        try:
            read = _read(region, config, frames, at)
        except _Unknown as e:
            if _is_new(region):
                refused = e
            continue
        if read is None or any(read[1].id == known.id for _, known in found):
            continue
        found.append(read)
        if read[1].new:
            refused = None
    if refused:
        raise refused
    return found


def saved_prompts(regions: Iterable[Json], config: LabelConfig, frames: int) -> list[Prompt]:
    """The prompts among saved regions, marked as merged. What cannot be read is left out: the person cannot mend it
    by doing something else now."""
    found: dict[str, Prompt] = {}
    for region in regions:
        try:
            read = _read(region, config, frames, "region", merged=True)
        except BadInput:
            continue
        if read is not None:
            found.setdefault(read[1].id, read[1])
    return list(found.values())


def is_waiting(region: Json) -> bool:
    """Whether a saved region is a prompt that no answer has reached: an answer brings it back with ``meta.object``
    and without ``is_positive``."""
    return region.get("type") in PROMPT_TYPES and _is_new(region)


def true_label(region: Json, shown: str, labels: tuple[str, ...]) -> str:
    """The object a prompt of ours belongs to.

    When answers arrive, the editor (1.23.2) gives every region in them the label that is selected at that moment: it
    relabels prompts, and adds second results of the wrong type. What we noted in ``meta`` tells the truth.
    """
    noted = _meta(region).get("object")
    return noted if noted in labels else shown


def is_second_result(region: Json) -> bool:
    """Whether this is what the editor adds to a mask, box or point when a label of another tag is selected.

    Such a result has the id and the value of the region that it was added to.
    """
    value = region.get("value")
    if not isinstance(value, dict):
        return False
    if region.get("type") in PROMPT_TYPES and not MASK_FIELDS.isdisjoint(value):
        return True
    if region.get("type") == "keypointlabels":
        return "height" in value
    return region.get("type") == "rectanglelabels" and "height" not in value


class _Unknown(BadInput):
    """A prompt's tag or label is not in the configuration."""


def _read(
    region: Json, config: LabelConfig, frames: int, where: str, *, merged: bool = False
) -> tuple[str, Prompt] | None:
    if region.get("type") not in PROMPT_TYPES or is_second_result(region):
        return None
    kind = region["type"]
    name = text(region, "from_name", where)
    controls = config.points if kind == "keypointlabels" else config.boxes
    control = next((c for c in controls if c.name == name), None)
    if control is None:
        if kind == "rectanglelabels":
            return None
        known = ", ".join(c.name for c in controls)
        raise _Unknown(f"the point comes from tag {name!r:.80}, but this project's KeyPointLabels are: {known}")
    value = region.get("value")
    if not isinstance(value, dict):
        raise BadInput(f"{where}.value must be an object, not {type(value).__name__}")
    shown = _label(value, control, where)
    prompt_id = text(region, "id", where)
    index = frame_index(region, frames, where)
    label, new = true_label(region, shown, control.labels), _is_new(region)
    if kind == "rectanglelabels":
        left, top, right, bottom = _extent(region, value, where)
        return shown, Rectangle(
            id=prompt_id, label=label, frame=index, new=new, region=region, merged=merged,
            left=left, top=top, right=right, bottom=bottom,
        )  # fmt: skip
    positive = region.get("is_positive")
    if positive is None:
        positive = _meta(region).get("is_positive", True)
    if not isinstance(positive, bool):
        raise BadInput(f"{where}.is_positive must be true or false, not {positive!r:.40}")
    x, y = (_percent(value, axis, where) for axis in "xy")
    return shown, Point(
        id=prompt_id, label=label, frame=index, new=new, region=region, merged=merged, x=x, y=y, positive=positive
    )


def _is_new(region: Json) -> bool:
    if region.get("type") == "keypointlabels":
        return region.get("is_positive") is not None
    return not isinstance(_meta(region).get("object"), str)


def _label(value: Json, control: Control, where: str) -> str:
    labels = value.get(control.type) or value.get("labels")
    if not isinstance(labels, list) or len(labels) != 1 or not isinstance(labels[0], str):
        raise BadInput(f"{where}.value.{control.type} must hold exactly one label, not {labels!r:.80}")
    if labels[0] not in control.labels:
        known = ", ".join(control.labels)
        raise _Unknown(f"{where}: unknown label {labels[0]!r:.80}; {control.name!r} has {known}")
    return labels[0]


def _number(value: Json, name: str, where: str) -> float:
    v = value.get(name)
    if isinstance(v, bool) or not isinstance(v, int | float) or not math.isfinite(v):
        raise BadInput(f"{where}.value.{name} is {v!r:.40}; it must be a number")
    return float(v)


def _percent(value: Json, name: str, where: str) -> float:
    v = value.get(name)
    if isinstance(v, bool) or not isinstance(v, int | float) or not 0 <= v <= 100:
        raise BadInput(f"{where}.value.{name} is {v!r:.40}; it must be a percentage of the picture, 0 to 100")
    return float(v)


def _extent(region: Json, value: Json, where: str) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) of what a box covers of the picture, in percent; of a turned box, all it touches.

    The page turns a box around the corner at x, y, clockwise, in pixels.
    """
    x, y, width, height = (_number(value, name, where) for name in ("x", "y", "width", "height"))
    angle = math.radians(_number({"rotation": 0} | value, "rotation", where))
    size = region.get("original_width"), region.get("original_height")
    if not all(isinstance(s, int) and s > 0 for s in size):
        raise BadInput(f"{where}.original_width and original_height are {size!r:.40}; they must be the picture's size")
    aspect = region["original_width"] / region["original_height"]
    across = (width * math.cos(angle), width * math.sin(angle) * aspect)
    down = (-height * math.sin(angle) / aspect, height * math.cos(angle))
    corners = [(x + i * across[0] + j * down[0], y + i * across[1] + j * down[1]) for i in (0, 1) for j in (0, 1)]
    left, right = (min(max(f(c[0] for c in corners), 0.0), 100.0) for f in (min, max))
    top, bottom = (min(max(f(c[1] for c in corners), 0.0), 100.0) for f in (min, max))
    if not (left < right and top < bottom):
        raise BadInput(f"{where}: the box covers nothing of the picture; draw it anew, around the object")
    return left, top, right, bottom


def _meta(region: Json) -> Json:
    meta = region.get("meta")
    return meta if isinstance(meta, dict) else {}


def text(region: Json, name: str, where: str) -> str:
    """A field that must be a text with something in it. Raises BadInput."""
    value = region.get(name)
    if not isinstance(value, str) or not value:
        raise BadInput(f"{where}.{name} must be a text, not {value!r:.40}")
    return value


def frame_index(region: Json, frames: int, where: str) -> int:
    """A region's ``item_index``, checked against the number of frames of the task. Raises BadInput."""
    index = region.get("item_index", 0)
    if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < frames:
        raise BadInput(f"{where}.item_index is {index!r:.40}; this task has frames 0 to {frames - 1}")
    return index
