"""``VideoRectangle`` sequences for Label Studio projects with a ``<Video>``: boxes with keyframes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tam_backend.export.dataset import Dataset, Video, bounding_box
from tam_backend.export.formats.common import walk
from tam_backend.export.keyframes import Box, Keyframe, reduce_boxes
from tam_backend.labelstudio.layouts import labeling_config

TASKS, CONFIG = "tasks.json", "label_config.xml"


def write(dataset: Dataset, out: Path) -> list[str]:
    """Returns notes for people."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / TASKS).open("w", encoding="utf-8") as file:
        file.writelines(_chunks(dataset))
    (out / CONFIG).write_text(labeling_config([t.label for t in dataset.tracks], "rectangle"), encoding="utf-8")
    nowhere = [v.name for v in dataset.videos if not v.address]
    if not nowhere:
        return []
    return [f'{TASKS}: put the address of {", ".join(nowhere)} into "video" before you import it']


def _chunks(dataset: Dataset) -> Iterator[str]:
    yield "["
    for number, video in enumerate(dataset.videos):
        boxes: dict[int, dict[int, Box]] = {}
        for masked in walk(video):
            for track, mask in masked.masks.items():
                boxes.setdefault(track, {})[masked.frame] = bounding_box(mask)
        labels = {t.id: t.label for t in video.tracks}
        regions = [region(video, labels[i], reduce_boxes(of_track)) for i, of_track in sorted(boxes.items())]
        task = {
            "data": {"video": video.address or f"{video.name}.mp4", "fps": str(round(video.fps, 4))},
            "predictions": [{"model_version": "tam export", "result": regions}],
        }
        yield ("," if number else "") + "\n" + json.dumps(task, ensure_ascii=False)
    yield "\n]\n"


def region(video: Video, label: str, keyframes: list[Keyframe]) -> dict[str, Any]:
    """Label Studio counts frames from 1, and shows a keyframe that ends a stay on its own frame still."""
    length = video.length or video.frames[-1] + 1
    sequence = []
    for key in keyframes:
        left, top, right, bottom = key.box
        sequence.append(
            {
                "frame": key.frame + 1,
                "enabled": not key.last,
                "rotation": 0,
                "x": 100 * left / video.width,
                "y": 100 * top / video.height,
                "width": 100 * (right - left) / video.width,
                "height": 100 * (bottom - top) / video.height,
                "time": (key.frame + 1) / video.fps,
            }
        )
    return {
        "id": f"tam-{hashlib.blake2b(f'{video.name}/{label}'.encode(), digest_size=5).hexdigest()}",
        "from_name": "box",
        "to_name": "video",
        "type": "videorectangle",
        "origin": "prediction",
        "value": {
            "framesCount": length,
            "duration": length / video.fps,
            "sequence": sequence,
            "labels": [label],
        },
    }
