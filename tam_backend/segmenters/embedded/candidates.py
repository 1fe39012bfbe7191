"""The first answer: candidates of several scales, and which of them is taken."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from tam_backend.segmenters.embedded.search import (
    SPEED_SHARE,
    Evidence,
    motion_odds,
    pace_at,
    search,
    speed_trust,
)
from tam_backend.segmenters.embedded.view import Array, Cues, Hints, Point, Region, View, discs

#: Radii of the discs around the click from which searches begin, as shares of the frame's diagonal.
SCALES = (0.03, 0.06, 0.1, 0.16)
MEDIUM = 2
#: Shares of the click's speed: what is at least as fast, and connected to the click, is where a search begins.
PACES = (0.35, SPEED_SHARE, 0.8)
#: Weights of agreement (a mean IoU), contrast along the outline (a rank in [0, 1]) and motion (e-folds of speed).
AGREEMENT, CONTRAST, MOTION = 0.6, 0.6, 0.13


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """probability: hxw float32 of the object. merit: see ``merits``; the more the better."""

    probability: Array
    merit: float

    @property
    def region(self) -> Region:
        return np.asarray(self.probability > 0.5)


def from_click(view: View, hints: Hints, cues: Cues) -> list[Candidate]:
    """Candidates for the object under one positive click, best first; at least one.

    Searches begin with discs of several sizes around the click, with and without the evidence of motion, and with what
    moves about as fast as the click and is connected to it.
    """
    [point] = hints.positive
    pace = pace_at(view, point)
    nothing = np.zeros(view.shape, np.float32)
    still, moving = Evidence(nothing, nothing), Evidence(motion_odds(view, pace), nothing)
    starts = [discs((point,), max(1, round(s * math.hypot(*view.shape))), view.shape) for s in SCALES]
    moves = bool(moving.fixed.any())
    if not cues.choice:
        return ranked(view, [search(view, hints, starts[MEDIUM], moving, cues)])
    tasks = [(start, still) for start in starts]
    if moves:
        tasks += [(start, moving) for start in starts]
        tasks += [(_moving_part(view, share * pace, point), moving) for share in PACES]
    return ranked(view, [search(view, hints, s & hints.allowed | hints.inside, e, cues) for s, e in tasks])


def _moving_part(view: View, speed: float, point: Point) -> Region:
    assert view.speed is not None
    _, labels = cv2.connectedComponents((view.speed >= speed).astype(np.uint8), connectivity=4)
    label = labels[point[1], point[0]]
    return np.asarray(labels == label) if label else np.zeros(view.shape, bool)


def from_box(view: View, hints: Hints, cues: Cues) -> list[Candidate]:
    """Candidates for the object in a box, best first; at least one."""
    nothing = np.zeros(view.shape, np.float32)
    pace = 0.0 if view.speed is None else float(np.quantile(view.speed[hints.allowed], 0.75))
    tasks = [(hints.allowed, Evidence(nothing, nothing))]
    if speed_trust(pace) > 0 and view.speed is not None:
        evidence = Evidence(motion_odds(view, pace), nothing)
        tasks.insert(0, ((view.speed >= SPEED_SHARE * pace) & hints.allowed, evidence))
    found = [search(view, hints, start, evidence, cues) for start, evidence in tasks]
    return ranked(view, found if cues.choice else found[:1])


def ranked(view: View, found: list[Array]) -> list[Candidate]:
    """Best first; of equals, the one that was found first."""
    merit = merits(view, found)
    order = sorted(range(len(found)), key=lambda i: -merit[i])
    return [Candidate(found[i], merit[i]) for i in order]


def merits(view: View, found: list[Array]) -> list[float]:
    """How good each candidate looks, from three signs that were seen to go with a good mask on real videos.

    agreement: its mean IoU with all candidates, for what several searches end at is no accident. contrast: the outline
    lies on strong edges of the image (mean rank among the frame's pixels). motion: how much faster the inside is than a
    band around it (difference of the mean log speeds). The merit is their weighted sum.
    """
    regions = [p > 0.5 for p in found]
    flat = np.stack([r.ravel() for r in regions]).astype(np.float32)
    both = flat @ flat.T
    area = np.diag(both)
    overlap = (both / np.maximum(area[:, None] + area[None] - both, 1)).mean(axis=1)
    speed = None if view.speed is None else np.log1p(view.speed)
    result = []
    for region, agreement in zip(regions, overlap, strict=True):
        merit = AGREEMENT * float(agreement) + CONTRAST * outline_contrast(view, region)
        if speed is not None:
            merit += MOTION * _lead(speed, region)
        result.append(merit)
    return result


def outline_contrast(view: View, region: Region) -> float:
    """Mean rank of the image's edges along the outline, in [0, 1]; 0 without an outline."""
    kernel = np.ones((3, 3), np.uint8)
    shape = region.astype(np.uint8)
    outline = cv2.dilate(shape, kernel) != cv2.erode(shape, kernel)
    return float(view.contrast[outline].mean()) if outline.any() else 0.0


def _lead(speed: Array, region: Region) -> float:
    if not region.any():
        return 0.0
    reach = max(2, round(0.5 * math.sqrt(np.count_nonzero(region) / math.pi)))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    band = (cv2.dilate(region.astype(np.uint8), kernel) > 0) & ~region
    return float(speed[region].mean() - speed[band].mean()) if band.any() else 0.0
