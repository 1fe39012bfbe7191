"""Offline: track the whole video, correct one frame by clicks, and again. 8 rounds of 3 clicks (SAM 2).

The protocol of Ravi et al., SAM 2: Segment Anything in Images and Videos (2024), E.1.2: the first round clicks the
first frame, each later one the frame of lowest IoU. A frame is corrected once, so that each round adds a frame. With
``--choose suggested`` the frame is the one that the product suggests, which knows no truth: what a person would follow.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tam_backend.evaluation.protocols.base import CLICKS_PER_FRAME, Figures, Json, Scores, Work, timing
from tam_backend.evaluation.protocols.suggestion import product_suggestion
from tam_backend.evaluation.session import Session, ids_at

NAME = "offline"
SUMMARY = "1 to 8 rounds over the whole video, each with 3 clicks on the frame that --choose says (SAM 2)"
RESUMES = True
TIMED: tuple[str, ...] = ()
MAIN = "mean of rounds"

ROUNDS = 8


def run(work: Work) -> Json:
    sequence = work.sequence
    objects: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        sessions = {i: stack.enter_context(work.session(i)) for i in sequence.objects}
        for number, (object_id, session) in enumerate(sessions.items()):

            def advance(share: float, number: int = number) -> None:
                work.advance((number + share) / len(sessions))

            objects[str(object_id)] = _correct(work, session, object_id, advance)
        for frame in range(len(work.video)):
            work.write(frame, ids_at(sessions, frame, sequence.height, sequence.width))
    return {"objects": objects, "timing": timing(sessions.values())}


def _correct(work: Work, session: Session, object_id: int, advance: Callable[[float], None]) -> Json:
    seen = work.seen(object_id)
    frame: int | None = work.sequence.first[object_id]
    rounds: list[Json] = []
    looked_at: set[int] = set()
    scores = Scores()
    for number in range(ROUNDS):
        if frame is None:  # nothing left to correct: nobody makes a further click
            rounds.append({**rounds[-1], "frame": None})
            continue
        looked_at.add(frame)
        work.click(session, object_id, frame, CLICKS_PER_FRAME)
        quality: dict[int, float] = {}
        for done, tracked in enumerate(session.track(frame), 1):
            if not tracked.anchor:
                quality[tracked.frame] = tracked.quality
            advance((number + 0.9 * done / len(session.frames)) / ROUNDS)
        scores = Scores()
        for seen_frame in seen:
            scores.add(work.sequence, seen_frame, object_id, session.at(seen_frame).mask)
        rounds.append({"frame": frame, "clicks": session.clicks, "J&F": scores.j_and_f})
        frame = _choose(work, scores, quality, looked_at)
    advance(1.0)
    return {"rounds": rounds, **scores.as_json()}


def _choose(work: Work, scores: Scores, quality: Mapping[int, float], looked_at: set[int]) -> int | None:
    """The next frame to look at and to correct, among those with a true mask: elsewhere the robot is blind."""
    if work.options.choose == "suggested":
        seen = set(scores.frames)
        return product_suggestion({f: q for f, q in quality.items() if f in seen}, looked_at)
    left = [(j, f) for f, j in zip(scores.frames, scores.j, strict=True) if f not in looked_at and j < 1]
    return min(left)[1] if left else None


def total(results: list[Json]) -> Figures:
    """J&F after each round, means over objects, and the clicks that were made in all."""
    objects = [o for r in results for o in r["objects"].values()]
    figures: Figures = {f"J&F@{n + 1}": float(np.mean([o["rounds"][n]["J&F"] for o in objects])) for n in range(ROUNDS)}
    figures["mean of rounds"] = float(np.mean([o["rounds"][n]["J&F"] for o in objects for n in range(ROUNDS)]))
    figures["clicks"] = float(np.mean([o["rounds"][-1]["clicks"] for o in objects]))
    return figures
