"""Measure the embedded engine on video object segmentation data in the DAVIS layout.

    python benchmarks/embedded.py --data DIR [--sequences dog libby] [--what clicks|propagation|all]

DIR holds JPEGImages/480p/<sequence>/*.jpg and Annotations/480p/<sequence>/*.png; anything but background counts as
one object. Two tables come out, a row per sequence and the mean of the rows:

clicks: see embedded_clicks.py, which has more options. There each id is an object of its own.

propagation: the true mask of the first frame, one pass forward. J and F as in the DAVIS 2017 evaluation (Perazzi et
al., CVPR 2016; Pont-Tuset et al., 2017): means over the frames without the first and the last. Then ms per frame, and
the rank correlation of the reported quality with J.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path

import cv2
import numpy as np
from scipy.stats import spearmanr

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.embedded_clicks import print_clicks
from benchmarks.tables import print_table
from tam_backend.engines import load_engine
from tam_backend.evaluation.metrics import boundary_measure, region_similarity
from tam_backend.prompts import Mask
from tam_backend.propagators.base import SOFT_THRESHOLD
from tam_backend.video import open_source


def read_truth(folder: Path) -> list[Mask]:
    masks = []
    for path in sorted(folder.glob("*.png")):
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            raise SystemExit(f"cannot read {path}")
        masks.append(np.asarray(image.any(axis=2)))
    if not masks:
        raise SystemExit(f"no masks (*.png) in {folder}")
    return masks


def measure_propagation(images: Path, truth: list[Mask]) -> dict[str, float]:
    engine = load_engine("embedded")
    video = open_source(images)
    begin = time.perf_counter()
    propagation = engine.propagator.begin(video, {0: truth[0]}, 0)
    results = [propagation.step(frame) for frame in range(1, len(truth) - 1)]
    took = time.perf_counter() - begin
    masks = [r.soft >= SOFT_THRESHOLD for r in results]
    j = [region_similarity(m, t) for m, t in zip(masks, truth[1:-1], strict=True)]
    f = [boundary_measure(m, t) for m, t in zip(masks, truth[1:-1], strict=True)]
    quality = [r.quality for r in results]
    constant = len(set(quality)) < 2 or len(set(j)) < 2
    return {
        "J": 100 * float(np.mean(j)),
        "F": 100 * float(np.mean(f)),
        "J&F": 50 * float(np.mean(j) + np.mean(f)),
        "ms/frame": 1e3 * took / len(results),
        "quality": 100 * float(np.mean(quality)),
        "rank r": math.nan if constant else float(spearmanr(quality, j).statistic),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder in the DAVIS layout")
    parser.add_argument("--sequences", nargs="+", help="names of sequences; all of them by default")
    parser.add_argument("--frames", type=int, help="use only this many frames of each sequence")
    parser.add_argument("--what", choices=["clicks", "propagation", "all"], default="all")
    arguments = parser.parse_args()
    images, annotations = arguments.data / "JPEGImages" / "480p", arguments.data / "Annotations" / "480p"
    if not images.is_dir() or not annotations.is_dir():
        parser.error(f"--data must hold JPEGImages/480p and Annotations/480p, {arguments.data} does not")
    names = arguments.sequences or sorted(p.name for p in annotations.iterdir() if p.is_dir())
    truth: dict[str, list[Mask]] = {}
    for name in names:
        if not (annotations / name).is_dir():
            parser.error(f"there is no sequence {name} in {annotations}")
        truth[name] = read_truth(annotations / name)[: arguments.frames]
    if arguments.what in ("clicks", "all"):
        print_clicks(arguments.data, names)
    if arguments.what in ("propagation", "all"):
        rows = {name: measure_propagation(images / name, truth[name]) for name in names}
        print_table("propagation", rows, fine=("rank r",))


if __name__ == "__main__":
    main()
