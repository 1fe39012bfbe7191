"""Online: one pass through the video; stop where IoU is below 0.75, correct with 3 clicks, go on (SAM 2).

The protocol of Ravi et al., SAM 2: Segment Anything in Images and Videos (2024), E.1.2, with at most 8 frames that are
clicked, the first one included. "passed" scores each frame as it was when the pass came by, which is that protocol.
"J&F" scores the masks that there are in the end: our corrections also change frames before the one that is corrected.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import Any

import numpy as np

from tam_backend.evaluation.metrics import region_similarity
from tam_backend.evaluation.protocols.base import CLICKS_PER_FRAME, Figures, Json, Scores, Work, timing
from tam_backend.evaluation.session import Session, ids_at
from tam_backend.tracking.tracker import TrackedFrame

NAME = "online"
SUMMARY = "one pass; where IoU is below 0.75 it stops for 3 clicks and goes on; at most 8 frames are clicked (SAM 2)"
RESUMES = True
TIMED: tuple[str, ...] = ()
MAIN = "passed J&F"

STOP_BELOW = 0.75
MAX_FRAMES = 8


def run(work: Work) -> Json:
    sequence = work.sequence
    objects: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        sessions = {i: stack.enter_context(work.session(i)) for i in sequence.objects}
        for number, (object_id, session) in enumerate(sessions.items()):
            objects[str(object_id)] = _pass(work, session, object_id)
            work.advance((number + 1) / len(sessions))
        for frame in range(len(work.video)):
            work.write(frame, ids_at(sessions, frame, sequence.height, sequence.width))
    return {"objects": objects, "timing": timing(sessions.values())}


def _pass(work: Work, session: Session, object_id: int) -> Json:
    sequence, first = work.sequence, work.sequence.first[object_id]
    seen = set(work.seen(object_id))
    corrected = [first]
    passed, final = Scores(), Scores()
    mask = work.click(session, object_id, first, CLICKS_PER_FRAME)
    passed.add(sequence, first, object_id, mask)
    steps = _forward(session, first)
    try:
        for frame in session.frames[1:]:
            mask = next(steps).mask
            if frame not in seen:
                continue
            truth, void = sequence.mask(frame, object_id), sequence.void(frame)
            if region_similarity(mask, truth, void) < STOP_BELOW and len(corrected) < MAX_FRAMES:
                steps.close()
                corrected.append(frame)
                mask = work.click(session, object_id, frame, CLICKS_PER_FRAME)
                steps = _forward(session, frame)
            passed.add(sequence, frame, object_id, mask)
    finally:
        steps.close()
    for _ in session.track(corrected[-1]):  # what a correction changes before its frame
        pass
    for frame in sorted(seen):
        final.add(sequence, frame, object_id, session.at(frame).mask)
    return {
        "corrected": corrected,
        "clicks": session.clicks,
        "passed": {"J": passed.j, "F": passed.f, "J&F": passed.j_and_f},
        "J&F": final.j_and_f,
        **final.as_json(),
    }


def _forward(session: Session, after: int) -> Generator[TrackedFrame, None, None]:
    """The frames after one, in order. Frames before it that the tracker comes to in between are kept in its store."""
    ahead: dict[int, TrackedFrame] = {}
    wanted = after + 1
    steps = session.track(after)
    try:
        for tracked in steps:
            if tracked.frame >= wanted:
                ahead[tracked.frame] = tracked
            while wanted in ahead:
                yield ahead.pop(wanted)
                wanted += 1
    finally:
        steps.close()


def total(results: list[Json]) -> Figures:
    """Means over objects."""
    objects = [o for r in results for o in r["objects"].values()]
    return {
        "passed J&F": float(np.mean([o["passed"]["J&F"] for o in objects])),
        "J&F": float(np.mean([o["J&F"] for o in objects])),
        "frames clicked": float(np.mean([len(o["corrected"]) for o in objects])),
        "clicks": float(np.mean([o["clicks"] for o in objects])),
    }
