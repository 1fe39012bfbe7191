"""Number of clicks (NoC) until the mask of a single frame is good: 0.85 and 0.90 IoU, at most 20, a failure is 20."""

from __future__ import annotations

from typing import Any

import numpy as np

from tam_backend.evaluation.metrics import region_similarity
from tam_backend.evaluation.protocols.base import Figures, Json, Work, timing
from tam_backend.evaluation.robot import next_click
from tam_backend.evaluation.session import Session
from tam_backend.prompts import Mask

NAME = "noc"
SUMMARY = "clicks until a single frame has IoU 0.85 and 0.90 (at most 20; failures count 20), no tracking"
RESUMES = True
TIMED: tuple[str, ...] = ()
MAIN = "NoC@90"

MAX_CLICKS = 20
TARGETS = (0.85, 0.90)
#: Frames of each object, evenly spaced over those on which it can be seen, the first and the last one among them.
FRAMES = 5
_SHOWN_COUNTS = (1, 3, 5, 10)


def run(work: Work) -> Json:
    sequence = work.sequence
    places = [(i, f) for i in sequence.objects for f in _choose(work, i)]
    objects: dict[str, Any] = {str(i): {"frames": [], "IoU": []} for i in sequence.objects}
    sessions = []
    for done, (object_id, frame) in enumerate(places, 1):
        with Session(work.engine, work.video, work.store, range(frame, frame + 1)) as session:
            objects[str(object_id)]["frames"].append(frame)
            objects[str(object_id)]["IoU"].append(_click_until_good(work, session, object_id, frame))
        sessions.append(session)
        work.advance(done / len(places))
    return {"objects": objects, "timing": timing(sessions)}


def _choose(work: Work, object_id: int) -> list[int]:
    visible = [f for f in work.seen(object_id) if work.sequence.mask(f, object_id).any()]
    return sorted({visible[round(i)] for i in np.linspace(0, len(visible) - 1, FRAMES)})


def _click_until_good(work: Work, session: Session, object_id: int, frame: int) -> list[float]:
    """IoU after each click, until the highest target or the last click that is allowed."""
    truth, void = work.sequence.mask(frame, object_id), work.sequence.void(frame)
    mask: Mask | None = None
    ious: list[float] = []
    while len(ious) < MAX_CLICKS and (click := next_click(mask, truth, void)) is not None:
        mask = session.click(frame, click)
        ious.append(region_similarity(mask, truth, void))
        if ious[-1] >= max(TARGETS):
            break
    return ious


def clicks_needed(ious: list[float], target: float) -> int:
    """How many clicks it took; 20 if they were not enough."""
    return next((n for n, iou in enumerate(ious, 1) if iou >= target), MAX_CLICKS)


def iou_after(ious: list[float], clicks: int) -> float:
    """A robot that has stopped leaves the mask as it is."""
    return ious[min(clicks, len(ious)) - 1]


def total(results: list[Json]) -> Figures:
    """Means over all frames of all objects."""
    series = [ious for r in results for o in r["objects"].values() for ious in o["IoU"]]
    figures: Figures = {}
    for target in TARGETS:
        name = f"{round(100 * target)}"
        figures[f"NoC@{name}"] = float(np.mean([clicks_needed(s, target) for s in series]))
        figures[f"failed@{name}"] = float(np.mean([max(s) < target for s in series]))
    return figures | {f"IoU@{n}": float(np.mean([iou_after(s, n) for s in series])) for n in _SHOWN_COUNTS}
