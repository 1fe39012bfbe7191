"""First boxes and masks that come with a task, so that its objects are tracked without a click.

``tam import --seed`` writes them into the data of tasks. Whoever corrects what follows from them means the same object,
as with predictions that came from another task of the video.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tam_backend.errors import BadInput
from tam_backend.labelstudio.config import Control, LabelConfig
from tam_backend.masks import decode_bitmask_url, encode_bitmask_url
from tam_backend.prompts import Box, FramePrompts, Mask
from tam_backend.tracking.tracker import Anchor

Json = dict[str, Any]

#: Key of task data.
SEEDS_KEY = "seeds"
_MAX_SEEDS = 10_000


@dataclass(frozen=True, slots=True, eq=False)
class Seed:
    """Where an object is on a frame of the original video: a box in pixels, or a mask (HxW bool, not empty)."""

    label: str
    frame: int
    box: Box | None = None
    mask: Mask | None = None

    def as_json(self) -> Json:
        fact: Json = {"label": self.label, "frame": self.frame}
        if self.mask is not None:
            return fact | {"mask": encode_bitmask_url(self.mask)}
        assert self.box is not None
        return fact | {"box": [self.box.left, self.box.top, self.box.right, self.box.bottom]}


def seeded_anchors(
    data: Mapping[str, Any], config: LabelConfig, frames: Mapping[int, int], height: int, width: int
) -> dict[tuple[Control, str], dict[int, Anchor]]:
    """What the seeds of a task say: (mask tag, label) -> frame -> anchor.

    frames: number in the original video -> frame as the engines count, of those that the task shows. Seeds on other
    frames do not count. Raises BadInput naming a seed that cannot be used.
    """
    found: dict[tuple[Control, str], dict[int, Anchor]] = {}
    for place, fact in enumerate(_listed(data)):
        where = f"{SEEDS_KEY}[{place}] of the task"
        frame, label = fact["frame"], fact["label"]
        if frame not in frames:
            continue
        control = next((c for c in config.masks if label in c.labels), None)
        if control is None:
            raise BadInput(f"{where}: the project has no label {label!r} for masks")
        prompts = _prompts(fact, where, height, width)
        found.setdefault((control, label), {})[frames[frame]] = Anchor(prompts)
    return found


def seeds_within(data: Mapping[str, Any], frames: Iterable[int]) -> list[Json]:
    """The seeds of a task that lie on some frames of the original video."""
    shown = set(frames)
    return [fact for fact in _listed(data) if fact["frame"] in shown]


def _listed(data: Mapping[str, Any]) -> list[Json]:
    seeds = data.get(SEEDS_KEY)
    if seeds is None:
        return []
    if not isinstance(seeds, list) or len(seeds) > _MAX_SEEDS or not all(isinstance(s, dict) for s in seeds):
        raise BadInput(f"{SEEDS_KEY} of the task must be a list of at most {_MAX_SEEDS} objects")
    for place, fact in enumerate(seeds):
        if not isinstance(fact.get("frame"), int) or not isinstance(fact.get("label"), str):
            raise BadInput(f"{SEEDS_KEY}[{place}] of the task must name a frame and a label")
    return seeds


def _prompts(fact: Json, where: str, height: int, width: int) -> FramePrompts:
    try:
        if "mask" in fact:
            prompts = FramePrompts(mask=decode_bitmask_url(fact["mask"], (height, width)))
        else:
            prompts = FramePrompts(box=Box(*map(float, fact["box"])))
        prompts.validate(height, width)
    except BadInput as e:
        raise BadInput(f"{where}: {e}") from e
    except (KeyError, TypeError, ValueError) as e:
        raise BadInput(f"{where} must have a mask, or a box of four numbers (left, top, right, bottom)") from e
    return prompts
