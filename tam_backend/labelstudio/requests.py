"""What Label Studio asks: task and context JSON become prompts. Everything is checked here, at the door.

What a request holds is in ``tests/data/payloads``. The current frame is the ``item_index`` of the point that carries
``is_positive``; the points of earlier clicks come along without it (then ``meta.is_positive`` says what they were,
because our answers echo them so).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from tam_backend.errors import BadInput
from tam_backend.labelstudio.config import Control, LabelConfig
from tam_backend.labelstudio.strokes import apply_strokes
from tam_backend.masks import decode_bitmask_url, decode_brush_rle
from tam_backend.prompts import Click, Mask

Json = dict[str, Any]

#: Origins of regions that a person drew or changed. Masks taken over from us as they were have ``prediction``.
BY_HAND = frozenset({"manual", "prediction-changed"})

#: Types of the regions that are prompts.
PROMPT_TYPES = frozenset({"keypointlabels", "rectanglelabels"})


@dataclass(frozen=True, slots=True)
class Point:
    """One keypoint. frame: its ``item_index``. x, y: percent of the frame. new: it was not answered yet."""

    id: str
    label: str
    frame: int
    x: float
    y: float
    positive: bool
    new: bool
    region: Json

    def click(self, height: int, width: int) -> Click:
        """In pixels. A point on the right or bottom edge itself belongs to the last pixel."""
        x = min(self.x / 100 * width, math.nextafter(width, 0))
        y = min(self.y / 100 * height, math.nextafter(height, 0))
        return Click(x, y, self.positive)


@dataclass(frozen=True, slots=True)
class Ask:
    """One object for which masks are asked: its points, and the masks of it in the newest draft or annotation.

    by_hand: frame -> regions a person drew or changed. ours: frame -> the predicted region that stands unchanged.
    strayed: points of other objects that carry this one's label by mistake (see ``true_label``).
    draft: name of the person's draft, "" if there is none yet. answered: an answer to this was given before.
    """

    label: str
    point_control: Control
    mask_control: Control
    points: tuple[Point, ...]
    by_hand: Mapping[int, tuple[Json, ...]]
    ours: Mapping[int, Json]
    strayed: tuple[Point, ...] = ()
    draft: str = ""
    answered: bool = False

    @property
    def ids(self) -> frozenset[str]:
        """The points' ids: they tell whose request this is."""
        return frozenset(p.id for p in self.points)

    @property
    def new_points(self) -> tuple[Point, ...]:
        return tuple(p for p in self.points if p.new)

    @property
    def continued(self) -> bool:
        """Whether the page may show masks of this object already: it has points or masks from before."""
        return self.answered or len(self.new_points) < len(self.points) or bool(self.ours) or bool(self.by_hand)

    @property
    def focus(self) -> int:
        """The frame the person is looking at."""
        return (self.new_points or self.points)[-1].frame


def parse_asks(task: Json, context: Json, config: LabelConfig, frames: int) -> list[Ask]:
    """Read one interactive request: one Ask for each label that has points in the context.

    frames: number of frames of the task. Raises BadInput naming the field that is wrong.
    """
    regions = _list(context.get("result", []), "params.context.result")
    groups: dict[tuple[str, str], tuple[list[Point], list[Point]]] = {}
    for i, region in enumerate(regions):
        where = f"params.context.result[{i}]"
        value = _dict(region, where).get("value")
        if region.get("type") != "keypointlabels" or (isinstance(value, dict) and "rle" in value):
            continue  # a second, stray result of a mask: see true_label
        control = config.point_control(_text(region, "from_name", where))
        shown_label, point = _point(region, control, frames, where)
        groups.setdefault((control.name, shown_label), ([], []))[point.label != shown_label].append(point)
    asks = []
    for (name, label), (points, strayed) in groups.items():
        if not points:
            continue
        point_control = config.point_control(name)
        mask_control = config.mask_control(point_control, label)
        source, work = newest_work(task, {p.id for p in points})
        by_hand, ours = _masks(work, mask_control, label, frames)
        draft = source if source.startswith("draft") else ""
        asks.append(Ask(label, point_control, mask_control, tuple(points), by_hand, ours, tuple(strayed), draft))
    return asks


def decode_region_mask(region: Json, height: int, width: int) -> Mask:
    """The mask of a brush or bitmask region as HxW bool. Raises BadInput when its size is not the frame's."""
    where = f"region {region.get('id')!r}"
    check_size(region, height, width, where)
    value = _dict(region.get("value"), f"{where}.value")
    if not is_mask(region):
        raise BadInput(f"{where} has no mask: no value.rle, value.touches or value.imageDataURL")
    if isinstance(url := value.get("imageDataURL") or value.get("maskDataURL"), str):
        mask = decode_bitmask_url(url, (height, width))
    elif "rle" in value:
        mask = decode_brush_rle(value["rle"], (height, width))
    else:
        mask = np.zeros((height, width), bool)
    return apply_strokes(mask, value["touches"], f"{where}.value") if value.get("touches") else mask


def made_by_hand(result: Iterable[object], config: LabelConfig) -> set[tuple[str, str, int]]:
    """(mask tag, label, item_index) of the masks that a person drew or changed."""
    found: set[tuple[str, str, int]] = set()
    for region in result:
        if isinstance(region, dict) and is_mask(region) and region.get("origin", "manual") in BY_HAND:
            index = region.get("item_index", 0)
            for control in config.masks:
                labels = region["value"].get(control.type)
                if region.get("from_name") == control.name and isinstance(labels, list):
                    found |= {(control.name, label, index) for label in labels}
    return found


def check_size(region: Json, height: int, width: int, where: str) -> None:
    """Raise BadInput unless the region says that its frame is height x width, not rotated."""
    size = region.get("original_width"), region.get("original_height")
    if size != (width, height):
        raise BadInput(
            f"{where} was made on a picture of {size[0]}x{size[1]} pixels, but the video's frames are "
            f"{width}x{height}; reload the task"
        )
    if region.get("image_rotation", 0) != 0:
        raise BadInput(f"{where} is on a rotated picture: turn it back upright in Label Studio and click again")


def is_mask(region: Json) -> bool:
    """Whether a region holds a mask: as pixels, or as brush strokes."""
    value = region.get("value")
    return isinstance(value, dict) and not {"rle", "touches", "imageDataURL", "maskDataURL"}.isdisjoint(value)


def true_label(region: Json, shown: str, labels: tuple[str, ...]) -> str:
    """The object a point of ours belongs to.

    When answers arrive, the editor (1.23.2) gives every region in them the label that is selected at that moment: it
    relabels points, and adds second results of the wrong type to masks. What we noted in ``meta`` tells the truth.
    """
    meta = region.get("meta")
    noted = meta.get("object") if isinstance(meta, dict) else None
    return noted if noted in labels else shown


def _point(region: Json, control: Control, frames: int, where: str) -> tuple[str, Point]:
    value = _dict(region.get("value"), f"{where}.value")
    labels = value.get("keypointlabels") or value.get("labels")
    if not isinstance(labels, list) or len(labels) != 1:
        raise BadInput(f"{where}.value.keypointlabels must hold exactly one label, not {labels!r:.80}")
    label = labels[0]
    if label not in control.labels:
        raise BadInput(f"{where}: unknown label {label!r:.80}; {control.name!r} has {', '.join(control.labels)}")
    percent = []
    for axis in "xy":
        v = value.get(axis)
        if isinstance(v, bool) or not isinstance(v, int | float) or not 0 <= v <= 100:
            raise BadInput(f"{where}.value.{axis} is {v!r:.40}; it must be a percentage of the picture, 0 to 100")
        percent.append(float(v))
    positive = region.get("is_positive")
    new = positive is not None
    if positive is None:
        meta = region.get("meta")
        positive = meta.get("is_positive", True) if isinstance(meta, dict) else True
    if not isinstance(positive, bool):
        raise BadInput(f"{where}.is_positive must be true or false, not {positive!r:.40}")
    point = Point(
        id=_text(region, "id", where),
        label=true_label(region, label, control.labels),
        frame=_frame(region, frames, where),
        x=percent[0],
        y=percent[1],
        positive=positive,
        new=new,
        region=region,
    )
    return label, point


def newest_work(task: Json, point_ids: set[str]) -> tuple[str, list[Json]]:
    """The person's newest saved regions and a name for where they are: ``("draft:3", regions)``.

    Drafts and annotations of other people may come along. One that holds points of this request is the person's own
    for sure, so those go first; among equals the latest change wins. Skipped annotations do not count.
    """
    best: tuple[tuple[bool, datetime], str, list[Json]] | None = None
    for kind in ("drafts", "annotations"):
        for i, work in enumerate(_list(task.get(kind) or [], f"tasks[0].{kind}")):
            where = f"tasks[0].{kind}[{i}]"
            if _dict(work, where).get("was_cancelled"):
                continue
            regions = [_dict(r, f"{where}.result") for r in _list(work.get("result") or [], f"{where}.result")]
            rank = (any(r.get("id") in point_ids for r in regions), _moment(work.get("updated_at")))
            if best is None or rank > best[0]:
                best = (rank, f"{kind.removesuffix('s')}:{work.get('id')}", regions)
    return (best[1], best[2]) if best else ("", [])


def _masks(
    work: Iterable[Json], control: Control, label: str, frames: int
) -> tuple[dict[int, tuple[Json, ...]], dict[int, Json]]:
    by_hand: dict[int, tuple[Json, ...]] = {}
    ours: dict[int, Json] = {}
    work = [r for r in work if r.get("type") == control.type and r.get("to_name") == control.image and is_mask(r)]
    for region in work:
        where = f"region {region.get('id')!r}"
        frame = _frame(region, frames, where)
        shown = _list(region["value"].get(control.type) or [], f"{where}.value.{control.type}")
        if region.get("origin", "manual") in BY_HAND:
            if label in shown:
                by_hand[frame] = (*by_hand.get(frame, ()), region)
        else:
            owners = [known for known in control.labels if control.region_id(known, frame) == region.get("id")]
            if label in (owners or shown):  # ours may have strayed: see true_label
                ours[frame] = region
    return by_hand, ours


def _moment(text: object) -> datetime:
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _frame(region: Json, frames: int, where: str) -> int:
    index = region.get("item_index", 0)
    if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < frames:
        raise BadInput(f"{where}.item_index is {index!r:.40}; this task has frames 0 to {frames - 1}")
    return index


def _dict(value: object, where: str) -> Json:
    if not isinstance(value, dict):
        raise BadInput(f"{where} must be an object, not {type(value).__name__}")
    return value


def _list(value: object, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise BadInput(f"{where} must be a list, not {type(value).__name__}")
    return value


def _text(region: Json, name: str, where: str) -> str:
    value = region.get(name)
    if not isinstance(value, str) or not value:
        raise BadInput(f"{where}.{name} must be a text, not {value!r:.40}")
    return value
