"""How much a person gains who corrects the frame that the product suggests.

    python benchmarks/oracle.py --data DAVIS_FOLDER --sequences blackswan dog ... --out results.json

The true mask of the first frame is given. Then, in each of 8 rounds, a robot gives the true mask of one more frame,
and J&F is measured over all frames, the given ones included, which are right for every robot. The robots differ in the
frame:

suggested: what the product suggests (``tam_backend.quality.suggestion``).
random: any frame that is not given yet; means over 5 seeds.
even: the middle of the longest stretch that no given frame is in; those that are given share out the video evenly.
shared out anew: as many frames as there were rounds, which share out the video evenly; others in each round. No person
could do that, since a corrected frame stays corrected; it tells how much is lost by deciding one frame after the other.

What is finished is kept in --out, and not measured again by the same robot with the same engine; --again names robots
to measure anew.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tam_backend.engines import Engine, load_engine
from tam_backend.evaluation.datasets import Sequence, load_sequence
from tam_backend.evaluation.layouts import find_sequences
from tam_backend.evaluation.metrics import boundary_measure, region_similarity
from tam_backend.evaluation.session import Session
from tam_backend.quality.suggestion import suggest
from tam_backend.tracking.store import MemoryStore

ROUNDS = 8
SEEDS = 5
ROBOTS = ("suggested", "even", "shared out anew", *(f"random {seed}" for seed in range(SEEDS)))
STORE_BYTES = 1_000_000_000

#: (quality of the frames that are not given, frames that are given) -> frames to give in this round.
Robot = Callable[[dict[int, float], list[int]], list[int]]


class Oracle:
    """One object of one sequence, the masks it gets from anchors, and their scores."""

    def __init__(self, engine: Engine, sequence: Sequence, object_id: int) -> None:
        self._engine, self._sequence, self._object = engine, sequence, object_id
        self._video = sequence.open()
        self._store = MemoryStore(STORE_BYTES)
        self._scored: dict[bytes, float] = {}
        self.frames = range(sequence.first[object_id], len(sequence.frames))
        self.computed = 0

    def round(self, given: list[int]) -> tuple[float, dict[int, float]]:
        """(J&F over all frames, quality of the frames that are not given) if these frames are given."""
        with Session(self._engine, self._video, self._store, self.frames) as session:
            for frame in given:
                session.draw(frame, self._sequence.mask(frame, self._object))
            tracked = {t.frame: t for t in session.track(given[-1])}
            self.computed += session.computed
        scores = [1.0 if f in given else self._score(f, tracked[f].mask) for f in self.frames]
        return float(np.mean(scores)), {f: t.quality for f, t in tracked.items() if f not in given}

    def _score(self, frame: int, mask: np.ndarray) -> float:
        key = hashlib.blake2b(np.packbits(mask).tobytes() + frame.to_bytes(4, "big")).digest()
        if key not in self._scored:
            truth = self._sequence.mask(frame, self._object)
            self._scored[key] = (region_similarity(mask, truth) + boundary_measure(mask, truth)) / 2
        return self._scored[key]


def middle(frames: range, given: list[int]) -> int:
    """The middle of the longest stretch of the range between given frames, or after the last; of equals, the first."""
    ends = [*sorted(given), frames.stop]
    before, after = max(itertools.pairwise(ends), key=lambda stretch: stretch[1] - stretch[0])
    return (before + after) // 2


def evenly(frames: range, count: int) -> list[int]:
    """``count`` frames that with the first one divide the range into parts of equal length."""
    return [frames.start + round(i * len(frames) / (count + 1)) for i in range(1, count + 1)]


def rounds(oracle: Oracle, name: str) -> dict[str, list[float] | list[list[int]]]:
    """J&F before the first round and after each, and the frames that were given."""
    first = oracle.frames.start
    rng = np.random.default_rng(int(name.split()[1])) if name.startswith("random") else None
    given = [first]
    value, quality = oracle.round(given)
    values, all_given = [value], [[first]]
    for number in range(1, ROUNDS + 1):
        if name == "even":
            given = [*given, middle(oracle.frames, given)]
        elif name == "shared out anew":
            given = [first, *evenly(oracle.frames, number)]
        elif rng is not None:
            given = [*given, int(rng.choice(sorted(quality)))]
        else:
            best = suggest(quality, given)
            given = given if best is None else [*given, best.frame]
        value, quality = oracle.round(given)
        values.append(value)
        all_given.append(list(given))
    return {"J&F": values, "given": all_given}


def table(results: dict[str, dict[str, dict[str, list[float]]]], names: list[str]) -> str:
    """Means over the objects of each round; then each object's mean over the rounds."""
    objects = [o for o in names if all(robot in results.get(o, {}) for robot in ROBOTS)]
    if not objects:
        return "nothing is finished for all robots yet"
    values = {r: np.array([results[o][r]["J&F"] for o in objects]) for r in ROBOTS}
    kinds = {
        "suggested": values["suggested"],
        "even": values["even"],
        "shared out anew": values["shared out anew"],
        "random": np.mean([values[r] for r in ROBOTS if r.startswith("random")], axis=0),
    }
    lines = [f"{'J&F after round':22}" + "".join(f"{n:7}" for n in range(ROUNDS + 1))]
    for kind, matrix in kinds.items():
        lines.append(f"{kind:22}" + "".join(f"{100 * v:7.1f}" for v in matrix.mean(axis=0)))
    lines.append("")
    lines.append(f"{'mean of rounds 1 to 8':22}" + "".join(f"{kind:>17}" for kind in kinds))
    for i, name in enumerate(objects):
        lines.append(f"{name:22}" + "".join(f"{100 * matrix[i, 1:].mean():17.1f}" for matrix in kinds.values()))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="a data set that `tam evaluate` knows")
    parser.add_argument("--sequences", nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True, help="JSON file of the results")
    parser.add_argument("--again", nargs="*", default=[], help="robots whose results are made anew, such as suggested")
    parser.add_argument("--robots", nargs="+", default=list(ROBOTS), choices=ROBOTS)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    found = {p.name: p for p in find_sequences(arguments.data).sequences}
    results = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    names = []
    for sequence in (load_sequence(found[n]) for n in arguments.sequences):
        engine = load_engine("embedded")
        for object_id in sequence.objects:
            name = f"{sequence.name}/{object_id}"
            names.append(name)
            done = results.setdefault(name, {})
            oracle = Oracle(engine, sequence, object_id)
            for robot in arguments.robots:
                if robot in done and robot not in arguments.again and done[robot]["engine"] == engine.version:
                    continue
                began, before = time.perf_counter(), oracle.computed
                done[robot] = rounds(oracle, robot) | {"engine": engine.version}
                arguments.out.write_text(json.dumps(results))
                curve = " ".join(f"{100 * v:.1f}" for v in done[robot]["J&F"])
                print(f"{name} {robot}: {curve}   ({oracle.computed - before} masks, "
                      f"{time.perf_counter() - began:.0f} s)", flush=True)  # fmt: skip
    print("\n" + table(results, names))


if __name__ == "__main__":
    main()
