"""The propagator of the embedded engine."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from tam_backend.features import FrameFeatures
from tam_backend.features.colour import ColourModel, colour_bins
from tam_backend.features.filters import guided_filter, sigmoid, signed_distance, unit, window
from tam_backend.prompts import Mask
from tam_backend.propagators.base import SOFT_THRESHOLD, Propagated, SoftMask
from tam_backend.video.base import Reader

Array = npt.NDArray[np.float32]

#: Weights of the evidence in units of log odds, and where each is cut off: the mask that flow brings, the colours of
#: the anchors, and the motion relative to the camera.
FLOW_WEIGHT = 2.5
COLOUR_WEIGHT, COLOUR_LIMIT = 0.8, 2.0
MOTION_LIMIT = 2.5
#: Motion speaks for the object from this share of the object's own speed on.
SPEED_SHARE = 0.55
#: Speed of the object, in units of noise, from which motion begins to tell anything, and from which it tells all.
SPEED_SOME, SPEED_CLEAR = 2.0, 5.0
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


class EmbeddedPropagator:
    name = "embedded"

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
        self._colours = self._learn(soft)
        self._soft: SoftMask = soft[start] if state is None else np.asarray(state["soft"], np.uint8)
        self._trust = 1.0 if state is None else float(state["trust"])

    def state(self) -> Mapping[str, npt.NDArray[Any]]:
        return {"soft": self._soft.copy(), "trust": np.array(self._trust, np.float64)}

    def step(self, frame: int) -> Propagated:
        arrived, consistent = self._arrive(frame)
        self._last = frame
        moved = arrived >= 0.5
        if self._colours is None or not moved.any():
            self._soft = np.zeros(self._geometry.work_shape, np.uint8)
            return Propagated(self._geometry.to_full(self._soft), self._trust)
        part = window(moved, RING[1] + 2 * RADIUS)
        lab = self._features.lab(self._video, frame)[part]
        depth = signed_distance(moved[part])
        colour = np.clip(self._colours.log_odds(colour_bins(lab)), -COLOUR_LIMIT, COLOUR_LIMIT)
        evidence = FLOW_WEIGHT * (2 * arrived[part] - 1) * (0.3 + 0.7 * consistent[part])
        evidence += COLOUR_WEIGHT * colour + self._motion(frame, part, depth)
        near = depth > -REACH
        guide = unit(lab)
        smooth = guided_filter(guide, np.where(near, sigmoid(evidence), 0).astype(np.float32), RADIUS, FLAT)
        probability = np.where(near, sigmoid(SHARPNESS * (smooth - 0.5)), 0)
        self._soft = np.zeros(self._geometry.work_shape, np.uint8)
        self._soft[part] = np.rint(255 * probability)
        inside = self._soft[part] >= SOFT_THRESHOLD
        agreement = float(sigmoid(colour[inside]).mean()) if inside.any() else 0.0
        self._trust *= float(consistent[moved].mean()) ** 0.5
        return Propagated(self._geometry.to_full(self._soft), self._trust * agreement)

    def _motion(self, frame: int, part: tuple[slice, slice], depth: Array) -> Array | float:
        """Log odds from motion relative to the camera; 0 where the object does not stand out by its motion.

        depth: signed distance to the edge of the mask that flow brought, for this part of the frame.
        """
        small = self._features.relative_speed(self._video, frame)
        if small is None:
            return 0.0
        height, width = self._geometry.work_shape
        speed = np.asarray(cv2.resize(small, (width, height)), np.float32)[part]
        pace = float(np.median(speed[depth > 0]))
        trust = math.log(max(pace, 1e-6) / SPEED_SOME) / math.log(SPEED_CLEAR / SPEED_SOME)
        ring = (depth < -RING[0]) & (depth > -RING[1])
        if ring.any():
            around = float(np.median(speed[ring]))
            trust = min(1.0, trust) * math.log((pace + 0.3) / (around + 0.3)) / math.log(SPEED_RATIO)
        if trust <= 0:
            return 0.0
        odds = 2 * np.log((speed + 0.3) / (SPEED_SHARE * pace + 0.3))
        return np.float32(min(1.0, trust)) * np.clip(odds, -MOTION_LIMIT, MOTION_LIMIT)

    def _learn(self, anchors: Mapping[int, SoftMask]) -> ColourModel | None:
        """Colours of all anchors together; None where no anchor shows the object."""
        if not any(np.any(soft >= SOFT_THRESHOLD) for soft in anchors.values()):
            return None
        bins = np.stack([colour_bins(self._features.lab(self._video, f)) for f in anchors])
        weight = np.stack([unit(soft) for soft in anchors.values()])
        return ColourModel.learn(bins, weight, 1 - weight)

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


def _sample(values: Array, flow: Array, border: int) -> Array:
    """``values`` at the places where ``flow`` points to."""
    height, width = flow.shape[:2]
    x = np.arange(width, dtype=np.float32)[None, :] + flow[..., 0]
    y = np.arange(height, dtype=np.float32)[:, None] + flow[..., 1]
    return np.asarray(cv2.remap(values, x, y, cv2.INTER_LINEAR, borderMode=border), np.float32)
