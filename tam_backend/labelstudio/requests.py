"""What Label Studio asks: task and context JSON become prompts. Everything is checked here, at the door.

What a request holds is in ``tests/data/payloads``: the prompts of one label and of one tag, points or boxes. Those of
the other tag are taken from the person's saved work, which may lag some seconds behind the page.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from tam_backend.errors import BadInput
from tam_backend.labelstudio.config import Control, LabelConfig
from tam_backend.labelstudio.prompts import (
    MASK_FIELDS,
    Json,
    Point,
    Prompt,
    Rectangle,
    frame_index,
    read_prompts,
    saved_prompts,
)
from tam_backend.labelstudio.strokes import apply_strokes
from tam_backend.masks import decode_bitmask_url, decode_brush_rle
from tam_backend.prompts import Box, Click, FramePrompts, Mask

#: Origins of regions that a person drew or changed. Masks taken over from us as they were have ``prediction``.
BY_HAND = frozenset({"manual", "prediction-changed"})
MASK_TYPES = ("brushlabels", "bitmasklabels")


@dataclass(frozen=True, slots=True)
class FrameAsk:
    """What a person gave on one frame for one object, in pixels. first: id of the first prompt. new: it was not
    answered yet."""

    first: str
    new: bool
    prompts: FramePrompts


@dataclass(frozen=True, slots=True)
class Ask:
    """One object for which masks are asked: its prompts, and the masks of it in the newest draft or annotation.

    prompts: those of the saved work first, then the request's own, in the order in which they were made. by_hand:
    frame -> regions a person drew or changed. ours: frame -> the predicted region that stands unchanged. strayed:
    prompts of other objects that carry this one's label by mistake (see ``true_label``). draft: name of the person's
    draft, "" if there is none yet. saved: names the state of the saved work. answered: an answer was given before.
    taken: frames where our mask of this object was given to another one by hand, and keeps its id.
    """

    label: str
    mask_control: Control
    prompts: tuple[Prompt, ...]
    by_hand: Mapping[int, tuple[Json, ...]]
    ours: Mapping[int, Json]
    strayed: tuple[Prompt, ...] = ()
    draft: str = ""
    saved: str = ""
    answered: bool = False
    taken: frozenset[int] = frozenset()

    @property
    def object(self) -> tuple[str, str]:
        """(mask tag, label): which of the task's objects this is."""
        return self.mask_control.name, self.label

    @property
    def ids(self) -> frozenset[str]:
        """The prompts' ids: they tell whose request this is."""
        return frozenset(p.id for p in self.prompts)

    @property
    def points(self) -> tuple[Point, ...]:
        return tuple(p for p in self.prompts if isinstance(p, Point))

    @property
    def boxes(self) -> tuple[Rectangle, ...]:
        return tuple(p for p in self.prompts if isinstance(p, Rectangle))

    @property
    def new_prompts(self) -> tuple[Prompt, ...]:
        """What the person did that led to this request."""
        return tuple(p for p in self.prompts if p.new and not p.merged)

    @property
    def echoed(self) -> tuple[Prompt, ...]:
        """What the answer has to bring along: the page drops every waiting prompt, of any tag, that is not in it."""
        return (*(p for p in self.prompts if p.new), *self.strayed)

    @property
    def continued(self) -> bool:
        """Whether the page may show masks of this object already: it has prompts or masks from before."""
        answered = any(not p.new for p in self.prompts)
        return self.answered or answered or bool(self.ours) or bool(self.by_hand)

    def region_id(self, frame: int) -> str:
        """The id of the mask to send for a frame."""
        shown = self.ours.get(frame, {}).get("id")
        if isinstance(shown, str):
            return shown  # a prediction from elsewhere is replaced, not doubled
        return self.mask_control.region_id(self.label, frame) + ("-own" if frame in self.taken else "")

    @property
    def focus(self) -> int:
        """The frame the person is looking at."""
        return (self.new_prompts or self.prompts)[-1].frame

    def prompts_by_frame(self, height: int, width: int) -> dict[int, FrameAsk]:
        """Frame -> what was given there, without the frames that have a mask by hand.

        The newest box of a frame counts, made as large as its positive points need: they are on the object for sure.
        Frames prompted for the first time come last: what they showed follows from the other ones.
        """
        frames: dict[int, list[Prompt]] = {}
        for prompt in self.prompts:
            if prompt.frame not in self.by_hand:
                frames.setdefault(prompt.frame, []).append(prompt)
        found = {}
        for index, prompts in sorted(frames.items(), key=lambda item: item[1][0].new):
            clicks = tuple(p.click(height, width) for p in prompts if isinstance(p, Point))
            boxes = [p.box(height, width) for p in prompts if isinstance(p, Rectangle)]
            box = _holding(boxes[-1], clicks) if boxes else None
            found[index] = FrameAsk(prompts[0].id, prompts[0].new, FramePrompts(clicks, box))
        return found


def _holding(box: Box, clicks: tuple[Click, ...]) -> Box:
    """The box, made large enough for the pixels of all positive clicks."""
    columns = [int(c.x) for c in clicks if c.positive]
    rows = [int(c.y) for c in clicks if c.positive]
    return Box(
        min([box.left, *columns]),
        min([box.top, *rows]),
        max([box.right, *(x + 1 for x in columns)]),
        max([box.bottom, *(y + 1 for y in rows)]),
    )


@dataclass(frozen=True, slots=True)
class SavedWork:
    """What the person has saved last. name: where, such as ``draft:3``, "" if nowhere; version: of which save.

    certain: it is this person's, as far as Label Studio tells.
    """

    name: str = ""
    version: str = ""
    regions: tuple[Json, ...] = ()
    certain: bool = False


def parse_asks(task: Json, context: Json, config: LabelConfig, frames: int) -> list[Ask]:
    """Read one interactive request: one Ask for each label that has prompts in the context.

    frames: number of frames of the task. Raises BadInput naming the field that is wrong.
    """
    where = "params.context.result"
    images = {c.name: c.image for c in (*config.points, *config.boxes)}
    found = read_prompts(_list(context.get("result", []), where), config, frames, where)
    newest = next((prompt for _, prompt in reversed(found) if prompt.new), None)
    groups: dict[tuple[str, str], tuple[list[Prompt], list[Prompt]]] = {}
    for shown_label, prompt in found:
        group = groups.setdefault((images[prompt.region["from_name"]], shown_label), ([], []))
        group[prompt.label != shown_label].append(prompt)
    asks = []
    for (image, label), (prompts, strayed) in groups.items():
        if not prompts:
            continue
        try:
            mask_control = config.mask_control(image, label)
        except BadInput:
            if newest in prompts:
                raise
            continue  # the label was removed; it must not be in the way of other objects
        work = newest_work(task, {p.id for p in prompts})
        merged = _other_prompts(work, prompts, label, image, config, frames)
        by_hand, ours, taken = _masks(work.regions, mask_control, label, frames)
        asks.append(
            Ask(
                label=label,
                mask_control=mask_control,
                prompts=(*merged, *prompts),
                by_hand=by_hand,
                ours=ours,
                strayed=tuple(strayed),
                draft=work.name if work.name.startswith("draft") else "",
                saved=f"{work.name}@{work.version}",
                taken=taken,
            )
        )
    return asks


def drawn_objects(task: Json, prompt_ids: Set[str], config: LabelConfig, frames: int) -> list[Ask]:
    """The objects of which the person's newest work has masks by hand, without their prompts."""
    work = newest_work(task, prompt_ids)
    drawn = sorted({(tag, label) for tag, label, _ in made_by_hand(work.regions, config)})
    found = []
    for tag, label in drawn:
        control = config.find_mask(tag, label)
        assert control is not None
        by_hand, ours, taken = _masks(work.regions, control, label, frames)
        found.append(Ask(label, control, (), by_hand, ours, saved=f"{work.name}@{work.version}", taken=taken))
    return found


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
            labels = mask_labels(region)
            for control in config.masks:
                if region.get("to_name") == control.image:
                    index = region.get("item_index", 0)
                    found |= {(control.name, label, index) for label in control.labels if label in labels}
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
    return isinstance(value, dict) and not MASK_FIELDS.isdisjoint(value)


def mask_labels(region: Json) -> list[Any]:
    """The labels of a mask, also of one made when the project had the other kind of mask tag. Empty for second results
    that the editor adds to masks."""
    kind = region.get("type")
    labels = region["value"].get(kind) if kind in MASK_TYPES else None
    return labels if isinstance(labels, list) else []


def newest_work(task: Json, prompt_ids: Set[str]) -> SavedWork:
    """The person's newest saved regions.

    Drafts and annotations of other people may come along. One that holds prompts of this request is the person's own
    for sure, so those go first; among equals the latest change wins. Skipped annotations do not count.
    """
    found: list[tuple[tuple[bool, datetime], SavedWork]] = []
    for kind in ("drafts", "annotations"):
        for i, work in enumerate(_list(task.get(kind) or [], f"tasks[0].{kind}")):
            where = f"tasks[0].{kind}[{i}]"
            if _dict(work, where).get("was_cancelled"):
                continue
            regions = tuple(_dict(r, f"{where}.result") for r in _list(work.get("result") or [], f"{where}.result"))
            holds = any(r.get("id") in prompt_ids for r in regions)
            version = str(work.get("updated_at"))
            name = f"{kind.removesuffix('s')}:{work.get('id')}"
            # Drafts in a request are those of the user who made it, annotations are everybody's.
            found.append(((holds, _moment(version)), SavedWork(name, version, regions, holds or kind == "drafts")))
    if not found:
        return SavedWork()
    best = max(found, key=lambda item: item[0])[1]
    return best if len(found) > 1 else replace(best, certain=True)


def _other_prompts(
    work: SavedWork, prompts: list[Prompt], label: str, image: str, config: LabelConfig, frames: int
) -> list[Prompt]:
    """An object's saved prompts of the tags that its request says nothing about: a request holds those of one tag."""
    if not work.certain:
        return []
    said = {type(p) for p in prompts}
    images = {c.name: c.image for c in (*config.points, *config.boxes)}
    return [
        p
        for p in saved_prompts(work.regions, config, frames)
        if p.label == label and type(p) not in said and images[p.region["from_name"]] == image
    ]


def _masks(
    work: Iterable[Json], control: Control, label: str, frames: int
) -> tuple[dict[int, tuple[Json, ...]], dict[int, Json], frozenset[int]]:
    """(by_hand, ours, taken) of one object; see Ask.

    Masks of either kind count. Where a project was changed from one kind to the other under an open task, a mask of
    ours would replace a drawing of the other kind that has its id.
    """
    by_hand: dict[int, tuple[Json, ...]] = {}
    ours: dict[int, Json] = {}
    taken: set[int] = set()
    for region in work:
        if region.get("type") not in MASK_TYPES or region.get("to_name") != control.image or not is_mask(region):
            continue
        frame = frame_index(region, frames, f"region {region.get('id')!r}")
        shown = mask_labels(region)
        if region.get("origin", "manual") in BY_HAND:
            if label in shown:
                by_hand[frame] = (*by_hand.get(frame, ()), region)
            elif region.get("id") == control.region_id(label, frame):
                taken.add(frame)
        else:
            owners = [known for known in control.labels if control.region_id(known, frame) == region.get("id")]
            if label in (owners or shown):  # ours may have strayed: see true_label
                ours[frame] = region
    return by_hand, ours, frozenset(taken)


def _moment(text: object) -> datetime:
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _dict(value: object, where: str) -> Json:
    if not isinstance(value, dict):
        raise BadInput(f"{where} must be an object, not {type(value).__name__}")
    return value


def _list(value: object, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise BadInput(f"{where} must be a list, not {type(value).__name__}")
    return value
