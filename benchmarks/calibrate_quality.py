"""Fit the numbers of the quality figure of the embedded engine to true masks, and measure how good the figure is.

    python benchmarks/calibrate_quality.py --data DAVIS_FOLDER --fit blackswan dog ... --test schoolgirls --write

Runs of many kinds are made of each object of the sequences (see ``runs``), and the parts of the figure are noted on
each frame with the IoU of the mask. Then:

1. each sequence of --fit in turn is left out, numbers are fitted to the others, and it is told on the one left out
   which frames need a look (IoU below 0.75). AUROC: the share of pairs of one frame that does and one that does not in
   which the first has the lower figure;
2. numbers are fitted to all of --fit, judged on --test, and with --write put where the product reads them.

--keep FILE: the runs are kept there, one sequence after the other, and not made again. Delete it when masks have
changed.

The fit: cross entropy of the IoU, every object of equal weight; no weight below 0; squared weights of the standardised
parts are held down, so that few sequences decide little (ridge).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.stats import rankdata, spearmanr

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from calibration_videos import Thinned, Twins

from tam_backend.engines import Engine, load_engine
from tam_backend.evaluation.datasets import Sequence, load_sequence
from tam_backend.evaluation.layouts import find_sequences
from tam_backend.evaluation.metrics import region_similarity
from tam_backend.evaluation.robot import next_click
from tam_backend.prompts import FramePrompts, Mask
from tam_backend.propagators.base import SOFT_THRESHOLD, Propagated
from tam_backend.propagators.embedded.assessment import Assessment
from tam_backend.quality import NEEDS_A_LOOK, PARTS, Calibration, agreement
from tam_backend.quality.calibration import parse_calibration
from tam_backend.refine_options import RefineOptions
from tam_backend.tracking.fusion import fuse, share_of_later, weight_of_later
from tam_backend.tracking.refinement import Journal, RefiningPropagator
from tam_backend.tracking.store import MemoryStore
from tam_backend.video.base import Reader

TARGET = Path(__file__).resolve().parents[1] / "tam_backend" / "quality" / "embedded.json"
#: Held down: weights of the standardised parts.
RIDGE = 0.02
#: What a mask of a scene with twins counts: such scenes are rarer than others, and made up.
TWINS_COUNT = 0.25
#: Set by hand: all empty masks of these sequences are wrong, because all objects are there on all frames.
EMPTY, EMPTY_KNOWN = 0.3, 0.8
#: Videos: as they are; every n-th frame only, so n times as fast; with a twin of the object.
KINDS, FAST = ("plain", "fast", "twins"), 3

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Sample:
    """A mask. parts: in the order of ``PARTS``. given: quality of the anchor's mask."""

    object: str
    run: str
    frame: int
    parts: tuple[float, ...]
    given: float
    iou: float

    @property
    def sequence(self) -> str:
        return self.object.partition("/")[0]


@dataclass(frozen=True, slots=True)
class Pair:
    """A frame between two anchors, reached from both sides: parts and agreement of the two masks, share of the far one
    in the mask made of both, and its IoU."""

    sequence: str
    near: tuple[float, ...]
    far: tuple[float, ...]
    agreement: float
    share: float
    iou: float


@dataclass(frozen=True, slots=True, eq=False)
class Half:
    """A frame as it was reached from one side."""

    made: Propagated
    parts: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """From ``start`` over ``frames``; given: quality of the mask there."""

    name: str
    anchors: Mapping[int, Mask]
    start: int
    frames: range
    given: float = 1.0


def clicked(engine: Engine, video: Reader, frame: int, truth: Mask, count: int) -> tuple[Mask, float] | None:
    """The mask and its predicted IoU after some clicks of the robot; None for an object that is not there."""
    found = None
    clicks = []
    for _ in range(count):
        click = next_click(found.mask if found else None, truth)
        if click is None:
            break
        clicks.append(click)
        found = engine.segmenter.segment(video, frame, FramePrompts(tuple(clicks)))
    return (found.mask, found.score) if found is not None and found.mask.any() else None


def runs(engine: Engine, video: Reader, truth: list[Mask], few: bool) -> Iterator[Run]:
    """True masks on the first, last and middle frame, from where the object goes forward and backward; masks of one and
    three clicks; two anchors from both sides. ``few``: just the first two."""
    last, middle = len(truth) - 1, len(truth) // 2
    yield Run("first", {0: truth[0]}, 0, range(1, last + 1))
    yield Run("last", {last: truth[last]}, last, range(last - 1, -1, -1))
    if few:
        return
    after, before = range(middle + 1, last + 1), range(middle - 1, -1, -1)
    yield Run("middle on", {middle: truth[middle]}, middle, after)
    yield Run("middle back", {middle: truth[middle]}, middle, before)
    if one := clicked(engine, video, 0, truth[0], 1):
        yield Run("1 click", {0: one[0]}, 0, range(1, last + 1), one[1])
    if three := clicked(engine, video, middle, truth[middle], 3):
        yield Run("3 clicks on", {middle: three[0]}, middle, after, three[1])
        yield Run("3 clicks back", {middle: three[0]}, middle, before, three[1])
    for a, b, name in ((0, last, "both"), (0, middle, "half")):
        ends = {a: truth[a], b: truth[b]}
        yield Run(f"{name} on", ends, a, range(a + 1, b))
        yield Run(f"{name} back", ends, b, range(b - 1, a, -1))


def collect(sequence: Sequence, object_id: int, kind: str) -> tuple[list[Sample], list[Pair]]:
    """All runs of one object. kind: of the video, one of ``KINDS``."""
    engine = load_engine("embedded")
    features = engine.propagator.features  # type: ignore[attr-defined]
    video: Any = sequence.open()
    truth = [sequence.mask(f, object_id) for f in range(len(video))]
    if kind == "fast":
        video, truth = Thinned(video, FAST), truth[::FAST]
    elif kind == "twins":
        video = Twins(video, truth)
        truth = [video.truth(f) for f in range(len(video))]
    samples: list[Sample] = []
    pairs: list[Pair] = []
    halves: dict[int, Half] = {}
    propagator = as_tracked(engine)
    name = f"{sequence.name}/{object_id}"
    for run in runs(engine, video, truth, kind != "plain"):
        propagation = propagator.begin(video, run.anchors, run.start)
        soft_anchors = {f: 255 * m.astype(np.uint8) for f, m in run.anchors.items()}
        watch = Assessment(features, video, soft_anchors)
        at, label = run.start, run.name + (f" {kind}" if kind != "plain" else "")
        for frame in run.frames:
            made = propagation.step(frame)
            found = watch.parts(at, frame, made.soft)
            at = frame
            if found is None:
                continue
            values = tuple(found[n] for n in PARTS)
            iou = region_similarity(made.soft >= SOFT_THRESHOLD, truth[frame])
            samples.append(Sample(name, label, frame, values, run.given, iou))
            if len(run.anchors) == 2 and run.frames.step > 0:
                halves[frame] = Half(made, values)
            elif len(run.anchors) == 2 and frame in halves:
                share = share_of_later(frame, *sorted(run.anchors))
                if 0 < share < 1:
                    pairs.append(pair(sequence.name, share, halves[frame], Half(made, values), truth[frame]))
        halves = halves if run.frames.step > 0 else {}
    return samples, pairs


def as_tracked(engine: Engine) -> RefiningPropagator:
    """The propagator as the product uses it: poor masks are refined."""
    options = engine.refine or RefineOptions()
    journal = Journal(MemoryStore(1_000_000), engine.version)
    return RefiningPropagator(engine.propagator, engine.segmenter, options, journal)  # type: ignore[arg-type]


def pair(name: str, share: float, on: Half, back: Half, truth: Mask) -> Pair:
    """The two sides of a frame put together as the product does. share: of the later side, by distance alone."""
    iou = region_similarity(fuse(on.made, back.made, share).soft >= SOFT_THRESHOLD, truth)
    weight = weight_of_later(on.made.quality, back.made.quality, share)
    near, far = (on, back) if weight <= 0.5 else (back, on)
    return Pair(name, near.parts, far.parts, agreement(on.made.soft, back.made.soft), min(weight, 1 - weight), iou)


def fit(samples: list[Sample]) -> tuple[float, dict[str, float], float]:
    """(bias, weights, weight of the anchor's quality)."""
    x = np.array([[*s.parts, 1 - s.given] for s in samples])
    iou = np.array([s.iou for s in samples])
    weight = balanced([s.object for s in samples])
    weight *= [TWINS_COUNT if s.run.endswith(" twins") else 1.0 for s in samples]
    weight /= weight.sum()
    scale = np.maximum(x.std(axis=0), 0.05)
    z = x / scale

    def loss(theta: Array) -> tuple[float, Array]:
        logit = theta[0] - z @ theta[1:]
        value = float(weight @ (np.logaddexp(0, logit) - iou * logit) + RIDGE * np.sum(theta[1:] ** 2))
        slope = weight * (sigmoid(logit) - iou)
        return value, np.concatenate([[slope.sum()], -(z.T @ slope) + 2 * RIDGE * theta[1:]])

    start = np.concatenate([[2.0], np.full(x.shape[1], 0.1)])
    bounds = [(None, None)] + [(0, None)] * x.shape[1]
    theta = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x
    weights = theta[1:] / scale
    return float(theta[0]), dict(zip(PARTS, weights[:-1].tolist(), strict=True)), float(weights[-1])


def fit_both(pairs: list[Pair], single: Calibration) -> tuple[float, float, float]:
    """(bias, weight of the mixed figure, weight of the disagreement) for masks made from both sides."""
    near, far = (np.array([single.estimate(dict(zip(PARTS, v, strict=True))) for v in values])
                 for values in ([p.near for p in pairs], [p.far for p in pairs]))  # fmt: skip
    share, agreed, iou = (np.array([getattr(p, n) for p in pairs]) for n in ("share", "agreement", "iou"))
    mixed = np.clip((1 - share) * near + share * far, 1e-3, 1 - 1e-3)
    x = np.stack([np.log(mixed / (1 - mixed)), far * -np.log(np.maximum(agreed, 1e-3))], axis=1)
    weight = balanced([p.sequence for p in pairs])

    def loss(theta: Array) -> float:
        logit = theta[0] + theta[1] * x[:, 0] - theta[2] * x[:, 1]
        held = RIDGE * (theta[0] ** 2 + (theta[1] - 1) ** 2 + 0.1 * theta[2] ** 2)
        return float(weight @ (np.logaddexp(0, logit) - iou * logit) + held)

    bias, quality, disagreement = minimize(loss, [0.0, 1.0, 0.5], bounds=[(None, None), (0, None), (0, None)]).x
    return float(bias), float(quality), float(disagreement)


def calibrate(samples: list[Sample], pairs: list[Pair]) -> Calibration:
    bias, weights, given = fit(samples)
    single = Calibration(bias, weights, EMPTY, EMPTY_KNOWN, given, (0.0, 1.0, 0.0))
    return Calibration(bias, weights, EMPTY, EMPTY_KNOWN, given, fit_both(pairs, single))


def balanced(names: list[str]) -> Array:
    """Weights that give every name the same sum, and sum to 1."""
    _, which, counts = np.unique(names, return_inverse=True, return_counts=True)
    return np.asarray(1 / (counts[which] * len(counts)))


def sigmoid(z: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-z)))


def auroc(figure: Array, iou: Array) -> float:
    """Mann and Whitney's; nan if all frames need a look, or none does."""
    poor = iou < NEEDS_A_LOOK
    count, others = int(poor.sum()), int((~poor).sum())
    if not count or not others:
        return float("nan")
    return float((rankdata(-figure)[poor].sum() - count * (count + 1) / 2) / (count * others))


def figures(samples: list[Sample], numbers: Calibration) -> Array:
    return np.array(
        [numbers.from_anchor(numbers.estimate(dict(zip(PARTS, s.parts, strict=True))), s.given) for s in samples]
    )


def report(title: str, samples: list[Sample], figure: Array) -> None:
    """One line for all samples, and one for each sequence and kind of run."""
    iou = np.array([s.iou for s in samples])
    print(f"\n{title}\n{'':22}{'frames':>7}{'IoU<.75':>9}{'AUROC':>7}{'rank r':>8}{'IoU':>7}{'figure':>8}{'off by':>8}")

    def line(name: str, chosen: npt.NDArray[np.bool_]) -> None:
        a, b = figure[chosen], iou[chosen]
        rank = float(spearmanr(a, b).statistic) if len(set(a)) > 1 and len(set(b)) > 1 else float("nan")
        print(
            f"{name:22}{len(a):7}{100 * np.mean(b < NEEDS_A_LOOK):8.0f}%{auroc(a, b):7.3f}{rank:8.2f}"
            f"{100 * b.mean():7.1f}{100 * a.mean():8.1f}{100 * np.abs(a - b).mean():8.1f}"
        )

    line("all", np.ones(len(samples), bool))
    for of in ([s.sequence for s in samples], [s.run for s in samples]):
        names = np.array(of)
        for name in sorted(set(of)):
            line(name, names == name)


def both_ways(pairs: list[Pair], numbers: Calibration) -> Array:
    near, far = ([numbers.estimate(dict(zip(PARTS, v, strict=True))) for v in values]
                 for values in ([p.near for p in pairs], [p.far for p in pairs]))  # fmt: skip
    return np.array([numbers.fused(a, b, p.agreement, p.share) for a, b, p in zip(near, far, pairs, strict=True)])


def leave_out(samples: list[Sample], pairs: list[Pair]) -> tuple[Array, Array]:
    """The figures of each sequence by numbers that were fitted to the others."""
    figure, fused = np.zeros(len(samples)), np.zeros(len(pairs))
    for name in sorted({s.sequence for s in samples}):
        numbers = calibrate([s for s in samples if s.sequence != name], [p for p in pairs if p.sequence != name])
        out = [i for i, s in enumerate(samples) if s.sequence == name]
        figure[out] = figures([samples[i] for i in out], numbers)
        out = [i for i, p in enumerate(pairs) if p.sequence == name]
        fused[out] = both_ways([pairs[i] for i in out], numbers)
    return figure, fused


def as_json(numbers: Calibration, names: list[str], count: int) -> str:
    def short(value: float) -> float:
        return float(f"{value:.4g}")

    bias, quality, disagreement = (short(v) for v in numbers.both)
    return json.dumps(
        {
            "made by": "benchmarks/calibrate_quality.py",
            "fitted to": f"{count} masks of {', '.join(names)}",
            "bias": short(numbers.bias),
            "weights": {n: short(v) for n, v in numbers.weights.items()},
            "empty": numbers.empty,
            "empty_known": numbers.empty_known,
            "given": short(numbers.given),
            "both": {"bias": bias, "quality": quality, "disagreement": disagreement},
        },
        indent=2,
    ) + "\n"  # fmt: skip


def gather(sequences: list[Sequence], keep: Path | None) -> tuple[list[Sample], list[Pair]]:
    """All runs of all objects."""
    kept = json.loads(keep.read_text()) if keep and keep.exists() else {}
    for sequence in sequences:
        if sequence.name in kept:
            continue
        began = time.perf_counter()
        found = [collect(sequence, i, kind) for i in sequence.objects for kind in KINDS]
        samples, pairs = ([astuple(x) for part in found for x in part[which]] for which in (0, 1))
        kept[sequence.name] = [samples, pairs]
        print(f"{sequence.name}: {len(samples)} masks, {time.perf_counter() - began:.0f} s", flush=True)
        if keep:
            keep.write_text(json.dumps(kept))
    names = [s.name for s in sequences]
    return [Sample(*x) for n in names for x in kept[n][0]], [Pair(*x) for n in names for x in kept[n][1]]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="a data set that `tam evaluate` knows")
    parser.add_argument("--fit", nargs="+", help="sequences to fit to (default: all but those of --test)")
    parser.add_argument("--test", nargs="*", default=["schoolgirls"], help="sequences that no number is fitted to")
    parser.add_argument("--write", action="store_true", help="replace the numbers of the product")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="JSON file that keeps the runs")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    found = {p.name: p for p in find_sequences(arguments.data).sequences}
    names = arguments.fit or [n for n in found if n not in arguments.test]
    tests = [n for n in arguments.test if n in found and n not in names]
    if unknown := [n for n in names if n not in found]:
        parser.error(f"--fit: there is no sequence {', '.join(unknown)} in {arguments.data}")
    samples, pairs = gather([load_sequence(found[n]) for n in names], arguments.keep)
    figure, fused = leave_out(samples, pairs)
    report("each sequence by numbers fitted to the others", samples, figure)
    real = [i for i, s in enumerate(samples) if not s.run.endswith(" twins")]
    report("the same without twins", [samples[i] for i in real], figure[real])
    hand = [i for i in real if samples[i].given == 1]
    report("the same without twins and without masks from clicks", [samples[i] for i in hand], figure[hand])
    iou = np.array([p.iou for p in pairs])
    print(f"\nbetween two anchors, from both sides: {len(pairs)} masks, AUROC {auroc(fused, iou):.3f}, "
          f"off by {100 * np.abs(fused - iou).mean():.1f}")  # fmt: skip
    numbers = calibrate(samples, pairs)
    text = as_json(numbers, names, len(samples))
    print(f"\n{text}")
    if tests:
        held, held_pairs = gather([load_sequence(found[n]) for n in tests], arguments.keep)
        report(f"sequences that were never used: {', '.join(tests)}", held, figures(held, parse_calibration(text)))
        iou = np.array([p.iou for p in held_pairs])
        print(f"\nfrom both sides: AUROC {auroc(both_ways(held_pairs, numbers), iou):.3f}")
    if arguments.write:
        TARGET.write_text(text)
        print(f"written to {TARGET}")


if __name__ == "__main__":
    main()
