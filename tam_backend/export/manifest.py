"""``export.json``: what a data set that we wrote consists of, beside what its format can say."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tam_backend.export.dataset import Dataset, Track

FILE = "export.json"


@dataclass(frozen=True, slots=True)
class VideoNote:
    """A video as it was exported. frames: numbers in the original video."""

    name: str
    height: int
    width: int
    frames: tuple[int, ...]
    fps: float


@dataclass(frozen=True, slots=True)
class Manifest:
    """format: name of the format. videos: by name."""

    format: str
    tracks: tuple[Track, ...]
    videos: dict[str, VideoNote]


def describe(dataset: Dataset, format_name: str, **more: Any) -> str:
    """The text of the file. more: what else to note."""
    content = {
        "made_by": "tam export",
        "format": format_name,
        "origin": dataset.origin,
        **more,
        "tracks": [{"id": t.id, "label": t.label, "class": t.category} for t in dataset.tracks],
        "videos": [
            {
                "name": v.name,
                "height": v.height,
                "width": v.width,
                "fps": v.fps,
                "frames": [[r.start, r.stop - 1] for r in runs(v.frames)],
            }
            for v in dataset.videos
        ],
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def load(root: Path) -> Manifest | None:
    """What is noted in a folder; None if it is not a data set that we wrote."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        content = json.loads((root / FILE).read_bytes())
        if content["made_by"] == "tam export":
            videos = [
                VideoNote(
                    v["name"], v["height"], v["width"],
                    tuple(f for first, last in v["frames"] for f in range(first, last + 1)), v["fps"],
                )
                for v in content["videos"]
            ]  # fmt: skip
            tracks = tuple(Track(t["id"], t["label"], t["class"]) for t in content["tracks"])
            return Manifest(content["format"], tracks, {v.name: v for v in videos})
    return None


def runs(frames: Iterable[int]) -> Sequence[range]:
    """Ascending frames as unbroken ranges."""
    found: list[range] = []
    for frame in frames:
        if found and found[-1].stop == frame:
            found[-1] = range(found[-1].start, frame + 1)
        else:
            found.append(range(frame, frame + 1))
    return found
