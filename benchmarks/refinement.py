"""Step 3 judged by its points and by its masks, embedded engine, on data in the DAVIS layout.

    python benchmarks/refinement.py --data DIR [--sequences dog libby] [--below 0.75] [--recipe probes|clicks]

DIR holds JPEGImages/480p/<sequence>/*.jpg and Annotations/480p/<sequence>/*.png. The true mask of the first frame is
given, one pass forward. With --object N only object N counts, else anything but background is one object.

points: on refined frames, those on which points were projected and enough of them believed. The share of positive
points that lie on the object and of negative ones that lie off it, how many of each there are on a frame (mean, least),
and how far the points of a frame are from their mean, in units of the radius of a disc as large as the object.

masks: J&F over all frames but the first and the last, without refinement and with it.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tam_backend.engines import Engine, load_engine
from tam_backend.evaluation.metrics import boundary_measure, region_similarity
from tam_backend.evaluation.pictures import read_ids
from tam_backend.prompts import FramePrompts, Mask
from tam_backend.refine_options import RECIPES, RefineOptions
from tam_backend.tracking.refinement import Decision
from tam_backend.tracking.store import MemoryStore
from tam_backend.tracking.tracker import Anchor, Tracker
from tam_backend.video import open_source

STORE_BYTES = 200_000_000


@dataclass
class Run:
    """Masks by frame, and what was decided."""

    masks: dict[int, Mask] = field(default_factory=dict)
    decisions: dict[int, Decision] = field(default_factory=dict)


def read_truth(folder: Path, object_id: int | None) -> list[Mask]:
    ids = [read_ids(folder, path.stem) for path in sorted(folder.glob("*.png"))]
    return [i > 0 if object_id is None else i == object_id for i in ids if i is not None]


def track(engine: Engine, images: Path, first: Mask) -> Run:
    run = Run()
    video = open_source(images)
    anchors = {0: Anchor(FramePrompts(mask=first))}
    with Tracker(engine, video, range(len(video)), MemoryStore(STORE_BYTES)) as tracker:
        for tracked in tracker.track(anchors, 0):
            run.masks[tracked.frame] = tracked.mask
            run.decisions |= {d.frame: d for d in tracker.decisions(anchors, tracked.frame)}
    return run


def j_and_f(masks: dict[int, Mask], truth: Sequence[Mask]) -> float:
    frames = range(1, len(truth) - 1)
    values = [region_similarity(masks[f], truth[f]) + boundary_measure(masks[f], truth[f]) for f in frames]
    return 50 * float(np.mean(values))


def judge_points(run: Run, truth: Sequence[Mask]) -> dict[str, float]:
    refined = [d for d in run.decisions.values() if d.score is not None]
    right: dict[bool, list[bool]] = {True: [], False: []}
    counts: dict[bool, list[int]] = {True: [], False: []}
    wide = []
    for decision in refined:
        mask = truth[decision.frame]
        radius = math.sqrt(max(1, np.count_nonzero(mask)) / math.pi)
        for side in (True, False):
            points = [p for p in decision.kept if p.positive == side]
            counts[side].append(len(points))
            right[side] += [bool(mask[int(p.y), int(p.x)]) == side for p in points]
            if side:
                places = np.array([(p.x, p.y) for p in points])
                wide.append(float(np.linalg.norm(places - places.mean(axis=0), axis=1).mean()) / radius)

    def mean(values: Sequence[float]) -> float:
        return float(np.mean(values)) if values else math.nan

    return {
        "frames": len(run.masks) - 1,
        "below": len(run.decisions),
        "refined": len(refined),
        "taken": sum(d.accepted for d in refined),
        "pos right %": 100 * mean(right[True]),
        "neg right %": 100 * mean(right[False]),
        "pos": mean(counts[True]),
        "neg": mean(counts[False]),
        "least": min([*counts[True], *counts[False]], default=math.nan),
        "spread": mean(wide),
    }


def judge_masks(off: Run, on: Run, truth: Sequence[Mask]) -> dict[str, float]:
    without, with_it = j_and_f(off.masks, truth), j_and_f(on.masks, truth)
    return {"off": without, "on": with_it, "gain": with_it - without}


def print_table(title: str, rows: dict[str, dict[str, float]]) -> None:
    names = list(next(iter(rows.values())))
    print(f"\n{title:16}" + "".join(f"{n:>12}" for n in names))
    for sequence, row in rows.items():
        print(f"{sequence:16}" + "".join(f"{row[n]:12.2f}" for n in names))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder in the DAVIS layout")
    parser.add_argument("--sequences", nargs="+", help="names of sequences; all of them by default")
    parser.add_argument("--object", type=int, help="id of the object that counts; all together by default")
    parser.add_argument("--below", type=float, default=RefineOptions().below, help="refine frames of lower quality")
    parser.add_argument("--recipe", choices=RECIPES, default=RefineOptions().recipe)
    arguments = parser.parse_args()
    images, annotations = arguments.data / "JPEGImages" / "480p", arguments.data / "Annotations" / "480p"
    if not images.is_dir() or not annotations.is_dir():
        parser.error(f"--data must hold JPEGImages/480p and Annotations/480p, {arguments.data} does not")
    names = arguments.sequences or sorted(p.name for p in annotations.iterdir() if p.is_dir())
    points: dict[str, dict[str, float]] = {}
    masks: dict[str, dict[str, float]] = {}
    for name in names:
        truth = read_truth(annotations / name, arguments.object)
        if not truth:
            parser.error(f"there are no masks in {annotations / name}")
        engine = load_engine("embedded")
        options = RefineOptions(arguments.recipe, arguments.below)
        off = track(replace(engine, refine=None), images / name, truth[0])
        on = track(replace(engine, refine=options), images / name, truth[0])
        points[name], masks[name] = judge_points(on, truth), judge_masks(off, on, truth)
        print(f"{name}: {masks[name]['off']:.2f} -> {masks[name]['on']:.2f}", file=sys.stderr, flush=True)
    sums = {n: float(np.nansum([row[n] for row in points.values()])) for n in ("frames", "below", "refined", "taken")}
    weights = np.array([row["refined"] for row in points.values()])
    for n in ("pos right %", "neg right %", "pos", "neg", "spread"):
        kind = n.split()[0]
        w = weights * np.nan_to_num([row[kind] if "right" in n else 1.0 for row in points.values()])
        sums[n] = float(np.nansum(w * np.nan_to_num([row[n] for row in points.values()])) / max(w.sum(), 1e-9))
    sums["least"] = float(np.nanmin([row["least"] for row in points.values()] + [math.inf]))
    print_table("points", points | {"together": sums})
    print(f"refined: {100 * sums['refined'] / sums['frames']:.1f} % of the frames")
    mean = {n: float(np.mean([row[n] for row in masks.values()])) for n in ("off", "on", "gain")}
    print_table("masks (J&F)", masks | {"mean": mean})


if __name__ == "__main__":
    main()
