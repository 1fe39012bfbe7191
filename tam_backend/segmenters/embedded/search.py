"""From a rough region to the object's outline: colours and region are estimated in turns."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from tam_backend.features.colour import ColourModel
from tam_backend.features.filters import sigmoid, signed_distance
from tam_backend.segmenters.embedded.view import Array, Cues, Hints, Point, Region, View

#: Rounds of learning colours from the mask and cutting the mask anew.
ROUNDS = 4
#: What moves at least at this share of the speed at the click belongs to what was clicked rather than not.
SPEED_SHARE = 0.55
#: Speed at a click, in units of noise, from which motion begins to tell anything, and from which it has full weight.
SPEED_SOME, SPEED_CLEAR = 2.0, 5.0
#: Colours of the object are learnt this share of its radius away from its edge, where the mask is surely right.
CORE_SHARE, GAP_SHARE = 0.3, 0.1
#: Weights of the evidence, in units of log odds, and where each is cut off.
MOTION_LIMIT = 2.0
COLOUR_WEIGHT, COLOUR_LIMIT = 0.7, 2.5
PRIOR_SHARE, PRIOR_LIMIT = 0.25, 1.5


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """fixed: hxw log odds of the object that do not depend on the region (motion, clicks). refused: hxw, how much more
    than others a pixel tells about the colours of the background."""

    fixed: Array
    refused: Array


def pace_at(view: View, point: Point) -> float:
    """Median speed around a point, in units of noise; 0 where there is no motion."""
    x, y = point
    return 0.0 if view.speed is None else float(np.median(view.speed[max(0, y - 3) : y + 4, max(0, x - 3) : x + 4]))


def speed_trust(pace: float) -> float:
    """How far motion tells what moves with this speed from the background, in [0, 1]."""
    return float(np.clip(np.log(max(pace, 1e-6) / SPEED_SOME) / np.log(SPEED_CLEAR / SPEED_SOME), 0, 1))


def motion_odds(view: View, pace: float) -> Array:
    """Log odds, hxw, of what moves with ``pace``; all 0 where motion tells nothing."""
    trust = speed_trust(pace)
    if view.speed is None or trust == 0:
        return np.zeros(view.shape, np.float32)
    odds = 2 * np.log((view.speed + 0.3) / (SPEED_SHARE * pace + 0.3))
    return np.asarray(trust * np.clip(odds, -MOTION_LIMIT, MOTION_LIMIT), np.float32)


class Searches:
    """Searches with the same hints. What one of them finds from a region, others find there, too: they often meet, or
    stay where they are, and then nothing is computed again."""

    def __init__(self, view: View, hints: Hints, cues: Cues, seeds: Region | None = None) -> None:
        """seeds: hxw bool, only parts that hold one of these pixels belong to the object. By default those at the
        positive clicks; with a box alone, all parts that are not specks."""
        self._view, self._hints, self._cues = view, hints, cues
        self._seeds = seeds if seeds is not None else hints.inside
        self._known: dict[tuple[Evidence, bytes], tuple[Region, Array]] = {}

    def search(self, start: Region, evidence: Evidence) -> Array:
        """Probability of the object, hxw float32. start: hxw bool, where the search begins."""
        region, probability = start, start.astype(np.float32)
        for _ in range(ROUNDS):
            key = evidence, np.packbits(region).tobytes()
            if key not in self._known:
                self._known[key] = self._step(region, evidence)
            kept, estimate = self._known[key]
            if not kept.any():
                break
            region, probability = kept, estimate
        return probability

    def _step(self, region: Region, evidence: Evidence) -> tuple[Region, Array]:
        """The region one round later, and the probability of the object in it and around it."""
        view, hints, cues = self._view, self._hints, self._cues
        radius = max(1.0, float(np.sqrt(np.count_nonzero(region) / np.pi)))
        depth = signed_distance(region)
        odds = evidence.fixed.copy()
        if cues.colour:
            colour = _colours(view, hints, evidence.refused, depth, radius, cues).log_odds(view.bins)
            odds += COLOUR_WEIGHT * np.clip(colour, -COLOUR_LIMIT, COLOUR_LIMIT)
        if cues.position:
            odds += np.clip(depth / (PRIOR_SHARE * radius), -PRIOR_LIMIT, PRIOR_LIMIT)
        estimate = hints.pinned(sigmoid(odds))
        if cues.edges:
            estimate = hints.pinned(np.clip(view.smooth(estimate), 0, 1))
        kept = _connected(estimate > 0.5, self._seeds)
        return kept, np.where(kept | (estimate <= 0.5), estimate, 0).astype(np.float32)


def _colours(view: View, hints: Hints, refused: Array, depth: Array, radius: float, cues: Cues) -> ColourModel:
    core = depth > (min(CORE_SHARE * radius, 0.4 * float(depth.max())) if cues.core else 0)
    # Background close to the object tells more about where the object ends than background far away.
    ground = np.where(depth < -GAP_SHARE * radius, np.exp(depth / (7 * radius)), 0).astype(np.float32) + 1e-9
    return ColourModel.learn(view.bins, core | hints.inside, ground + refused)


def _connected(region: Region, seeds: Region) -> Region:
    """The parts that hold a seed; without any seeds, the parts that are not specks."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(region.astype(np.uint8), connectivity=4)
    keep = np.zeros(count, bool)
    if seeds.any():
        keep[labels[seeds]] = True
    else:
        areas = stats[:, cv2.CC_STAT_AREA]
        keep[1:] = areas[1:] >= 0.05 * areas[1:].max(initial=0)
    keep[0] = False
    return np.asarray(keep[labels])
