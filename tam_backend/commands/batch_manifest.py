"""The manifest of ``tam batch``: one JSON object a line for each video, checked in full before anything begins."""

from __future__ import annotations

import argparse
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from tam_backend.commands.track_predictions import Naming, name_objects
from tam_backend.commands.track_prompts import BoxOption, ClickOption, parse_box, parse_click, parse_label
from tam_backend.errors import BadInput
from tam_backend.tracking.objects import MAX_ID

_KEYS = {"video", "name", "click", "box", "mask", "label", "start", "end", "refine_masks"}
#: What ``dead-letters.jsonl`` has beside that. It is a manifest, too.
_NOTES = {"error", "attempts", "workers"}
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,150}")
_MASK = re.compile(r"([0-9]+)=(.+?)(?::([0-9]{1,3}))?")


@dataclass(frozen=True, slots=True)
class GivenMask:
    """``FRAME=ADDRESS[:OBJECT]`` of a manifest. object_id: None: the picture's values say."""

    frame: int
    url: str
    object_id: int | None

    @property
    def text(self) -> str:
        return f"{self.frame}={self.url}" + (f":{self.object_id}" if self.object_id else "")


@dataclass(frozen=True, slots=True)
class Item:
    """A video to track. video, masks: paths or addresses, as every worker can read them. end: the last frame, None: of
    the video. line: what the manifest said, for the list of dead letters."""

    name: str
    video: str
    clicks: tuple[ClickOption, ...]
    masks: tuple[GivenMask, ...]
    labels: tuple[tuple[int, str], ...]
    start: int
    end: int | None
    refine_masks: bool
    line: Mapping[str, Any]
    boxes: tuple[BoxOption, ...] = ()

    def digest(self, engine: str) -> str:
        """Names what decides the masks, as far as the manifest does. engine: name and version."""
        facts: list[Any] = [
            self.video, [c.text for c in self.clicks], [(m.frame, m.url, m.object_id) for m in self.masks],
            self.labels, self.start, self.end, self.refine_masks, engine,
        ]  # fmt: skip
        if self.boxes:
            facts.append([b.text for b in self.boxes])
        return hashlib.blake2b(json.dumps(facts).encode(), digest_size=16).hexdigest()


def read_manifest(path: Path) -> list[Item]:
    """Raises BadInput naming the line, and what is wrong with it."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise BadInput(f"the manifest {path} cannot be read: {e}") from e
    items: list[Item] = []
    taken: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            item = _item(_object(line), path.parent)
        except (BadInput, argparse.ArgumentTypeError) as e:
            raise BadInput(f"{path}, line {number}: {e}") from e
        if item.name in taken:
            raise BadInput(
                f"{path}, line {number}: line {taken[item.name]} is called {item.name!r}, too; give one of them a "
                'name of its own: "name": "..."'
            )
        taken[item.name] = number
        items.append(item)
    if not items:
        raise BadInput(f"the manifest {path} names no video")
    return items


def _object(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as e:
        raise BadInput(f"it is no JSON: {e}") from e
    if not isinstance(found, dict):
        raise BadInput('it must be a JSON object, such as {"video": "a.mp4", "click": ["0,320,240"]}')
    if unknown := found.keys() - _KEYS - _NOTES:
        raise BadInput(f"there is no {sorted(unknown)[0]!r}; known are {', '.join(sorted(_KEYS))}")
    return found


def _item(line: dict[str, Any], folder: Path) -> Item:
    video = _text(line, "video")
    if not video:
        raise BadInput('it has no "video"')
    name = _text(line, "name") or folder_name(PurePosixPath(video).stem)
    if not _NAME.fullmatch(name) or name.endswith(".zip"):
        raise BadInput(f"the name {name!r} must be letters, digits, _ - and . (it names a folder)")
    clicks = tuple(parse_click(text) for text in _texts(line, "click"))
    boxes = tuple(parse_box(text) for text in _texts(line, "box"))
    masks = tuple(_mask(text, folder) for text in _texts(line, "mask"))
    labels = tuple(parse_label(text) for text in _texts(line, "label"))
    if not clicks and not masks and not boxes:
        raise BadInput(
            'it must say what to track: "click": ["FRAME,X,Y[,-][:OBJECT]"], "box": '
            '["FRAME,LEFT,TOP,RIGHT,BOTTOM[:OBJECT]"] or "mask": ["FRAME=PNG"]'
        )
    start, end = _count(line, "start") or 0, _count(line, "end")
    if end is not None and end < start:
        raise BadInput(f"start {start} is after end {end}")
    refine = line.get("refine_masks", False)
    if not isinstance(refine, bool):
        raise BadInput("refine_masks must be true or false")
    known = {c.object_id for c in clicks} | {b.object_id for b in boxes} | {m.object_id for m in masks if m.object_id}
    if all(m.object_id for m in masks):
        Naming("mask", "image", "brush", name_objects(sorted(known), labels))  # whether labels fit; else it shows later
    facts = {key: value for key, value in line.items() if key not in _NOTES}
    facts |= {"video": _absolute(video, folder), "name": name}
    if masks:
        facts["mask"] = [m.text for m in masks]
    return Item(name, _absolute(video, folder), clicks, masks, labels, start, end, refine, facts, boxes)


def folder_name(text: str) -> str:
    """A name for the folder of a video, from what the video is called."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", text).strip("_-") or "video"


def _mask(text: str, folder: Path) -> GivenMask:
    match = _MASK.fullmatch(text)
    if not match or (match[3] and not 1 <= int(match[3]) <= MAX_ID):
        raise BadInput(f"mask {text!r} is not FRAME=PNG or FRAME=PNG:OBJECT, such as 0=first.png:2")
    return GivenMask(int(match[1]), _absolute(match[2], folder), int(match[3]) if match[3] else None)


def _absolute(text: str, folder: Path) -> str:
    """Paths count from the manifest's folder: workers have another one."""
    return text if "://" in text else str((folder / text).resolve())


def _text(line: Mapping[str, Any], key: str) -> str:
    value = line.get(key, "")
    if not isinstance(value, str):
        raise BadInput(f"{key} must be a text, not {json.dumps(value)[:50]}")
    return value


def _texts(line: Mapping[str, Any], key: str) -> list[str]:
    value = line.get(key, [])
    value = [value] if isinstance(value, str) else value
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise BadInput(f"{key} must be a list of texts, as the options of tam track, such as {_EXAMPLES[key]}")
    return value


def _count(line: Mapping[str, Any], key: str) -> int | None:
    value = line.get(key)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
        raise BadInput(f"{key} must be the number of a frame, not {json.dumps(value)[:50]}")
    return value


_EXAMPLES = {
    "click": '["0,320,240"]',
    "box": '["0,320,240,400,300"]',
    "mask": '["0=first.png"]',
    "label": '["1=Person"]',
}


def again(item: Item, error: str, attempts: int, workers: str) -> dict[str, Any]:
    """A line for the list of dead letters."""
    return {**item.line, "error": error, "attempts": attempts, "workers": workers}
