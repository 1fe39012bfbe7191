"""The segmenter of the embedded engine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from tam_backend.errors import BadInput
from tam_backend.features import FrameFeatures
from tam_backend.features.colour import ColourModel, colour_bins
from tam_backend.features.filters import guided_filter, sigmoid, signed_distance, unit, window
from tam_backend.prompts import Click, FramePrompts, Mask
from tam_backend.segmenters.base import Refined, Segmentation
from tam_backend.segmenters.embedded.refine import refine
from tam_backend.segmenters.embedded.superpixels import RegionGraph
from tam_backend.video.base import Reader

Array = npt.NDArray[np.float32]
Region = npt.NDArray[np.bool_]
Point = tuple[int, int]

#: Rounds of learning colours from the mask and cutting the mask anew.
ROUNDS = 4
#: What moves at least at this share of the speed at the click, connected to it, is where the search begins.
SPEED_SHARE = 0.55
#: Speed at a click, in units of noise, from which motion begins to tell anything, and from which it has full weight.
SPEED_SOME, SPEED_CLEAR = 2.0, 5.0
#: Where motion tells nothing the search begins with a disc around the click; its radius as a share of the diagonal.
START_SHARE = 0.08
#: Colours of the object are learnt this share of its radius away from its edge, where the mask is surely right.
CORE_SHARE, GAP_SHARE = 0.3, 0.1
#: Weights of the evidence, in units of log odds, and where each is cut off.
MOTION_LIMIT = 2.0
COLOUR_WEIGHT, COLOUR_LIMIT = 0.7, 2.5
PRIOR_SHARE, PRIOR_LIMIT = 0.25, 1.5
CLICK_WEIGHT, CLICK_REACH = 4.0, 8.0
#: Colours next to a negative click count this many times over as background, out to this distance over the regions.
REFUSED_WEIGHT, REFUSED_REACH = 4.0, 3.0
#: Guided filter: radius in pixels of the flow's size and of the working size, and variance of flat image parts.
RADIUS, FINE_RADIUS, FLAT = 5, 5, 1e-4
#: Pixels around a click that are taken to be on the same side as the click.
CLICK_RADIUS = 4


@dataclass(frozen=True, slots=True, eq=False)
class _View:
    """One frame at the size at which masks are searched."""

    lab: npt.NDArray[np.uint8]
    bins: npt.NDArray[np.uint16]
    speed: Array | None
    graph: RegionGraph


@dataclass(frozen=True, slots=True, eq=False)
class _Hints:
    """Prompts at the size of the view. allowed: the object may be here (the box, or everywhere)."""

    positive: tuple[Point, ...]
    negative: tuple[Point, ...]
    inside: Region
    outside: Region
    allowed: Region


class EmbeddedSegmenter:
    """Motion relative to the camera says roughly where the object is, colour and edges where it ends.

    A mask is found at half the working size and its edge is drawn at the working size. The first positive click (or
    the box) finds the object; each further click pulls what is near to it, along ways of even colour and motion, to
    its own side.
    """

    name = "embedded"

    def __init__(self, features: FrameFeatures | None = None) -> None:
        self.features = features if features is not None else FrameFeatures()

    def segment(self, video: Reader, frame: int, prompts: FramePrompts, prior: Mask | None = None) -> Segmentation:
        prompts.validate(video.height, video.width)
        if not prompts.locates:
            raise BadInput("nothing says where the object is: give at least one positive click, a box or a mask")
        if prompts.mask is not None:
            return Segmentation(prompts.mask, 1.0)
        _refuse_contradictions(prompts.clicks)
        view = self._view(video, frame)
        hints = _hints(prompts, video, view)
        probability = _search(view, hints)
        soft = self._fine(video, frame, probability)
        geometry = self.features.geometry(video)
        mask = geometry.to_full(np.rint(255 * soft).astype(np.uint8)) >= 128
        return Segmentation(_respect(mask, prompts.clicks), _score(probability))

    def refine(self, video: Reader, frame: int, points: Sequence[Click], logits: Array) -> Refined:
        return refine(self.features, video, frame, points, logits)

    def _view(self, video: Reader, frame: int) -> _View:
        geometry = self.features.geometry(video)
        size = (geometry.flow_width, geometry.flow_height)
        lab = np.asarray(cv2.resize(self.features.lab(video, frame), size, interpolation=cv2.INTER_AREA), np.uint8)
        speed = self.features.relative_speed(video, frame)
        graph = self.features.store.get((video.key, "regions", frame), lambda: RegionGraph.build(lab, speed))
        return _View(lab, colour_bins(lab), speed, graph)

    def _fine(self, video: Reader, frame: int, probability: Array) -> Array:
        """Enlarge to the working size, following the edges of the image there."""
        lab = self.features.lab(video, frame)
        height, width = lab.shape[:2]
        large = np.asarray(cv2.resize(probability, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
        if large.shape == probability.shape or not np.any(large > 0.5):
            return large
        part = window(large > 0.25, 2 * FINE_RADIUS)
        guide = unit(lab[part])
        fine = np.zeros_like(large)
        fine[part] = np.clip(guided_filter(guide, large[part], FINE_RADIUS, FLAT), 0, 1)
        return fine


def _refuse_contradictions(clicks: tuple[Click, ...]) -> None:
    sides: dict[Point, bool] = {}
    for click in clicks:
        pixel = (int(click.x), int(click.y))
        if sides.setdefault(pixel, click.positive) != click.positive:
            raise BadInput(f"pixel {pixel} has a positive and a negative click: it is on the object or it is not")


def _hints(prompts: FramePrompts, video: Reader, view: _View) -> _Hints:
    height, width = view.bins.shape
    sy, sx = height / video.height, width / video.width

    def points(positive: bool) -> tuple[Point, ...]:
        return tuple((int(c.x * sx), int(c.y * sy)) for c in prompts.clicks if c.positive == positive)

    allowed = np.ones((height, width), bool)
    if prompts.box is not None:
        b = prompts.box
        allowed[:] = False
        top, left = min(int(b.top * sy), height - 1), min(int(b.left * sx), width - 1)
        allowed[top : max(top + 1, round(b.bottom * sy)), left : max(left + 1, round(b.right * sx))] = True
    positive, negative = points(True), points(False)
    radius = min(CLICK_RADIUS, max(1, min(height, width) // 40))
    return _Hints(positive, negative, _disks(positive, radius, allowed), _disks(negative, radius, allowed), allowed)


def _disks(points: tuple[Point, ...], radius: int, like: Region) -> Region:
    canvas = np.zeros(like.shape, np.uint8)
    for point in points:
        cv2.circle(canvas, point, radius, 1, -1)
    return canvas > 0


def _search(view: _View, hints: _Hints) -> Array:
    """Probability of the object, hxw, at the size of the view."""
    region, motion = _beginning(view, hints)
    clicks, refused = _click_evidence(view, hints), _refused(view, hints)
    guide = unit(view.lab)
    probability = region.astype(np.float32)
    for _ in range(ROUNDS):
        radius = max(1.0, float(np.sqrt(np.count_nonzero(region) / np.pi)))
        depth = signed_distance(region)
        colour = _colours(view, hints, refused, depth, radius).log_odds(view.bins)
        evidence = motion + COLOUR_WEIGHT * np.clip(colour, -COLOUR_LIMIT, COLOUR_LIMIT) + clicks
        evidence += np.clip(depth / (PRIOR_SHARE * radius), -PRIOR_LIMIT, PRIOR_LIMIT)
        estimate = _pinned(sigmoid(evidence), hints)
        estimate = _pinned(np.clip(guided_filter(guide, estimate, RADIUS, FLAT), 0, 1), hints)
        kept = _connected(estimate > 0.5, hints)
        if not kept.any():
            break
        region, probability = kept, np.where(kept | (estimate <= 0.5), estimate, 0).astype(np.float32)
    return probability


def _beginning(view: _View, hints: _Hints) -> tuple[Region, Array]:
    """Where the search begins, and log odds from motion."""
    region = hints.inside.copy()
    motion = np.zeros(view.bins.shape, np.float32)
    for number, (x, y) in enumerate(hints.positive):
        part, evidence = _moving(view, _around(view.speed, x, y), (x, y))
        if number == 0:
            motion = evidence
            if part is None:
                part = _disks(((x, y),), round(START_SHARE * math.hypot(*view.bins.shape)), hints.allowed)
        # A later click adds its own moving part, but not one that dwarfs what the earlier ones found.
        if part is not None and (number == 0 or np.count_nonzero(part) <= 2 * np.count_nonzero(region)):
            region |= part
    if not hints.positive:
        speed = 0.0 if view.speed is None else float(np.quantile(view.speed[hints.allowed], 0.75))
        part, motion = _moving(view, speed, None)
        region = hints.allowed if part is None else part & hints.allowed
    region &= hints.allowed & ~hints.outside
    if hints.negative and hints.positive:
        region &= (view.graph.distance(hints.positive) <= view.graph.distance(hints.negative)) | hints.inside
    return region, motion


def _around(speed: Array | None, x: int, y: int) -> float:
    return 0.0 if speed is None else float(np.median(speed[max(0, y - 3) : y + 4, max(0, x - 3) : x + 4]))


def _moving(view: _View, pace: float, point: Point | None) -> tuple[Region | None, Array]:
    """What moves about as fast as ``pace`` (connected to the point, if one is given), and log odds from that."""
    trust = float(np.clip(np.log(max(pace, 1e-6) / SPEED_SOME) / np.log(SPEED_CLEAR / SPEED_SOME), 0, 1))
    if view.speed is None or trust == 0:
        return None, np.zeros(view.bins.shape, np.float32)
    odds = 2 * np.log((view.speed + 0.3) / (SPEED_SHARE * pace + 0.3))
    evidence = np.asarray(trust * np.clip(odds, -MOTION_LIMIT, MOTION_LIMIT), np.float32)
    part = view.speed >= SPEED_SHARE * pace
    if point is not None:
        _, labels = cv2.connectedComponents(part.astype(np.uint8), connectivity=4)
        label = labels[point[1], point[0]]
        part = (labels == label) & part
    return (part if part.any() else None), evidence


def _click_evidence(view: _View, hints: _Hints) -> Array:
    """Log odds from clicks after the first: near ones count, near along ways of even colour and motion."""
    graph, none = view.graph, np.zeros(view.bins.shape, np.float32)
    if hints.positive and hints.negative:
        plus, minus = graph.distance(hints.positive), graph.distance(hints.negative)
        near = np.exp(-np.minimum(plus, minus) / CLICK_REACH)
        return CLICK_WEIGHT * (minus - plus) / (minus + plus + 1e-3) * near
    if hints.negative:
        return -CLICK_WEIGHT * np.exp(-graph.distance(hints.negative) / CLICK_REACH)
    extra = hints.positive[1:]
    return CLICK_WEIGHT * np.exp(-graph.distance(extra) / CLICK_REACH) if extra else none


def _refused(view: _View, hints: _Hints) -> Array:
    """How much each pixel tells about the background because a negative click is near."""
    if not hints.negative:
        return np.zeros(view.bins.shape, np.float32)
    return REFUSED_WEIGHT * np.exp(-view.graph.distance(hints.negative) / REFUSED_REACH)


def _colours(view: _View, hints: _Hints, refused: Array, depth: Array, radius: float) -> ColourModel:
    core = depth > min(CORE_SHARE * radius, 0.4 * float(depth.max()))
    # Background close to the object tells more about where the object ends than background far away.
    ground = np.where(depth < -GAP_SHARE * radius, np.exp(depth / (7 * radius)), 0).astype(np.float32) + 1e-9
    return ColourModel.learn(view.bins, (core | hints.inside).astype(np.float32), ground + refused)


def _pinned(probability: Array, hints: _Hints) -> Array:
    probability[~hints.allowed] = 0
    probability[hints.inside & hints.allowed] = 1
    probability[hints.outside] = 0
    return probability


def _connected(region: Region, hints: _Hints) -> Region:
    """The parts that hold a positive click; with a box alone, the parts that are not specks."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(region.astype(np.uint8), connectivity=4)
    keep = np.zeros(count, bool)
    if hints.positive:
        keep[[labels[y, x] for x, y in hints.positive]] = True
    else:
        areas = stats[:, cv2.CC_STAT_AREA]
        keep[1:] = areas[1:] >= 0.05 * areas[1:].max(initial=0)
    keep[0] = False
    return np.asarray(keep[labels])


def _respect(mask: Mask, clicks: tuple[Click, ...]) -> Mask:
    """The last word is the clicks': every positive one is inside, every negative one outside."""
    mask = mask.copy()
    for click in clicks:
        mask[int(click.y), int(click.x)] = click.positive
    return mask


def _score(probability: Array) -> float:
    """How clearly the inside is told from what is right outside: mean probability in, times one minus mean outside."""
    region = probability > 0.5
    if not region.any():
        return 0.0
    inner = float(probability[region].mean())
    ring = np.asarray(cv2.dilate(region.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0) & ~region
    outer = float(probability[ring].mean()) if ring.any() else 0.0
    return float(np.clip(inner * (1 - outer), 0, 1))
