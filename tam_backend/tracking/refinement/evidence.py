"""Which projected probes are believed, and whether the segmenter's mask is better than the propagated one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from tam_backend.prompts import Mask
from tam_backend.propagators.base import SOFT_THRESHOLD, SoftMask
from tam_backend.propagators.probes import Projected, spread
from tam_backend.segmenters.base import Refined
from tam_backend.tracking.refinement.decision import Decision, Point

#: Share of a probe's affinity that must be close to its place.
CONCENTRATED = 0.5
#: How many points are used at most, and how many it takes.
MOST = {True: 6, False: 8}
LEAST = 2

#: What the segmenter's mask must reach.
SCORE, STABILITY = 0.6, 0.8
#: Agreement with the propagated mask: below, the two are about different things; above, there is nothing to gain.
AGREEMENT = (0.5, 0.95)
#: Area over that of the propagated mask.
GROWTH = (0.65, 1.5)
#: Share of all concentrated probes that may contradict the mask, also of those that contradicted the propagated mask,
#: and that the segmenter did not see. Where more do, memory shows something that neither mask is. Of all the figures
#: here this one tells good from bad: on all test sequences, masks below it had gained, on average.
CONTRADICTED = 0.05

#: A connected part that is added or taken away needs a witness, if it is larger than this share of the propagated mask:
#: a concentrated probe in it that says so. (One child of a group, taken away because it had no probe, cost 13 points.)
UNWITNESSED = 0.04

#: What no probe says is not the object may make the mask smaller by this share of its area. (Refined masks that lost
#: more were thinner ones: on seven test sequences they cost points, all others gained.)
SHRUNK = 0.03

#: A pixel that the propagated mask did not have is claimed with no more than this: another object that is surer of it
#: keeps it.
CLAIM = 191


def choose(projected: Sequence[Projected], soft: SoftMask) -> tuple[Point, ...]:
    """All probes, those that are not believed with the reason.

    Believed are those with a concentrated affinity whose place agrees with the probability map; of many, those far from
    each other. soft: HxW uint8, the propagated mask.
    """
    points = [Point(p.x, p.y, p.positive, p.concentration, p.source, _doubt(p, soft)) for p in projected]
    for positive, most in MOST.items():
        numbers = [i for i, p in enumerate(points) if p.positive == positive and not p.dropped]
        places = np.array([(points[i].x, points[i].y) for i in numbers], np.float32).reshape(-1, 2)
        used = {numbers[i] for i in spread(places, most)}
        for i in set(numbers) - used:
            points[i] = replace(points[i], dropped="close to others")
    return tuple(points)


def _doubt(probe: Projected, soft: SoftMask) -> str:
    if probe.concentration < CONCENTRATED:
        return "affinity is not concentrated"
    inside = bool(soft[int(probe.y), int(probe.x)] >= SOFT_THRESHOLD)
    if inside == probe.positive:
        return ""
    return "the mask is not there" if probe.positive else "the mask is there"


def too_few(points: Sequence[Point]) -> tuple[str, ...]:
    """Why the points that are left do not do, if they do not."""
    reasons = []
    for positive, name in ((True, "on the object"), (False, "off it")):
        count = sum(p.positive == positive and not p.dropped for p in points)
        if count < LEAST:
            reasons.append(f"{count} points {name}, {LEAST} are needed")
    return tuple(reasons)


def judge(decision: Decision, refined: Refined, before: Mask) -> Decision:
    """The decision with the figures of the segmenter's mask, and what speaks against it. before: HxW bool."""
    union = np.count_nonzero(refined.mask | before)
    agreement = np.count_nonzero(refined.mask & before) / union if union else 1.0
    growth = np.count_nonzero(refined.mask) / max(1, np.count_nonzero(before))
    reasons = []
    if refined.score < SCORE:
        reasons.append(f"score {refined.score:.2f} is below {SCORE}")
    if refined.stability < STABILITY:
        reasons.append(f"stability {refined.stability:.2f} is below {STABILITY}")
    if agreement < AGREEMENT[0]:
        reasons.append(f"agrees with the propagated mask by {agreement:.2f} only, {AGREEMENT[0]} is needed")
    if agreement > AGREEMENT[1]:
        reasons.append("it is nearly the propagated mask again")
    if not GROWTH[0] <= growth <= GROWTH[1]:
        reasons.append(f"its area is {growth:.2f} times that of the propagated mask")
    tests = [p for p in decision.points if p.concentration >= CONCENTRATED]
    wrong = sum(bool(refined.mask[int(p.y), int(p.x)]) != p.positive for p in tests)
    if wrong > CONTRADICTED * len(tests):
        reasons.append(f"{wrong} of {len(tests)} concentrated probes contradict it")
    share, left_out = _unwitnessed(refined.mask, before, tests)
    if share > UNWITNESSED:
        reasons.append(f"no probe says why a part of {share:.2f} of the propagated mask changes")
    if 1 - growth - left_out > SHRUNK:
        reasons.append(f"it is smaller by {1 - growth - left_out:.2f} of the propagated mask, and no probe says why")
    return replace(
        decision,
        refused=tuple(reasons),
        score=refined.score,
        stability=refined.stability,
        agreement=float(agreement),
        growth=float(growth),
    )


def _unwitnessed(after: Mask, before: Mask, tests: Sequence[Point]) -> tuple[float, float]:
    """Of the connected parts that are added or taken away: the area of the largest that has no probe on its new side,
    and that of all that are taken away and have one; both over the area of the mask before."""
    largest, left_out = 0, 0
    for changed, side in ((after & ~before, True), (before & ~after, False)):
        _, labels, stats, _ = cv2.connectedComponentsWithStats(changed.astype(np.uint8))
        areas = stats[:, cv2.CC_STAT_AREA].copy()
        areas[0] = 0
        witnessed = list({int(labels[int(p.y), int(p.x)]) for p in tests if p.positive == side})
        if not side:
            left_out = int(areas[witnessed].sum())
        areas[witnessed] = 0
        largest = max(largest, int(areas.max()))
    whole = max(1, np.count_nonzero(before))
    return largest / whole, left_out / whole


def claim(refined: Refined, before: Mask) -> SoftMask:
    """HxW uint8: the refined mask as it enters memory and competes with other objects."""
    return np.where(before, refined.soft, np.minimum(refined.soft, CLAIM)).astype(np.uint8)
