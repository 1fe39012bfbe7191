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
from tam_backend.features.colour import ColourModel, colour_bins
from tam_backend.features.filters import guided_filter, sigmoid, signed_distance, unit, window
from tam_backend.prompts import Mask
from tam_backend.propagators.base import SOFT_THRESHOLD, Propagated, SoftMask
from tam_backend.propagators.embedded.correspondence import Correspondence
from tam_backend.propagators.embedded.newshot import appearance, find_in_shot
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
RADIUS, FLAT = 4, 1e-4
#: Slope with which the filtered mask is sharpened again, so that it does not blur from frame to frame.
SHARPNESS = 12.0
#: Forward-backward error (squared pixels) at which flow is half trusted, and its growth with the squared motion
#: (Sundaram, Brox and Keutzer, ECCV 2010).
CYCLE_ERROR, CYCLE_SHARE = 1.0, 0.02

#: What a step leaves of the trust: with flow that agrees there and back to the share c, c to this power;
TRUST_SHARE = 0.05
#: where the object is lost, where it was found again, and where it is known to be absent.
TRUST_GONE, TRUST_FOUND, TRUST_ABSENT = 0.85, 0.8, 0.98
#: An empty mask after the object was there is trusted this much of the trust.
QUALITY_EMPTY = 0.5
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
        self._probes: Correspondence | None = None
        self._crossing = False
        if state is None:
            self._soft: SoftMask = soft[start]
            self._trust = 1.0
            self._sighting = Sighting.first(self._soft >= SOFT_THRESHOLD)
        else:
            self._soft = np.asarray(state["soft"], np.uint8)
            self._trust = float(state["trust"])
            self._sighting = Sighting.of(state["sighting"])
            self._crossing = bool(state["crossing"])
            if "probes.at" in state:
                self._probes = Correspondence.of(state)
        self._before = self._soft

    def state(self) -> Mapping[str, npt.NDArray[Any]]:
        arrays: dict[str, npt.NDArray[Any]] = {
            "soft": self._soft.copy(),
            "trust": np.array(self._trust, np.float64),
            "sighting": self._sighting.array(),
            "crossing": np.array(self._crossing),
        }
        return arrays if self._probes is None else arrays | self._probes.state()

    def step(self, frame: int, review: Review | None = None) -> Propagated:
        previous = self._last
        result = self._look_for(frame) if self._crossing else self._follow(frame)
        return result if review is None else self._reviewed(result, review, previous)

    def cut(self) -> None:
        """The next step leads into another shot: appearance instead of flow, until the object is found there."""
        self._crossing = True
        if self._probes is not None:
            self._probes.forget()

    def _look_for(self, frame: int) -> Propagated:
        """A frame of another shot, in which the object was not found yet: it is where its colours are, or nowhere."""
        self._before, self._last = np.zeros(self._geometry.work_shape, np.uint8), frame
        self._soft = self._before.copy()
        if self._colours is None:
            self._trust *= TRUST_ABSENT
            return Propagated(self._geometry.to_full(self._soft), self._trust)
        bins = colour_bins(self._features.lab(self._video, frame))
        colour = np.clip(self._colours.log_odds(bins), -COLOUR_LIMIT, COLOUR_LIMIT)
        found = find_in_shot(colour, bins, self._appearance, self._sighting.area)
        if found is None:
            self._sighting.gone += 1
            self._trust *= TRUST_GONE
        else:
            self._soft[found] = FOUND_SOFT
            self._sighting = Sighting.first(found)
            self._trust *= TRUST_FOUND
            self._crossing = False
        return Propagated(self._geometry.to_full(self._soft), self._quality(colour))

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
            self._soft = self._geometry.to_work(better.soft)
        if result.quality >= PLANT_QUALITY:
            self._probes.plant(self._last, self._soft >= SOFT_THRESHOLD, lab)
        return result

    def _follow(self, frame: int) -> Propagated:
        self._before = self._soft
        arrived, consistent = self._arrive(frame)
        moved = arrived >= 0.5
        previous, self._last = self._last, frame
        self._soft = np.zeros(self._geometry.work_shape, np.uint8)
        if self._colours is None:
            self._trust *= TRUST_ABSENT
            return Propagated(self._geometry.to_full(self._soft), self._trust)
        lab = self._features.lab(self._video, frame)
        colour = np.clip(self._colours.log_odds(colour_bins(lab)), -COLOUR_LIMIT, COLOUR_LIMIT)
        speed = self._speed(frame)
        if moved.any():
            self._cut(arrived, consistent, lab, colour, speed)
            self._trust *= float(consistent[moved].mean()) ** TRUST_SHARE
        else:
            self._trust *= TRUST_GONE
        camera = self._camera_way(previous, frame)
        inside = self._soft >= SOFT_THRESHOLD
        agreement = self._agreement_with(colour, inside)
        if not self._sighting.update(inside, agreement, speed, camera):
            if agreement < STRANGE:
                self._soft[:] = 0
            found = self._sighting.search(COLOUR_WEIGHT * colour, speed)
            if found is not None:
                self._soft[:] = np.where(found, FOUND_SOFT, 0)
                self._trust *= TRUST_FOUND
        return Propagated(self._geometry.to_full(self._soft), self._quality(colour))

    def _speed(self, frame: int) -> Array:
        """Motion relative to the camera, in units of noise, at the working size."""
        small = self._features.relative_speed(self._video, frame)
        assert small is not None  # there is a neighbour: the frame the step came from
        height, width = self._geometry.work_shape
        return np.asarray(cv2.resize(small, (width, height)), np.float32)

    def _camera_way(self, source: int, target: int) -> tuple[float, float]:
        """Rows and columns by which the background moves where the object was, working size."""
        g = self._geometry
        scale_x, scale_y = g.work_width / g.flow_width, g.work_height / g.flow_height
        x, y = self._sighting.column / scale_x, self._sighting.row / scale_y
        camera = self._features.camera(self._video, source, target)
        across, down = camera.displacement(x, y, g.flow_height, g.flow_width)
        return down * scale_y, across * scale_x

    def _cut(self, arrived: Array, consistent: Array, lab: npt.NDArray[np.uint8], colour: Array, speed: Array) -> None:
        """The new soft mask from the mask that flow brought, colours, motion and the edges of the image."""
        part = window(arrived >= 0.5, RING[1] + 2 * RADIUS)
        depth = signed_distance(arrived[part] >= 0.5)
        evidence = FLOW_WEIGHT * (2 * arrived[part] - 1) * (0.3 + 0.7 * consistent[part])
        evidence += COLOUR_WEIGHT * colour[part] + _motion_evidence(speed[part], depth)
        near = depth > -REACH
        values = np.where(near, sigmoid(evidence), 0).astype(np.float32)
        smooth = guided_filter(unit(lab[part]), values, RADIUS, FLAT)
        self._soft[part] = np.rint(np.where(near, 255 * sigmoid(SHARPNESS * (smooth - 0.5)), 0))

    def _quality(self, colour: Array) -> float:
        """How far flow could be followed until here, times how decided the mask is, times how its colours agree."""
        some = self._soft > 0.1 * 255
        if not some.any():
            return self._trust * QUALITY_EMPTY
        decided = float(np.abs(2 * unit(self._soft[some]) - 1).mean())
        agreement = self._agreement_with(colour, self._soft >= SOFT_THRESHOLD)
        return float(np.clip(self._trust * decided * min(1.0, agreement), 0, 1))

    def _agreement_with(self, colour: Array, inside: npt.NDArray[np.bool_]) -> float:
        """Mean probability of the object by colour inside a mask; 1 means as high as on the anchors."""
        return float(sigmoid(colour[inside]).mean()) / self._usual if inside.any() else 0.0

    def _learn(self, anchors: Mapping[int, SoftMask]) -> tuple[ColourModel | None, float]:
        """Colours of all anchors together, and the mean probability they give to the object there.

        No model where no anchor shows the object.
        """
        if not any(np.any(soft >= SOFT_THRESHOLD) for soft in anchors.values()):
            return None, 1.0
        bins = np.stack([colour_bins(self._features.lab(self._video, f)) for f in anchors])
        weight = np.stack([unit(soft) for soft in anchors.values()])
        model = ColourModel.learn(bins, weight, 1 - weight)
        self._appearance = appearance(bins, weight)
        colour = np.clip(model.log_odds(bins[weight > 0.5]), -COLOUR_LIMIT, COLOUR_LIMIT)
        return model, float(sigmoid(colour).mean())

    def _arrive(self, frame: int) -> tuple[Array, Array]:
        """The previous mask as flow brings it to ``frame``, and where flow there and back agrees; working size."""
        back = self._features.flow(self._video, frame, self._last)
        there = self._features.flow(self._video, self._last, frame)
        height, width = back.shape[:2]
        cycle = back + _sample(there, back, cv2.BORDER_REPLICATE)
        error, motion = np.sum(cycle**2, axis=2), np.sum(back**2, axis=2)
        consistent = np.exp(-error / (CYCLE_ERROR + CYCLE_SHARE * motion))
        work_h, work_w = self._geometry.work_shape
        large = np.asarray(cv2.resize(back, (work_w, work_h)), np.float32)
        large *= np.array([work_w / width, work_h / height], np.float32)
        arrived = _sample(unit(self._soft), large, cv2.BORDER_CONSTANT)
        return arrived, np.asarray(cv2.resize(consistent, (work_w, work_h)), np.float32)


def _motion_evidence(speed: Array, depth: Array) -> Array | float:
    """Log odds from motion relative to the camera; 0 where the object does not stand out by its motion.

    depth: signed distance to the edge of the mask that flow brought, for the same part of the frame as ``speed``.
    """
    pace = float(np.median(speed[depth > 0]))
    trust = speed_trust(pace)
    ring = (depth < -RING[0]) & (depth > -RING[1])
    if ring.any():
        around = float(np.median(speed[ring]))
        trust *= min(1.0, max(0.0, math.log((pace + 0.3) / (around + 0.3)) / math.log(SPEED_RATIO)))
    return trust * speed_odds(speed, pace) if trust > 0 else 0.0


def _sample(values: Array, flow: Array, border: int) -> Array:
    """``values`` at the places where ``flow`` points to."""
    height, width = flow.shape[:2]
    x = np.arange(width, dtype=np.float32)[None, :] + flow[..., 0]
    y = np.arange(height, dtype=np.float32)[:, None] + flow[..., 1]
    return np.asarray(cv2.remap(values, x, y, cv2.INTER_LINEAR, borderMode=border), np.float32)
