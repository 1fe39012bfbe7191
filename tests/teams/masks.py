"""Annotations with masks, as the stand-in for Label Studio keeps them."""

from __future__ import annotations

import numpy as np

from tam_backend.labelstudio.config import parse_label_config
from tam_backend.labelstudio.layouts import labeling_config
from tam_backend.labelstudio.regions import mask_region, quality_note
from tests.teams.standin import StandIn

WIDTH, HEIGHT = 64, 48
LABELS = ("Person 1", "Person 2", "Ball")
CONFIG = labeling_config(LABELS, "bitmask")


def blob(x: int, y: int = 20, size: int = 8) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[y : y + size, x : x + size] = True
    return mask


def region(label: str, index: int, mask: np.ndarray, by_hand: bool = False, quality: float = 0.8) -> dict:
    [control] = parse_label_config(CONFIG).masks
    made = mask_region(control, label, index, mask, quality, quality_note("fake", index, quality))
    return made | ({"origin": "prediction-changed"} if by_hand else {})


def annotation(number: int, regions: list[dict], when: str = "2026-01-01T10:00:00Z", **fields: object) -> dict:
    return {"id": number, "result": regions, "updated_at": when, "was_cancelled": False, **fields}


def clip(studio: StandIn, project: int, first: int, count: int, name: str = "street.mp4", **work: object) -> dict:
    video = f"/data/upload/{project}/00000000-{name}"
    frames = [f"http://backend/frames/{'ab' * 16}/{first + i}.jpg?sig=x" for i in range(count)]
    work = {"total_annotations": len(work.get("annotations", [])), "total_predictions": 0} | work
    return studio.add_task(project, {"video": video, "frames": frames}, **work)
