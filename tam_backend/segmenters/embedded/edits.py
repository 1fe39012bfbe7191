"""Later answers: a click changes the mask around it, and nothing far from it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from tam_backend.features.filters import signed_distance
from tam_backend.segmenters.embedded.candidates import Candidate, merits
from tam_backend.segmenters.embedded.search import Evidence, Searches, motion_odds, pace_at
from tam_backend.segmenters.embedded.view import Array, Cues, Hints, Point, Region, View

#: Weight of a click in units of log odds, and how far it reaches along ways of even colour and motion.
CLICK_WEIGHT, CLICK_REACH = 4.0, 8.0
#: From this many units of distance on, things are rather left as they are, and from twice as many with full weight.
KEEP_FROM, KEEP_LIMIT, UNIT_FLOOR = 2.0, 6.0, 2.0
#: Colours next to a negative click count this many times over as background, out to this distance over the regions.
REFUSED_WEIGHT, REFUSED_REACH = 4.0, 3.0
#: A candidate can take the place of the mask if this share of the smaller of the two lies in the larger one.
NESTED = 0.9
#: ... and if the click is in the middle of the change: this share of the change's radius away from its edge.
CENTRAL = 0.3
#: The outline of a mask that is refined stays within this share of the mask's radius, but not below so many pixels.
BAND_SHARE, BAND_FLOOR = 0.15, 3.0


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What some prompts came to.

    probability: hxw at the size of the view. expected: the IoU with the right mask that is to be expected of the first
    mask. others: candidates that were not taken; none are left once the mask was edited.
    """

    probability: Array
    expected: float
    others: tuple[Candidate, ...] = ()

    @property
    def nbytes(self) -> int:
        return self.probability.nbytes + sum(c.probability.nbytes for c in self.others)


def edit(view: View, hints: Hints, before: Answer, point: Point, positive: bool, cues: Cues) -> Answer:
    """The answer after one more click. hints: with that click.

    A click that agrees with the mask changes nothing but the pixels at it. Otherwise everything is estimated anew, from
    the mask as it was and with the clicks as evidence, and of what comes out the piece under the click is taken over:
    what a positive click adds, what a negative one takes away. As long as nothing was edited, the mask may also change
    for one of the other candidates, if that agrees with all clicks, is larger (after a positive click) or smaller
    (after a negative one), has the click in the middle of the change, and has the greater merit: the whole for the
    part, or the part for the whole.
    """
    region = before.probability > 0.5
    if region[point[1], point[0]] == positive:
        return replace(before, probability=hints.pinned(before.probability.copy()))
    fixed = motion_odds(view, pace_at(view, hints.positive[0])) if hints.positive else np.zeros(view.shape, np.float32)
    fixed = fixed + _click_odds(view, hints)
    if cues.local:
        fixed += _keep(region, point)
    start = region if positive else region & ~_negative_side(view, hints) & ~hints.outside
    seeds = start | hints.inside if cues.local else None
    after = Searches(view, hints, cues, seeds).search(start | hints.inside, Evidence(fixed, _refused(view, hints)))
    if not cues.local:
        return Answer(after, before.expected)
    piece = _piece((after > 0.5) & ~region if positive else region & ~(after > 0.5), point)
    rim = cv2.dilate(piece.astype(np.uint8), np.ones((3, 3), np.uint8), iterations=2) > 0
    pick = np.maximum if positive else np.minimum
    edited = np.where(rim, pick(before.probability, after), before.probability)
    fitting = [c for c in before.others if _fits(c.region, region, hints, point, positive)]
    merit = merits(view, [edited, *(c.probability.astype(np.float32) for c in fitting)]) if fitting else [0.0]
    best = int(np.argmax(merit))
    if best == 0:
        return Answer(hints.pinned(edited), before.expected)
    return Answer(hints.pinned(fitting[best - 1].probability.astype(np.float32)), before.expected, before.others)


def refine(view: View, mask: Array, cues: Cues) -> Array:
    """The outline of a mask drawn anew, near to where it was. mask: hxw float32 in [0, 1]; so is the result."""
    region = mask > 0.5
    if not region.any() or region.all():
        return mask
    depth = signed_distance(region)
    band = max(BAND_FLOOR, BAND_SHARE * float(np.sqrt(np.count_nonzero(region) / np.pi)))
    fixed = np.where(np.abs(depth) > band, np.sign(depth) * KEEP_LIMIT, 0).astype(np.float32)
    everywhere, nowhere = np.ones(view.shape, bool), np.zeros(view.shape, bool)
    hints = Hints((), (), nowhere, nowhere, everywhere)
    return Searches(view, hints, cues).search(region, Evidence(fixed, np.zeros(view.shape, np.float32)))


def _fits(candidate: Region, region: Region, hints: Hints, point: Point, positive: bool) -> bool:
    if not all(candidate[y, x] for x, y in hints.positive) or any(candidate[y, x] for x, y in hints.negative):
        return False
    smaller, larger = (region, candidate) if positive else (candidate, region)
    if np.count_nonzero(smaller & larger) < NESTED * np.count_nonzero(smaller):
        return False
    change = larger & ~smaller
    radius = float(np.sqrt(np.count_nonzero(change) / np.pi))
    return float(signed_distance(change)[point[1], point[0]]) >= CENTRAL * radius


def _keep(region: Region, point: Point) -> Array:
    """Log odds for leaving things as they are far from a click.

    People click in the middle of what is wrong, so what is wrong ends on the far side about as far away as the outline
    is on the near side: that distance is the unit in which far is measured.
    """
    canvas = np.ones(region.shape, np.uint8)
    canvas[point[1], point[0]] = 0
    way = cv2.distanceTransform(canvas, cv2.DIST_L2, 5)
    unit = max(UNIT_FLOOR, float(abs(signed_distance(region)[point[1], point[0]])))
    pull = KEEP_LIMIT * np.clip((way / unit - KEEP_FROM) / KEEP_FROM, 0, 1)
    return np.where(region, pull, -pull).astype(np.float32)


def _piece(change: Region, point: Point) -> Region:
    _, labels = cv2.connectedComponents(change.astype(np.uint8), connectivity=4)
    label = labels[point[1], point[0]]
    return np.asarray(labels == label) if label else np.zeros(change.shape, bool)


def _negative_side(view: View, hints: Hints) -> Region:
    if not (hints.negative and hints.positive):
        return np.zeros(view.shape, bool)
    return np.asarray(view.graph.distance(hints.positive) > view.graph.distance(hints.negative))


def _click_odds(view: View, hints: Hints) -> Array:
    """Log odds from clicks after the first: near ones count, near along ways of even colour and motion."""
    graph, none = view.graph, np.zeros(view.shape, np.float32)
    if hints.positive and hints.negative:
        plus, minus = graph.distance(hints.positive), graph.distance(hints.negative)
        near = np.exp(-np.minimum(plus, minus) / CLICK_REACH)
        return CLICK_WEIGHT * (minus - plus) / (minus + plus + 1e-3) * near
    if hints.negative:
        return -CLICK_WEIGHT * np.exp(-graph.distance(hints.negative) / CLICK_REACH)
    extra = hints.positive[1:]
    return CLICK_WEIGHT * np.exp(-graph.distance(extra) / CLICK_REACH) if extra else none


def _refused(view: View, hints: Hints) -> Array:
    """How much each pixel tells about the background because a negative click is near."""
    if not hints.negative:
        return np.zeros(view.shape, np.float32)
    return REFUSED_WEIGHT * np.exp(-view.graph.distance(hints.negative) / REFUSED_REACH)
