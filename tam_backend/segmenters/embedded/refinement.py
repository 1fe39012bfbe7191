"""The embedded segmenter's part in step 3: a soft mask that came by propagation, cut anew around points of memory."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from tam_backend.features import FrameFeatures
from tam_backend.features.colour import ColourModel, colour_bins
from tam_backend.features.filters import guided_filter, sigmoid, signed_distance, unit, window
from tam_backend.prompts import Click
from tam_backend.segmenters.base import Refined
from tam_backend.segmenters.embedded.superpixels import RegionGraph
from tam_backend.video.base import Reader

Array = npt.NDArray[np.float32]
Image = npt.NDArray[np.uint8]
Region = npt.NDArray[np.bool_]
Place = tuple[int, int, bool]

#: Weights of the evidence, in units of log odds, and where each is cut off: the prior, the colours of this frame, the
#: points along ways of even colour.
PRIOR_WEIGHT, PRIOR_LIMIT = 0.6, 3.0
COLOUR_WEIGHT, COLOUR_LIMIT = 0.7, 2.5
POINT_WEIGHT, POINT_REACH = 2.5, 10.0
#: Nothing changes farther than this from the prior and the points, pixels of the working size.
MARGIN = 40
#: Colours are learnt inside the prior this share of its radius from the edge, and next to it outside.
CORE_SHARE, GAP_SHARE = 0.25, 0.1
#: Radius of what is on the same side as a point, pixels of the working size.
SPOT = 4
#: Rounds of learning colours from the mask and cutting it anew.
ROUNDS = 2
#: Guided filter: radius in pixels, and variance of flat image parts.
RADIUS, FLAT = 5, 1e-4
#: The filtered probability is sharpened with this slope, and is nothing below this.
SHARPNESS, NOTHING = 10.0, 0.02
#: Stability: intersection over union of the masks at these probabilities.
STABLE = (0.35, 0.65)


def refine_around(
    features: FrameFeatures, video: Reader, frame: int, points: Sequence[Click], logits: Array
) -> Refined:
    """See ``Segmenter.refine``. The score compares the probability inside with that close outside."""
    geometry = features.geometry(video)
    lab = features.lab(video, frame)
    prior = cv2.resize(logits, lab.shape[1::-1], interpolation=cv2.INTER_AREA)
    scale_x, scale_y = geometry.work_width / geometry.width, geometry.work_height / geometry.height
    places: list[Place] = [(int(c.x * scale_x), int(c.y * scale_y), c.positive) for c in points]
    spots = {side: _spots([(x, y) for x, y, p in places if p == side], lab.shape[:2]) for side in (True, False)}
    part = window((prior > 0) | spots[True] | spots[False], MARGIN)
    top, left = part[0].start, part[1].start
    moved = [(x - left, y - top, p) for x, y, p in places]
    here = np.ascontiguousarray(lab[part])
    probability = _cut(here, np.asarray(prior[part], np.float32), spots[True][part], spots[False][part], moved)
    soft = np.zeros(lab.shape[:2], np.uint8)
    soft[part] = np.rint(255 * probability)
    full = geometry.to_full(soft)
    return Refined(full >= 128, full, _score(probability), _stability(probability))


def _cut(lab: Image, prior: Array, on: Region, off: Region, places: Sequence[Place]) -> Array:
    """Probability of the object. prior: log odds; on, off: pixels next to points; places: the points themselves."""
    region = (prior > 0) | on
    region &= ~off
    bins, guide = colour_bins(lab), unit(lab)
    points = _point_evidence(lab, places)
    given = PRIOR_WEIGHT * np.clip(prior, -PRIOR_LIMIT, PRIOR_LIMIT) + points
    probability = region.astype(np.float32)
    for _ in range(ROUNDS):
        if not region.any():
            break
        depth = signed_distance(region)
        radius = max(1.0, float(np.sqrt(np.count_nonzero(region) / np.pi)))
        core = depth > min(CORE_SHARE * radius, 0.4 * float(depth.max()))
        ground = np.where(depth < -GAP_SHARE * radius, np.exp(depth / (3 * radius)), 0).astype(np.float32) + 1e-9
        foreground = (core & ~off).astype(np.float32) + 3 * on
        model = ColourModel.learn(bins, foreground, np.where(on, 0, ground + 3 * off).astype(np.float32))
        colour = np.clip(model.log_odds(bins), -COLOUR_LIMIT, COLOUR_LIMIT)
        estimate = np.asarray(sigmoid(given + COLOUR_WEIGHT * colour), np.float32)
        estimate = np.clip(guided_filter(guide, estimate, RADIUS, FLAT), 0, 1)
        estimate[on], estimate[off] = 1, 0
        region = _connected(estimate > 0.5, on)
        probability = np.where(region | (estimate <= 0.5), estimate, 0).astype(np.float32)
    sharp = sigmoid(SHARPNESS * (probability - 0.5))
    return np.asarray(np.where(probability > NOTHING, sharp, 0), np.float32)


def _point_evidence(lab: Image, places: Sequence[Place]) -> Array:
    """Log odds from points: near ones count, near along ways of even colour. Searched at half the size."""
    height, width = (max(1, side // 2) for side in lab.shape[:2])
    half = np.asarray(cv2.resize(lab, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    graph = RegionGraph.build(half, None)

    def at(positive: bool) -> list[tuple[int, int]]:
        return [(min(x // 2, width - 1), min(y // 2, height - 1)) for x, y, p in places if p == positive]

    plus, minus = graph.distance(at(True)), graph.distance(at(False))
    near = np.exp(-np.minimum(plus, minus) / POINT_REACH)
    evidence = POINT_WEIGHT * (minus - plus) / (minus + plus + 1e-3) * near
    large = cv2.resize(evidence.astype(np.float32), lab.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    return np.asarray(large, np.float32)


def _spots(points: Sequence[tuple[int, int]], shape: tuple[int, ...]) -> Region:
    canvas = np.zeros(shape, np.uint8)
    for point in points:
        cv2.circle(canvas, point, SPOT, 1, -1)
    return canvas > 0


def _connected(region: Region, on: Region) -> Region:
    """Parts that hold a positive point, and others that are not specks."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(region.astype(np.uint8), connectivity=4)
    areas = stats[:, cv2.CC_STAT_AREA]
    keep = areas >= 0.1 * areas[1:].max(initial=0)
    keep[labels[on & region]] = True
    keep[0] = False
    return np.asarray(keep[labels])


def _score(probability: Array) -> float:
    """Mean probability inside, times one minus that close outside."""
    region = probability > 0.5
    if not region.any():
        return 0.0
    ring = np.asarray(cv2.dilate(region.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0) & ~region
    outer = float(probability[ring].mean()) if ring.any() else 0.0
    return float(np.clip(float(probability[region].mean()) * (1 - outer), 0, 1))


def _stability(probability: Array) -> float:
    wide, narrow = (np.count_nonzero(probability > p) for p in STABLE)
    return narrow / wide if wide else 0.0
