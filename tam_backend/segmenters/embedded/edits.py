"""Later answers: a click changes the mask around it, and nothing far from it."""

from __future__ import annotations

import cv2
import numpy as np

from tam_backend.features.filters import signed_distance
from tam_backend.segmenters.embedded.search import Evidence, motion_odds, pace_at, search
from tam_backend.segmenters.embedded.view import Array, Cues, Hints, Point, Region, View

#: Weight of a click in units of log odds, and how far it reaches along ways of even colour and motion.
CLICK_WEIGHT, CLICK_REACH = 4.0, 8.0
#: From this many units of distance on, things are rather left as they are, and from twice as many with full weight.
KEEP_FROM, KEEP_LIMIT, UNIT_FLOOR = 2.0, 6.0, 2.0
#: Colours next to a negative click count this many times over as background, out to this distance over the regions.
REFUSED_WEIGHT, REFUSED_REACH = 4.0, 3.0


def edit(view: View, hints: Hints, before: Array, point: Point, positive: bool, cues: Cues) -> Array:
    """The mask after one more click. hints: with that click. before: hxw, probability of the object as it was.

    Everything is estimated anew, from the mask as it was and with the clicks as evidence. Of what comes out only the
    piece under the click is taken over: what a positive click adds, what a negative one takes away.
    """
    region = before > 0.5
    if region[point[1], point[0]] == positive:
        return hints.pinned(before.copy())
    fixed = motion_odds(view, pace_at(view, hints.positive[0])) if hints.positive else np.zeros(view.shape, np.float32)
    evidence = Evidence(fixed + _click_odds(view, hints) + _keep(region, point), _refused(view, hints))
    start = region | hints.inside if positive else region & ~_negative_side(view, hints) & ~hints.outside
    after = search(view, hints, start | hints.inside, evidence, cues)
    if not cues.local:
        return after
    piece = _piece((after > 0.5) & ~region if positive else region & ~(after > 0.5), point)
    kernel = np.ones((3, 3), np.uint8)
    rim = cv2.dilate(piece.astype(np.uint8), kernel, iterations=2) > 0
    result = before.copy()
    result[rim] = np.maximum(before, after)[rim] if positive else np.minimum(before, after)[rim]
    return hints.pinned(result)


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
