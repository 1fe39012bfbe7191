"""Semi-supervised: each object is given once, and tracked forward to the end. J&F as in the DAVIS 2017 evaluation."""

from __future__ import annotations

import contextlib
import math

import numpy as np
from scipy.stats import spearmanr

from tam_backend.evaluation.metrics import region_similarity, statistics
from tam_backend.evaluation.protocols.base import Figures, Json, Scores, Work, timing
from tam_backend.evaluation.session import ids_at

NAME = "semi-supervised"
SUMMARY = "each object is given once, as --init says, and tracked to the end; J&F as in the DAVIS 2017 evaluation"
RESUMES = True
TIMED: tuple[str, ...] = ()
MAIN = "J&F"


def run(work: Work) -> Json:
    sequence, options = work.sequence, work.options
    scores = {i: Scores() for i in sequence.objects}
    quality: dict[int, list[float]] = {i: [] for i in sequence.objects}
    given: dict[int, float] = {}
    with contextlib.ExitStack() as stack:
        sessions = {i: stack.enter_context(work.session(i)) for i in sequence.objects}
        total, done = sum(len(s.frames) for s in sessions.values()), 0
        for object_id, session in sessions.items():
            frame = sequence.first[object_id]
            mask = work.initialise(session, object_id, options.init, options.init_clicks)
            given[object_id] = region_similarity(mask, sequence.mask(frame, object_id), sequence.void(frame))
            for _ in session.track(frame):
                done += 1
                work.advance(0.9 * done / total)
        scored = {i: frozenset(sequence.scored(i)) for i in sequence.objects}
        for frame in range(len(work.video)):
            ids = ids_at(sessions, frame, sequence.height, sequence.width)
            work.write(frame, ids)
            for object_id in sequence.objects:
                if frame in scored[object_id]:
                    scores[object_id].add(sequence, frame, object_id, ids == object_id)
                    quality[object_id].append(sessions[object_id].at(frame).quality)
        return {
            "objects": {
                str(i): {
                    "given_on": sequence.first[i],
                    "given_IoU": given[i],
                    "clicks": sessions[i].clicks,
                    **scores[i].as_json(),
                    "quality": quality[i],
                }
                for i in sequence.objects
            },
            "timing": timing(sessions.values()),
        }


def total(results: list[Json]) -> Figures:
    """The means over the objects of all sequences, which is how DAVIS 2017 averages."""
    objects = [o for r in results for o in r["objects"].values() if o["frames"]]
    if not objects:
        return dict.fromkeys(("J&F", "J", "F"))
    j, f = ([statistics(o[name]) for o in objects] for name in ("J", "F"))
    means = {
        "J": np.mean([s.mean for s in j]), "J recall": np.mean([s.recall for s in j]),
        "J decay": np.mean([s.decay for s in j]), "F": np.mean([s.mean for s in f]),
        "F recall": np.mean([s.recall for s in f]), "F decay": np.mean([s.decay for s in f]),
    }  # fmt: skip
    figures: Figures = {"J&F": float(means["J"] + means["F"]) / 2}
    figures |= {name: float(value) for name, value in means.items()}
    figures["given IoU"] = float(np.mean([o["given_IoU"] for o in objects]))
    figures["clicks"] = float(np.mean([o["clicks"] for o in objects]))
    figures["quality r"] = _rank_correlation(objects)
    return figures


def _rank_correlation(objects: list[Json]) -> float | None:
    """Spearman's, of the quality that the engine reports with J; None where one of them is the same everywhere."""
    j = [v for o in objects for v in o["J"]]
    quality = [v for o in objects for v in o["quality"]]
    if len(set(j)) < 2 or len(set(quality)) < 2:
        return None
    value = float(spearmanr(quality, j).statistic)
    return None if math.isnan(value) else value
