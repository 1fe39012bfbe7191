"""Measure how the embedded engine makes masks from clicks and boxes, on data in the DAVIS layout.

    python benchmarks/embedded_clicks.py --data DIR [--sequences dog libby] [--still] [--ablate]

DIR holds JPEGImages/480p/<sequence>/*.jpg and Annotations/480p/<sequence>/*.png (indexed); each id is an object, with
a row of its own. On the first, middle and last frame (``--per`` frames, evenly spread):

IoU@n: after n clicks of a robot. The first click is the most interior point of the object's largest part, each next one
the most interior point of the largest error region, positive where the object was missed, negative where it was not.
random: after one click on a point drawn evenly from the object's pixels, but not from its outermost ``RIM`` pixels
(``--draws`` draws a frame, the same ones in every run).
kept: of the robot's clicks 2 to 8, after those of ``IoU@1`` and after the drawn ones, the share (percent) after which
the IoU is not more than 3 points lower than before. worst: the greatest fall, in points.
box, loose: with the smallest box around the object, and with one that is wider by a tenth of its size on each side.
ms first, ms next: time of the first click on a frame that nothing is known of, and of a click after it. cpu first, cpu
next: milliseconds of all cores together, which other work on the machine does not change.
r: rank correlation of the reported score with the IoU, over the answers to single clicks.

``--still``: every frame is read as a video of one frame: no motion. ``--ablate``: the means, and how they change with
each cue switched off (see ``Cues``).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from scipy.stats import spearmanr

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.tables import print_table
from tam_backend.evaluation.metrics import region_similarity
from tam_backend.evaluation.robot import box_around, next_click
from tam_backend.features import FrameFeatures
from tam_backend.prompts import Box, Click, FramePrompts, Mask
from tam_backend.segmenters.embedded import EmbeddedSegmenter
from tam_backend.segmenters.embedded.view import Cues
from tam_backend.video import open_source
from tam_backend.video.base import Reader
from tam_backend.video.images import images_in, open_images

CLICKS = 8
SHOWN = (1, 2, 3, 5, 8)
#: A fall of more than this is one, in IoU.
FALL = 0.03
RIM = 3
#: A loose box is wider than the object by this share of its width on each side, and likewise higher.
LOOSE = 0.1


#: Milliseconds by the clock, and of all cores together.
Times = tuple[float, float]


@dataclass
class Figures:
    """IoU by number of clicks, from the interior click on (rows: frames) and from the drawn ones on, and the rest."""

    robot: list[list[float]] = field(default_factory=list)
    drawn: list[list[float]] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    box: list[float] = field(default_factory=list)
    loose: list[float] = field(default_factory=list)
    first_ms: list[Times] = field(default_factory=list)
    next_ms: list[Times] = field(default_factory=list)

    def row(self) -> dict[str, float]:
        robot, every = np.array(self.robot), np.array(self.robot + self.drawn)
        change = np.diff(every, axis=1)
        return {
            **{f"IoU@{n}": 100 * float(robot[:, n - 1].mean()) for n in SHOWN},
            "random": 100 * float(np.mean([run[0] for run in self.drawn])),
            "kept": 100 * float(np.mean(change >= -FALL)),
            "worst": 100 * float(change.min()),
            "box": 100 * float(np.mean(self.box)),
            "loose": 100 * float(np.mean(self.loose)),
            "ms first": float(np.mean(self.first_ms, axis=0)[0]),
            "cpu first": float(np.mean(self.first_ms, axis=0)[1]),
            "ms next": float(np.mean(self.next_ms, axis=0)[0]),
            "cpu next": float(np.mean(self.next_ms, axis=0)[1]),
            "r": float(spearmanr(self.scores, every[:, 0]).statistic),
        }


def read_ids(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def first_clicks(truth: Mask, drawn: int, seed: str) -> list[Click]:
    """The robot's, and so many drawn ones. The same seed gives the same ones in every run."""
    interior = next_click(None, truth)
    assert interior is not None
    depth = cv2.distanceTransform(np.pad(truth.astype(np.uint8), 1), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    rows, columns = np.nonzero(depth > min(RIM, 0.5 * float(depth.max())))
    chosen = np.random.default_rng(list(seed.encode())).integers(len(rows), size=drawn)
    return [interior, *(Click(float(columns[i]) + 0.5, float(rows[i]) + 0.5) for i in chosen)]


def loose_box(box: Box, height: int, width: int) -> Box:
    x, y = LOOSE * (box.right - box.left), LOOSE * (box.bottom - box.top)
    return Box(max(0, box.left - x), max(0, box.top - y), min(width, box.right + x), min(height, box.bottom + y))


def run_robot(
    segmenter: EmbeddedSegmenter, video: Reader, frame: int, truth: Mask, first: Click
) -> Iterator[tuple[float, float, Times]]:
    """IoU, score and times of each click; where nothing is wrong any more, those of the last one again."""
    clicks, answer = [first], (0.0, 0.0, (0.0, 0.0))
    for count in range(1, CLICKS + 1):
        if len(clicks) == count:
            began, spent = time.perf_counter(), time.process_time()
            result = segmenter.segment(video, frame, FramePrompts(tuple(clicks)))
            took = (1e3 * (time.perf_counter() - began), 1e3 * (time.process_time() - spent))
            answer = (region_similarity(result.mask, truth), result.score, took)
            click = next_click(result.mask, truth)
            clicks += [click] if click is not None and click not in clicks else []
        yield answer


def measure(
    segmenter: EmbeddedSegmenter, video: Reader, frame: int, truth: Mask, starts: list[Click], out: Figures
) -> None:
    """One object on one frame, all figures. starts: first clicks, the robot's own one first."""
    first_ms: list[Times] = []
    for number, start in enumerate(starts):
        ious, scores, times = zip(*run_robot(segmenter, video, frame, truth, start), strict=True)
        (out.robot if number == 0 else out.drawn).append(list(ious))
        out.scores.append(scores[0])
        first_ms.append(times[0])
        out.next_ms += times[1:]
    out.first_ms.append(first_ms[0])
    tight = box_around(truth)
    for box, values in ((tight, out.box), (loose_box(tight, video.height, video.width), out.loose)):
        mask = segmenter.segment(video, frame, FramePrompts(box=box)).mask
        values.append(region_similarity(mask, truth))


def chosen_frames(count: int, per: int) -> list[int]:
    return sorted({round(i * (count - 1) / max(1, per - 1)) for i in range(per)})


def clicks_tables(
    data: Path, names: list[str], variants: dict[str, Cues], per: int, draws: int, still: bool
) -> dict[str, dict[str, dict[str, float]]]:
    """For each variant, a row for each object of each sequence.

    Every frame starts with an engine that has seen nothing; variants after the first one find its features there.
    """
    figures: dict[str, dict[str, Figures]] = {variant: {} for variant in variants}
    for name in names:
        images, annotations = data / "JPEGImages/480p" / name, sorted((data / "Annotations/480p" / name).glob("*"))
        if not annotations:
            raise SystemExit(f"there are no masks of a sequence {name} in {data / 'Annotations' / '480p'}")
        truths = {f: read_ids(annotations[f]) for f in chosen_frames(len(annotations), per)}
        several = max(int(ids.max()) for ids in truths.values()) > 1
        for frame, ids in truths.items():
            video: Reader = open_images([images_in(images)[frame]]) if still else open_source(images)
            at = 0 if still else frame
            for number in np.unique(ids[ids > 0]).tolist():
                truth = np.asarray(ids == number)
                starts = first_clicks(truth, draws, f"{name}/{frame}/{number}")
                video[at]
                features = FrameFeatures()
                for variant, cues in variants.items():
                    out = figures[variant].setdefault(f"{name} {number}" if several else name, Figures())
                    measure(EmbeddedSegmenter(features, cues), video, at, truth, starts, out)
    return {variant: {name: f.row() for name, f in rows.items()} for variant, rows in figures.items()}


def mean_of(rows: dict[str, dict[str, float]]) -> dict[str, float]:
    return {n: float(np.nanmean([row[n] for row in rows.values()])) for n in next(iter(rows.values()))}


def print_clicks(data: Path, names: list[str], per: int = 3, draws: int = 4, still: bool = False) -> None:
    print_table("clicks", clicks_tables(data, names, {"full": Cues()}, per, draws, still)["full"], fine=("r",))


def print_ablation(data: Path, names: list[str], per: int, draws: int, still: bool) -> None:
    """The means of the full engine, and how they change with one cue off."""
    variants = {"full": Cues()} | {f"no {cue.name}": Cues(**{cue.name: False}) for cue in fields(Cues)}
    means = {v: mean_of(rows) for v, rows in clicks_tables(data, names, variants, per, draws, still).items()}
    full = means.pop("full")
    print_table("with all cues", {"full": full}, fine=("r",), mean=False)
    changes = {v: {n: mean[n] - full[n] for n in full if not n.startswith(("ms", "cpu"))} for v, mean in means.items()}
    print_table("change", changes, fine=("r",), mean=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder in the DAVIS layout")
    parser.add_argument("--sequences", nargs="+", help="names of sequences; all of them by default")
    parser.add_argument("--per", type=int, default=3, help="frames of each sequence, evenly spread")
    parser.add_argument("--draws", type=int, default=4, help="drawn first clicks on each frame")
    parser.add_argument("--still", action="store_true", help="read every frame as a video of one frame")
    parser.add_argument("--ablate", action="store_true", help="switch the cues off, one at a time")
    arguments = parser.parse_args()
    names = arguments.sequences or sorted(p.name for p in (arguments.data / "Annotations" / "480p").iterdir())
    show = print_ablation if arguments.ablate else print_clicks
    show(arguments.data, names, arguments.per, arguments.draws, arguments.still)


if __name__ == "__main__":
    main()
