"""The propagator of the embedded engine."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from tam_backend.features import FrameFeatures
from tam_backend.features.colour import ColourModel
from tam_backend.features.edges import RADIUS
from tam_backend.features.filters import Window, sigmoid, unit, usual, window
from tam_backend.prompts import Mask
from tam_backend.propagators.base import SOFT_THRESHOLD, Propagated, SoftMask
from tam_backend.propagators.embedded.assessment import Assessment
from tam_backend.propagators.embedded.correspondence import Correspondence
from tam_backend.propagators.embedded.newshot import appearance, find_in_shot
from tam_backend.propagators.embedded.origin import Origin
from tam_backend.propagators.embedded.sighting import Sighting, speed_odds, speed_trust
from tam_backend.propagators.probes import Review
from tam_backend.video.base import Reader

Array = npt.NDArray[np.float32]

#: Weights of the evidence in units of log odds, and where each is cut off: the mask that flow brings, the colours of
#: the anchors. Motion relative to the camera comes on top.
FLOW_WEIGHT = 2.5
COLOUR_WEIGHT, COLOUR_LIMIT = 0.8, 2.0
#: Motion has full weight where the object is this many times as fast as what surrounds it at these distances (pixels).
SPEED_RATIO = 4.0
RING = (6, 36)
#: A mask does not grow by more than this in one frame beyond where flow takes it, pixels of the working size.
REACH = 12
#: Slope with which the filtered mask is sharpened again, so that it does not blur from frame to frame.
SHARPNESS = 12.0
#: Where a frame looks as the first one of the run, the mask that a person decided there counts for this share against
#: the one that flow brings, and both together count for so much more.
RECALL_WEIGHT, RECALL_CERTAIN = 0.9, 0.5
#: Where refinement changed a mask, and so many pixels around, the mask of the first frame is not asked again: it would
#: put back what was refined away.
REVISED = 2
#: Soft values up to this one are not carried on.
FAINT = 12
#: The longest flow is looked for so far around the mask, pixels.
LOOK = 48

#: Below this agreement of colours a mask that lost the object shows something else, and is dropped.
STRANGE = 0.3
#: New probes are taken from frames of at least this quality.
PLANT_QUALITY = 0.5
#: Soft value of an object that was found again.
FOUND_SOFT = 220


class EmbeddedPropagator:
    name = "embedded"
    state_every = 16
    reviewable = True

    def __init__(self, features: FrameFeatures | None = None) -> None:
        self.features = features if features is not None else FrameFeatures()

    def begin(
        self,
        video: Reader,
        anchors: Mapping[int, Mask],
        start: int,
        state: Mapping[str, npt.NDArray[Any]] | None = None,
    ) -> EmbeddedPropagation:
        return EmbeddedPropagation(self.features, video, anchors, start, state)


class EmbeddedPropagation:
    """One object on its way through a video in one direction."""

    def __init__(
        self,
        features: FrameFeatures,
        video: Reader,
        anchors: Mapping[int, Mask],
        start: int,
        state: Mapping[str, npt.NDArray[Any]] | None,
    ) -> None:
        self._features, self._video, self._last = features, video, start
        self._geometry = features.geometry(video)
        soft = {f: self._geometry.to_work(255 * m.astype(np.uint8)) for f, m in sorted(anchors.items())}
        self._colours, self._usual = self._learn(soft)
        self._assessment = Assessment(features, video, soft)
        self._probes: Correspondence | None = None
        self._crossing = False
        self._revised: SoftMask | None = None  # where refinement changed the mask, carried along; None: nowhere
        if state is None:
            self._soft: SoftMask = soft[start]
            self._sighting = Sighting.first(self._soft >= SOFT_THRESHOLD)
            self._origin = self._remember(start, self._soft)
        else:
            self._soft = np.asarray(state["soft"], np.uint8)
            self._sighting = Sighting.of(state["sighting"])
            origin = int(state["origin"])
            self._origin = self._remember(origin, soft[origin])
            self._origin.resume(state)
            self._assessment.resume(state["assessment"])
            self._crossing = bool(state["crossing"])
            self._revised = np.asarray(state["revised"], np.uint8) if "revised" in state else None
            if "probes.at" in state:
                self._probes = Correspondence.of(state)
        self._before = self._soft

    def state(self) -> Mapping[str, npt.NDArray[Any]]:
        arrays: dict[str, npt.NDArray[Any]] = {
            "soft": self._soft.copy(),
            "sighting": self._sighting.array(),
            **self._origin.state(),
            "assessment": self._assessment.state(),
            "crossing": np.array(self._crossing),
        }
        if self._revised is not None:
            arrays["revised"] = self._revised.copy()
        return arrays if self._probes is None else arrays | self._probes.state()

    def step(self, frame: int, review: Review | None = None) -> Propagated:
        previous = self._last
        result = self._look_for(frame) if self._crossing else self._advance(frame)
        return result if review is None else self._reviewed(result, review, previous)

    def cut(self) -> None:
        """The next step leads into another shot: appearance instead of flow, until the object is found there."""
        self._crossing = True
        self._revised = None
        self._origin.leave()
        if self._probes is not None:
            self._probes.forget()

    def _look_for(self, frame: int) -> Propagated:
        """A frame of another shot, in which the object was not found yet: it is where its colours are, or nowhere."""
        self._last = frame
        self._before = np.zeros(self._geometry.work_shape, np.uint8)
        self._soft = self._before.copy()
        if self._colours is not None:
            bins = self._features.bins(self._video, frame)
            found = find_in_shot(self._colours.log_odds(bins), bins, self._appearance, self._sighting.area)
            if found is None:
                self._sighting.gone += 1
            else:
                self._soft[found] = FOUND_SOFT
                self._sighting = Sighting.first(found)
                self._crossing = False
        return self._assessed(None, frame)

    def _reviewed(self, result: Propagated, review: Review, previous: int) -> Propagated:
        """What becomes of the frame's mask under review; probes go along, as they are needed only for that."""
        lab, video = self._features.lab(self._video, self._last), self._video
        if self._probes is None:
            self._probes = Correspondence.none()
            self._probes.plant(previous, self._before >= SOFT_THRESHOLD, self._features.lab(video, previous))
        if len(self._probes.at):
            pairs = ((previous, self._last), (self._last, previous))
            there, back = (self._features.flow(video, *pair) for pair in pairs)
            self._probes.follow(there, back, self._geometry)
        better = review(result, partial(self._probes.project, lab, self._geometry))
        if better is not None:
            result = better
            self._revise(self._geometry.to_work(better.soft))
        if result.quality >= PLANT_QUALITY:
            self._probes.plant(self._last, self._soft >= SOFT_THRESHOLD, lab)
        return result

    def _revise(self, refined: SoftMask) -> None:
        """Go on from the refined mask of this frame."""
        changed = (refined >= SOFT_THRESHOLD) != (self._soft >= SOFT_THRESHOLD)
        side = 2 * REVISED + 1
        around = np.asarray(cv2.dilate(changed.view(np.uint8), np.ones((side, side), np.uint8)), np.uint8)
        before = self._revised if self._revised is not None else np.uint8(0)
        self._revised, self._soft = np.maximum(before, 255 * around), refined

    def _advance(self, frame: int) -> Propagated:
        previous, self._last = self._last, frame
        self._before, self._soft = self._soft, np.zeros(self._geometry.work_shape, np.uint8)
        if self._colours is None:
            return self._assessed(previous, frame)
        self._features.prepare(self._video, frame, 2 * frame - previous)
        speed = self._features.speed(self._video, frame)
        assert speed is not None  # there is a neighbour: the frame the step came from
        part, colour = self._follow(previous, speed)
        soft = self._soft[part]
        inside = soft >= SOFT_THRESHOLD
        agreement = self._agreement_with(colour, inside)
        camera = self._camera_way(previous, frame)
        if not self._sighting.update(inside, agreement, speed[part], camera, part):
            if agreement < STRANGE:
                soft[:] = 0
            found = self._sighting.search(lambda part: COLOUR_WEIGHT * self._colour(part), speed)
            if found is not None:
                self._soft[:] = np.where(found, FOUND_SOFT, 0)
        return self._assessed(previous, frame)

    def _assessed(self, previous: int | None, frame: int) -> Propagated:
        return Propagated(self._geometry.to_full(self._soft), self._assessment.quality(previous, frame, self._soft))

    def _follow(self, previous: int, speed: Array) -> tuple[Window, Array]:
        """Take the mask of the frame ``previous`` on to this frame. Returns the part of it that matters (the mask is
        empty elsewhere), and the log odds by colour there."""
        sources = self._before > FAINT
        back = self._features.flow(self._video, self._last, previous)
        if not sources.any():
            self._revised = None
            height, width = self._before.shape
            self._origin.step(back, (slice(0, height), slice(0, width)))  # it may come back anywhere
            part = slice(0, 1), slice(0, 1)
            return part, self._colour(part)
        arrival = self._features.arrival(self._video, previous, self._last)
        source = window(sources, 1)
        longest = cv2.norm(arrival.back[window(sources, LOOK)], cv2.NORM_INF)
        part = window(sources, math.ceil(longest) + RING[1])
        self._origin.step(back, part)
        arrived = np.zeros(speed[part].shape, np.float32)
        reached = window(sources, math.ceil(longest) + 2)  # beyond it nothing arrives
        arrived[_relative(reached, part)] = unit(_sample(self._before[source], arrival.back[reached], reached, source))
        revised = None
        if self._revised is not None:
            whole = slice(0, self._before.shape[0]), slice(0, self._before.shape[1])
            carried = _sample(self._revised, arrival.back[part], part, whole)
            revised = unit(carried)
            self._revised = np.zeros(self._geometry.work_shape, np.uint8)
            self._revised[part] = carried
        certain = self._recall(arrived, part, revised)
        moved = arrived >= 0.5
        if not moved.any():
            return source, self._colour(source)
        ring, inner = window(moved, RING[1]), window(moved, REACH + 2 * RADIUS)
        depth, speed = _depth(moved[ring]), speed[part][ring]
        consistent, certain, arrived = arrival.consistent[part][inner], certain[inner], arrived[inner]
        part = _absolute(inner, part)
        colour = self._colour(part)
        evidence = FLOW_WEIGHT * (2 * arrived - 1) * (0.3 + 0.7 * consistent) * (1 + RECALL_CERTAIN * certain)
        inner = _relative(inner, ring)
        evidence += COLOUR_WEIGHT * colour + _motion_evidence(speed, depth, inner)
        near = depth[inner] > -REACH
        values = np.where(near, sigmoid(evidence), np.float32(0))
        smooth = self._features.edges(self._video, self._last).snap(values, part)
        self._soft[part] = np.rint(np.where(near, 255 * sigmoid(SHARPNESS * (smooth - 0.5)), 0))
        return part, colour

    def _recall(self, arrived: Array, part: Window, revised: Array | None) -> Array:
        """Put the mask that flow brings to a part of this frame right by that of the frame the run began at. Returns
        for each pixel how much it looks as it did there, in [0, 1].

        revised: of the part, in [0, 1], how far refinement knows better than that frame; None: nowhere.
        """
        certain = np.zeros_like(arrived)
        moved = arrived >= 0.5
        if not moved.any():
            return certain
        top, left = part[0].start, part[1].start
        rows, columns = window(moved, 0)
        around = slice(rows.start + top, rows.stop + top), slice(columns.start + left, columns.stop + left)
        recalled = self._origin.recall(self._features.gray(self._video, self._last), around)
        if recalled is None:
            return certain
        (rows, columns), mask, alike = recalled
        first_row, first_column = max(rows.start, top), max(columns.start, left)
        height = min(rows.stop, top + arrived.shape[0]) - first_row
        width = min(columns.stop, left + arrived.shape[1]) - first_column

        def common(values: Array, row: int, column: int) -> Array:
            """The pixels that are in both parts; row, column: where the part of ``values`` begins."""
            return values[first_row - row :, first_column - column :][:height, :width]

        alike, mask = (common(values, rows.start, columns.start) for values in (alike, mask))
        common(certain, top, left)[:] = alike
        if revised is not None:
            alike = alike * (1 - common(revised, top, left))
        ours = common(arrived, top, left)
        ours += RECALL_WEIGHT * alike * (mask - ours)
        return certain

    def _remember(self, frame: int, soft: SoftMask) -> Origin:
        return Origin(frame, self._features.gray(self._video, frame), soft, self._geometry)

    def _colour(self, part: Window) -> Array:
        """Log odds of the object by the colours of a part of this frame."""
        assert self._colours is not None
        return self._colours.log_odds(self._features.bins(self._video, self._last)[part])

    def _camera_way(self, source: int, target: int) -> tuple[float, float]:
        """Rows and columns by which the background moves where the object was, working size."""
        g = self._geometry
        scale_x, scale_y = g.work_width / g.flow_width, g.work_height / g.flow_height
        x, y = self._sighting.column / scale_x, self._sighting.row / scale_y
        camera = self._features.camera(self._video, source, target)
        across, down = camera.displacement(x, y, g.flow_height, g.flow_width)
        return down * scale_y, across * scale_x

    def _agreement_with(self, colour: Array, inside: npt.NDArray[np.bool_]) -> float:
        """Mean probability of the object by colour inside a mask; 1 means as high as on the anchors."""
        return float(sigmoid(colour[inside]).mean()) / self._usual if inside.any() else 0.0

    def _learn(self, anchors: Mapping[int, SoftMask]) -> tuple[ColourModel | None, float]:
        """Colours of all anchors together, and the mean probability they give to the object there.

        No model where no anchor shows the object.
        """
        if not any(np.any(soft >= SOFT_THRESHOLD) for soft in anchors.values()):
            return None, 1.0
        bins = np.stack([self._features.bins(self._video, f) for f in anchors])
        weight = np.stack([unit(soft) for soft in anchors.values()])
        self._appearance = appearance(bins, weight)
        learned = ColourModel.learn(bins, weight, 1 - weight)
        model = ColourModel(np.clip(learned.table, -COLOUR_LIMIT, COLOUR_LIMIT))
        return model, float(sigmoid(model.log_odds(bins[weight > 0.5])).mean())


def _depth(region: npt.NDArray[np.bool_]) -> Array:
    """HxW float32: 1 in the region, elsewhere minus the distance to it in pixels (within 2 %)."""
    outside = cv2.distanceTransform((~region).view(np.uint8), cv2.DIST_L2, 3)
    return np.where(region, np.float32(1), -np.asarray(outside, np.float32))


def _motion_evidence(speed: Array, depth: Array, inner: Window) -> Array | float:
    """Log odds from motion relative to the camera; 0 where the object does not stand out by its motion.

    depth: see ``_depth``, of the mask that flow brought, for the same part of the frame as ``speed``. inner: where in
    that part they are asked for.
    """
    pace = usual(speed, depth > 0)
    trust = speed_trust(pace)
    ring = (depth < -RING[0]) & (depth > -RING[1])
    if ring.any():
        around = usual(speed, ring)
        trust *= min(1.0, max(0.0, math.log((pace + 0.3) / (around + 0.3)) / math.log(SPEED_RATIO)))
    return trust * speed_odds(speed[inner], pace) if trust > 0 else 0.0


def _relative(part: Window, whole: Window) -> Window:
    """A part of a frame in terms of another part that it lies in."""
    rows, columns = (slice(p.start - w.start, p.stop - w.start) for p, w in zip(part, whole, strict=True))
    return rows, columns


def _absolute(part: Window, whole: Window) -> Window:
    """The reverse: ``part``, which is in terms of ``whole``, in terms of the frame."""
    rows, columns = (slice(p.start + w.start, p.stop + w.start) for p, w in zip(part, whole, strict=True))
    return rows, columns


def _sample(values: SoftMask, flow: Array, part: Window, source: Window) -> SoftMask:
    """``values``, the part ``source`` of something that is 0 elsewhere, at the places where ``flow`` points to from
    the pixels of ``part``."""
    height, width = flow.shape[:2]
    x = np.arange(width, dtype=np.float32) + np.float32(part[1].start - source[1].start)
    y = np.arange(height, dtype=np.float32)[:, None] + np.float32(part[0].start - source[0].start)
    return np.asarray(cv2.remap(values, x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR), np.uint8)
