"""How long it takes to score masks, without making them.

    python benchmarks/scoring.py DATASET MASKS [--imset FILE] [--jobs 2]

MASKS: a folder as `tam evaluate` writes it, with a folder of PNGs for each sequence. J and F of every object on every
frame that counts, files read included; sequences are shared out among processes.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tam_backend.evaluation.datasets import load_sequence
from tam_backend.evaluation.layouts import SequencePaths, find_sequences
from tam_backend.evaluation.pictures import read_ids
from tam_backend.evaluation.protocols.base import Scores


def score(paths: SequencePaths, masks: Path) -> tuple[str, int, float]:
    """Name, number of masks that were scored, mean J&F over the objects."""
    sequence = load_sequence(paths)
    scores = {i: Scores() for i in sequence.objects}
    for frame in sequence.annotations:
        objects = [i for i in sequence.objects if frame in sequence.scored(i)]
        ids = read_ids(masks / sequence.name, sequence.stems[frame]) if objects else None
        if ids is not None:
            for object_id in objects:
                scores[object_id].add(sequence, frame, object_id, ids == object_id)
    values = [s.j_and_f for s in scores.values() if s.j_and_f is not None]
    return sequence.name, sum(len(s.frames) for s in scores.values()), sum(values) / len(values)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("masks", type=Path)
    parser.add_argument("--imset", type=Path)
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    sequences = find_sequences(arguments.dataset, arguments.imset).sequences
    began = time.perf_counter()
    with ProcessPoolExecutor(arguments.jobs) as pool:
        results: Iterable[tuple[str, int, float]] = pool.map(partial(score, masks=arguments.masks), sequences)
        rows = list(results)
    took = time.perf_counter() - began
    for name, count, value in rows:
        print(f"{name:16}{count:6} masks   J&F {100 * value:.1f}")
    print(f"{sum(r[1] for r in rows)} masks in {took:.1f} s, {arguments.jobs} processes")


if __name__ == "__main__":
    main()
