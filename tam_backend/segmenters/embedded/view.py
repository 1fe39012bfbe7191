"""One frame and the prompts on it, at the size at which masks are searched."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from tam_backend.features import FrameFeatures
from tam_backend.features.colour import colour_bins
from tam_backend.features.filters import GuidedFilter, unit
from tam_backend.prompts import Box, Click
from tam_backend.segmenters.embedded.superpixels import RegionGraph
from tam_backend.video.base import Reader

Array = npt.NDArray[np.float32]
Region = npt.NDArray[np.bool_]
Point = tuple[int, int]

#: Pixels around a click that are taken to be on the same side as the click.
CLICK_RADIUS = 4
#: Guided filter: radius in pixels of the view, and variance of flat image parts.
RADIUS, FLAT = 5, 1e-4


@dataclass(frozen=True, slots=True)
class Cues:
    """What masks are made from. All of it is used; a benchmark switches single cues off to see what each is worth.

    motion: speed relative to the camera. colour: colours of the object against those around it. core: the object's
    colours are learnt away from its edge. position: what is near the object's last outline is likelier. choice: the
    best of several candidates, not the one of medium scale. local: a later click changes the mask around it only.
    edges: masks follow the edges of the image (guided filter).
    """

    motion: bool = True
    colour: bool = True
    core: bool = True
    position: bool = True
    choice: bool = True
    local: bool = True
    edges: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What was found out about a frame, and takes long. lab: hxwx3 uint8. bins: hxw, numbers of colours. contrast: hxw
    in [0, 1], the share of the frame's pixels that lie on a weaker edge. speed: hxw, relative to the camera in units of
    noise, or None.
    """

    lab: npt.NDArray[np.uint8]
    bins: npt.NDArray[np.uint16]
    contrast: Array
    speed: Array | None
    graph: RegionGraph

    @property
    def nbytes(self) -> int:
        held = (self.lab, self.bins, self.contrast, self.speed, self.graph)
        return sum(x.nbytes for x in held if x is not None)


@dataclass(frozen=True, slots=True, eq=False)
class View(Found):
    """smooth: the guided filter along the frame's edges."""

    smooth: GuidedFilter

    @property
    def shape(self) -> tuple[int, int]:
        return self.bins.shape[0], self.bins.shape[1]

    @staticmethod
    def of(features: FrameFeatures, video: Reader, frame: int, cues: Cues) -> View:
        """From what the features keep of clicked frames; what is found anew goes there. The filter is quick to make and
        three times as large as all the rest: it goes with the next frames."""

        def find() -> Found:
            geometry = features.geometry(video)
            size = (geometry.flow_width, geometry.flow_height)
            lab = np.asarray(cv2.resize(features.lab(video, frame), size, interpolation=cv2.INTER_AREA), np.uint8)
            speed = features.relative_speed(video, frame) if cues.motion else None
            return Found(lab, colour_bins(lab), _contrast(lab), speed, RegionGraph.build(lab, speed))

        found = features.clicked.get((video.key, "found", frame, cues.motion), find)
        smooth = features.passing.get((video.key, "smooth", frame), lambda: GuidedFilter(unit(found.lab), RADIUS, FLAT))
        return View(found.lab, found.bins, found.contrast, found.speed, found.graph, smooth)


def _contrast(lab: npt.NDArray[np.uint8]) -> Array:
    smooth = cv2.GaussianBlur(lab, (3, 3), 0).astype(np.float32)
    strength = np.zeros(lab.shape[:2], np.float32)
    for dx, dy in ((1, 0), (0, 1)):
        strength += np.square(cv2.Sobel(smooth, cv2.CV_32F, dx, dy)).sum(axis=2)
    levels = np.quantile(strength, np.linspace(0, 1, 101))
    return np.interp(strength, levels, np.linspace(0, 1, 101)).astype(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Hints:
    """Prompts at the size of the view. allowed: the object may be here (the box, or everywhere)."""

    positive: tuple[Point, ...]
    negative: tuple[Point, ...]
    inside: Region
    outside: Region
    allowed: Region

    @staticmethod
    def of(clicks: tuple[Click, ...], box: Box | None, video: Reader, view: View) -> Hints:
        height, width = view.shape
        sy, sx = height / video.height, width / video.width

        def points(positive: bool) -> tuple[Point, ...]:
            return tuple((int(c.x * sx), int(c.y * sy)) for c in clicks if c.positive == positive)

        allowed = np.ones((height, width), bool)
        if box is not None:
            allowed[:] = False
            top, left = min(int(box.top * sy), height - 1), min(int(box.left * sx), width - 1)
            allowed[top : max(top + 1, round(box.bottom * sy)), left : max(left + 1, round(box.right * sx))] = True
        positive, negative = points(True), points(False)
        radius = min(CLICK_RADIUS, max(1, min(height, width) // 40))
        inside, outside = discs(positive, radius, view.shape), discs(negative, radius, view.shape)
        # Of two clicks on opposite sides that are close to each other, each has the pixels that are nearer to it.
        both = inside & outside
        if both.any():
            nearer = _nearer(positive, negative, view.shape)
            inside, outside = inside & (nearer | ~both), outside & (~nearer | ~both)
        return Hints(positive, negative, inside & allowed, outside, allowed)

    def pinned(self, probability: Array) -> Array:
        """The prompts' word over a probability, in place."""
        probability[~self.allowed] = 0
        probability[self.inside] = 1
        probability[self.outside] = 0
        return probability


def discs(points: tuple[Point, ...], radius: int, shape: tuple[int, int]) -> Region:
    canvas = np.zeros(shape, np.uint8)
    for point in points:
        cv2.circle(canvas, point, radius, 1, -1)
    return canvas > 0


def _nearer(these: tuple[Point, ...], those: tuple[Point, ...], shape: tuple[int, int]) -> Region:
    def distance(points: tuple[Point, ...]) -> Array:
        canvas = np.ones(shape, np.uint8)
        for x, y in points:
            canvas[y, x] = 0
        return np.asarray(cv2.distanceTransform(canvas, cv2.DIST_L2, cv2.DIST_MASK_PRECISE), np.float32)

    return np.asarray(distance(these) <= distance(those))
