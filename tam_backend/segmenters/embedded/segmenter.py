"""The segmenter of the embedded engine."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from tam_backend.errors import BadInput
from tam_backend.features import FrameFeatures
from tam_backend.features.filters import guided_filter, unit, window
from tam_backend.prompts import Click, FramePrompts, Mask
from tam_backend.segmenters.base import Segmentation
from tam_backend.segmenters.embedded.candidates import Candidate, from_box, from_click
from tam_backend.segmenters.embedded.edits import edit
from tam_backend.segmenters.embedded.view import Array, Cues, Hints, Point, View
from tam_backend.video.base import Reader

#: Guided filter at the working size: radius in pixels, and variance of flat image parts.
FINE_RADIUS, FLAT = 5, 1e-4


@dataclass(frozen=True, slots=True, eq=False)
class _Answer:
    """What some prompts came to. probability: hxw at the size of the view. others: candidates not taken."""

    probability: Array
    others: tuple[Candidate, ...]

    @property
    def nbytes(self) -> int:
        return self.probability.nbytes + sum(c.probability.nbytes for c in self.others)


class EmbeddedSegmenter:
    """Motion relative to the camera says roughly where the object is, colour and edges where it ends.

    The first positive click, or the box, gives candidates of several scales, of which the best is taken. Then the
    clicks are gone through in their order, and each one edits the mask where it is. Answers are cached by what was
    given up to then, so a further click costs one edit; they follow from the prompts alone.

    A mask is found at half the working size and its edge is drawn at the working size.
    """

    name = "embedded"

    def __init__(self, features: FrameFeatures | None = None, cues: Cues | None = None) -> None:
        self.features = features if features is not None else FrameFeatures()
        self._cues = cues if cues is not None else Cues()

    def segment(self, video: Reader, frame: int, prompts: FramePrompts, prior: Mask | None = None) -> Segmentation:
        prompts.validate(video.height, video.width)
        if not prompts.locates:
            raise BadInput("nothing says where the object is: give at least one positive click, a box or a mask")
        if prompts.mask is not None:
            return Segmentation(prompts.mask, 1.0)
        _refuse_contradictions(prompts.clicks)
        if prompts.box is None:  # the first positive click says where the object is; the rest stays in its order
            first = next(i for i, c in enumerate(prompts.clicks) if c.positive)
            clicks = prompts.clicks
            prompts = replace(prompts, clicks=(clicks[first], *clicks[:first], *clicks[first + 1 :]))
        answer = self._answer(video, frame, prompts)
        soft = self._fine(video, frame, answer.probability)
        geometry = self.features.geometry(video)
        mask = geometry.to_full(np.rint(255 * soft).astype(np.uint8)) >= 128
        return Segmentation(_respect(mask, prompts.clicks), _score(answer.probability))

    def _answer(self, video: Reader, frame: int, prompts: FramePrompts) -> _Answer:
        def make() -> _Answer:
            view = View.of(self.features, video, frame, self._cues)
            hints = Hints.of(prompts.clicks, prompts.box, video, view)
            if prompts.box is None and len(prompts.clicks) == 1:
                best, *others = from_click(view, hints, self._cues)
                return _Answer(best.probability, tuple(others))
            if not prompts.clicks:
                best, *others = from_box(view, hints, self._cues)
                return _Answer(best.probability, tuple(others))
            *earlier, click = prompts.clicks
            before = self._answer(video, frame, replace(prompts, clicks=tuple(earlier)))
            sy, sx = view.shape[0] / video.height, view.shape[1] / video.width
            point: Point = (int(click.x * sx), int(click.y * sy))
            return _Answer(edit(view, hints, before.probability, point, click.positive, self._cues), before.others)

        return self.features.store.get((video.key, "answer", frame, prompts.digest(), self._cues), make)

    def _fine(self, video: Reader, frame: int, probability: Array) -> Array:
        """Enlarge to the working size, following the edges of the image there."""
        lab = self.features.lab(video, frame)
        height, width = lab.shape[:2]
        large = np.asarray(cv2.resize(probability, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
        if large.shape == probability.shape or not self._cues.edges or not np.any(large > 0.5):
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
