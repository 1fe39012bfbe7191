"""The first answer: candidates of several scales, and which of them is taken."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from tam_backend.features.filters import window
from tam_backend.segmenters.embedded.search import SPEED_SHARE, Evidence, Searches, motion_odds, pace_at
from tam_backend.segmenters.embedded.view import Array, Cues, Hints, Point, Region, View, discs

#: Radii of the discs around the click from which searches begin, as shares of the frame's diagonal: without the
#: evidence of motion, and with it.
STILL_SCALES, MOVING_SCALES = (0.03, 0.06, 0.1, 0.16), (0.06, 0.16)
MEDIUM = 0.1
#: Share of the radii of the ellipse in a box from which a search begins.
BOX_SHARE = 0.7
#: Weights of agreement (a mean IoU), contrast along the outline (a rank in [0, 1]) and motion (e-folds of speed).
AGREEMENT, CONTRAST, MOTION = 0.6, 0.6, 0.13
#: Merit to IoU: a line fitted to what was taken at one click, in scenes with and without motion. Its rank correlation
#: with the IoU was 0.6.
EXPECTED_SLOPE, EXPECTED_OFFSET = 1.17, -0.6


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """probability: hxw float32 or float16 of the object. merit: see ``merits``; the more the better."""

    probability: Array | npt.NDArray[np.float16]
    merit: float

    @property
    def region(self) -> Region:
        return np.asarray(self.probability > 0.5)

    def halved(self) -> Candidate:
        """In half precision, to be kept: most candidates are never asked for."""
        return Candidate(self.probability.astype(np.float16), self.merit)

    @property
    def expected(self) -> float:
        """The IoU with the right mask that is to be expected, in [0.05, 0.95]."""
        return float(np.clip(EXPECTED_SLOPE * self.merit + EXPECTED_OFFSET, 0.05, 0.95))


def from_click(view: View, hints: Hints, cues: Cues) -> list[Candidate]:
    """Candidates for the object under one positive click, best first; at least one.

    Searches begin with discs of several sizes around the click, with and without the evidence of motion, and with what
    moves about as fast as the click and is connected to it. Where nothing moves, colours and edges are all there is.
    """
    [point] = hints.positive
    pace = pace_at(view, point)
    still, moving = _evidence(view, pace)
    diagonal = math.hypot(*view.shape)

    def disc(share: float) -> Region:
        return discs((point,), max(1, round(share * diagonal)), view.shape) & hints.allowed | hints.inside

    moves = bool(moving.fixed.any())
    if not cues.choice:
        return ranked(view, [Searches(view, hints, cues).search(disc(MEDIUM), moving)])
    tasks = [(disc(share), still) for share in STILL_SCALES]
    if moves:
        tasks += [(disc(share), moving) for share in MOVING_SCALES]
        tasks.append((_moving_part(view, SPEED_SHARE * pace, point) | hints.inside, moving))
    searches = Searches(view, hints, cues)
    return ranked(view, [searches.search(start, evidence) for start, evidence in tasks])


def from_box(view: View, hints: Hints, cues: Cues) -> list[Candidate]:
    """Candidates for the object in a box, best first; at least one.

    Searches begin with the whole box, with an ellipse in it, and with what moves in it.
    """
    pace = 0.0 if view.speed is None else float(np.quantile(view.speed[hints.allowed], 0.75))
    still, moving = _evidence(view, pace)
    best = moving if moving.fixed.any() else still
    if not cues.choice:
        return ranked(view, [Searches(view, hints, cues).search(hints.allowed, best)])
    ellipse = _ellipse(hints.allowed)
    tasks = [(hints.allowed, still), (ellipse, still)]
    if view.speed is not None and best is moving:
        part = (view.speed >= SPEED_SHARE * pace) & hints.allowed
        tasks += [(hints.allowed, moving), (ellipse, moving), (part, moving)]
    searches = Searches(view, hints, cues)
    return ranked(view, [searches.search(start, evidence) for start, evidence in tasks])


def _evidence(view: View, pace: float) -> tuple[Evidence, Evidence]:
    """Without and with motion."""
    nothing = np.zeros(view.shape, np.float32)
    return Evidence(nothing, nothing), Evidence(motion_odds(view, pace), nothing)


def _moving_part(view: View, speed: float, point: Point) -> Region:
    assert view.speed is not None
    _, labels = cv2.connectedComponents((view.speed >= speed).astype(np.uint8), connectivity=4)
    label = labels[point[1], point[0]]
    return np.asarray(labels == label) if label else np.zeros(view.shape, bool)


def _ellipse(box: Region) -> Region:
    rows, columns = window(box, 0)
    y, x = np.ogrid[: box.shape[0], : box.shape[1]]
    v = (2 * y + 1 - rows.start - rows.stop) / (rows.stop - rows.start)
    u = (2 * x + 1 - columns.start - columns.stop) / (columns.stop - columns.start)
    inside = u**2 + v**2 <= BOX_SHARE**2
    return np.asarray(inside) if inside.any() else box


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
    reach = max(2.0, 0.5 * math.sqrt(np.count_nonzero(region) / math.pi))
    way = cv2.distanceTransform((~region).astype(np.uint8), cv2.DIST_L2, 5)
    band = (way > 0) & (way <= reach)
    return float(speed[region].mean() - speed[band].mean()) if band.any() else 0.0
