"""DAVIS Interactive with clicks for scribbles: 8 rounds, each on the worst frame; J&F over computing time.

The protocol of Caelles et al., The 2018 DAVIS Challenge on Video Object Segmentation (arXiv:1803.00557): after each
round the frame of lowest J&F that was not corrected yet is corrected for all objects. Two things are ours: the robot
makes up to 3 clicks for an object where that one draws scribbles, and the first round is on the frame on which an
object is given, where that one has a person's scribbles on a frame of their choice.

Time model: that of the protocol. The clock runs while masks are computed, from the first click of a round to the last
mask; what a person takes to look and click does not count, nor does the scoring. Rounds that end after 30 s for each
object and round (240 s for each object in all) do not count: the last one before stands for them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from tam_backend.evaluation.protocols.base import CLICKS_PER_FRAME, Figures, Json, Scores, Work, timing
from tam_backend.evaluation.session import Session, ids_at

NAME = "davis-interactive"
SUMMARY = "8 rounds of clicks on the worst frame, J&F over computing time: area under the curve and J&F at 60 s"
RESUMES = False
TIMED = ("AUC", "J&F@60s")
MAIN = "J&F@8"

ROUNDS = 8
SECONDS_PER_ROUND = 30.0
AT_SECONDS = 60.0


def run(work: Work) -> Json:
    sequence = work.sequence
    rounds: list[Json] = []
    seconds: list[float] = []
    scores: dict[int, Scores] = {}
    with contextlib.ExitStack() as stack:
        sessions = {i: stack.enter_context(work.session(i)) for i in sequence.objects}
        used: set[int] = set()
        places: Mapping[int, int] = sequence.first
        for number in range(ROUNDS):
            before = sum(s.seconds for s in sessions.values())
            _correct(work, sessions, places, number)
            seconds.append(sum(s.seconds for s in sessions.values()) - before)
            used |= set(places.values())
            scores = _score(work, sessions)
            rounds.append(
                {
                    "frames": sorted(set(places.values())),
                    "clicks": sum(s.clicks for s in sessions.values()),
                    "J&F": {str(i): s.j_and_f for i, s in scores.items()},
                }
            )
            places = _worst(work, scores, used)
        for frame in range(len(work.video)):
            work.write(frame, ids_at(sessions, frame, sequence.height, sequence.width))
        return {
            "objects": {str(i): s.as_json() for i, s in scores.items()},
            "rounds": rounds,
            "timing": timing(sessions.values()) | {"rounds": seconds},
        }


def _correct(work: Work, sessions: Mapping[int, Session], places: Mapping[int, int], number: int) -> None:
    """One round: clicks on a frame for each object, then everything is tracked. places: object -> frame."""
    for done, (object_id, session) in enumerate(sessions.items()):
        if object_id in places:
            work.click(session, object_id, places[object_id], CLICKS_PER_FRAME)
        for _ in session.track(places.get(object_id, session.frames.start)):
            pass
        work.advance((number + (done + 1) / len(sessions)) / ROUNDS)


def _score(work: Work, sessions: Mapping[int, Session]) -> dict[int, Scores]:
    sequence = work.sequence
    scores = {i: Scores() for i in sequence.objects}
    seen = {i: frozenset(work.seen(i)) for i in sequence.objects}
    for frame in sequence.annotations:
        ids = ids_at(sessions, frame, sequence.height, sequence.width)
        for object_id in sequence.objects:
            if frame in seen[object_id]:
                scores[object_id].add(sequence, frame, object_id, ids == object_id)
    return scores


def _worst(work: Work, scores: Mapping[int, Scores], used: set[int]) -> dict[int, int]:
    """Object -> the frame of lowest mean J&F that was not corrected yet; if all were, any of them."""
    values: dict[int, list[float]] = {}
    for score in scores.values():
        for frame, j, f in zip(score.frames, score.j, score.f, strict=True):
            values.setdefault(frame, []).append((j + f) / 2)
    candidates = values.keys() - used or values.keys()
    frame = min(candidates, key=lambda f: (np.mean(values[f]), f))
    return {i: frame for i in work.sequence.objects if frame >= work.sequence.first[i]}


def total(results: list[Json]) -> Figures:
    """J&F after each round, means over objects, then the figures that depend on time."""
    per_round = [[v for r in results for v in r["rounds"][n]["J&F"].values()] for n in range(ROUNDS)]
    figures: Figures = {f"J&F@{n + 1}": float(np.mean(values)) for n, values in enumerate(per_round)}
    figures["clicks"] = float(np.mean([r["rounds"][-1]["clicks"] / len(r["objects"]) for r in results]))
    times, values = curve(results)
    figures["AUC"] = float(np.trapezoid(values, times)) / times[-1]
    figures["J&F@60s"] = float(np.interp(AT_SECONDS, times, values))
    return figures


def curve(results: list[Json]) -> tuple[list[float], list[float]]:
    """Seconds and J&F, from (0, 0) to the end of the time allowed, as the DAVIS Interactive report averages them.

    Times are means over sequences, J&F means over objects.
    """
    times, values = np.zeros((len(results), ROUNDS)), []
    for place, result in enumerate(results):
        limit = ROUNDS * SECONDS_PER_ROUND * len(result["objects"])
        ends = np.cumsum(result["timing"]["rounds"])
        in_time = ends <= limit
        times[place] = np.where(in_time, result["timing"]["rounds"], 0.0)
        for object_id in result["objects"]:
            reached, of_object = 0.0, []
            for counts, of_round in zip(in_time, result["rounds"], strict=True):
                reached = of_round["J&F"][object_id] if counts else reached
                of_object.append(reached)
            values.append(of_object)
    allowed = ROUNDS * SECONDS_PER_ROUND * float(np.mean([len(r["objects"]) for r in results]))
    means: Any = np.mean(values, axis=0)
    return [0.0, *np.cumsum(times.mean(axis=0)).tolist(), allowed], [0.0, *means.tolist(), float(means[-1])]
