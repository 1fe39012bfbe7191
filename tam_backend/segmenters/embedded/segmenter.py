"""The segmenter of the embedded engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from tam_backend.errors import BadInput
from tam_backend.features import FrameFeatures
from tam_backend.features.filters import guided_filter, unit, window
from tam_backend.prompts import Click, FramePrompts, Mask
from tam_backend.segmenters.base import Refined, Segmentation
from tam_backend.segmenters.embedded.candidates import from_box, from_click
from tam_backend.segmenters.embedded.edits import Answer, edit, refine
from tam_backend.segmenters.embedded.refinement import refine_around
from tam_backend.segmenters.embedded.view import Array, Cues, Hints, Point, View
from tam_backend.video.base import Reader

#: Guided filter at the working size: radius in pixels, and variance of flat image parts.
FINE_RADIUS, FLAT = 5, 1e-4
#: What n clicks leave of the error of one, on average: n to the power of minus this.
CLICK_GAIN = 0.4
#: So many clicks are gone back at once: far fewer than Python's limit of nested calls allows.
DEPTH = 64
#: IoU expected of a mask that a person corrects.
PRIOR_EXPECTED = 0.8


class EmbeddedSegmenter:
    """Motion relative to the camera says roughly where the object is, colour and edges where it ends.

    The first positive click, or the box, gives candidates of several scales, of which the best is taken. Then the
    clicks are gone through in their order, and each one edits the mask where it is. Answers are cached by what was
    given up to then, so a further click costs one edit; they follow from the prompts alone. With a prior the clicks
    edit that; if they all agree with it, its outline is drawn anew, near to where it was.

    A mask is found at half the working size and its edge is drawn at the working size. The score is the IoU with the
    right mask that is to be expected: of a first mask as its merit says (see ``merits``), and closer to 1 with each
    click. Where nothing moves the merit is lower, as the masks are worse.
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
        start = _Prior.of(None if prompts.box is not None else prior)
        if prompts.box is None and start.mask is None:
            # the first positive click says where the object is; the rest stays in its order
            clicks = prompts.clicks
            first = next(i for i, c in enumerate(clicks) if c.positive)
            prompts = replace(prompts, clicks=(clicks[first], *clicks[:first], *clicks[first + 1 :]))
        for count in range(DEPTH, len(prompts.clicks), DEPTH):  # an answer asks for the one before it, and that one...
            self._answer(video, frame, replace(prompts, clicks=prompts.clicks[:count]), start)
        answer = self._answer(video, frame, prompts, start)
        if start.mask is not None and all(start.mask[int(c.y), int(c.x)] == c.positive for c in prompts.clicks):
            answer = self._refined(video, frame, prompts, start)
        soft = self._fine(video, frame, answer.probability)
        geometry = self.features.geometry(video)
        mask = geometry.to_full(np.rint(255 * soft).astype(np.uint8)) >= 128
        left = (1 - answer.expected) * max(1, len(prompts.clicks)) ** -CLICK_GAIN
        return Segmentation(_respect(mask, prompts.clicks), float(1 - left) if mask.any() else 0.0)

    def refine(self, video: Reader, frame: int, points: Sequence[Click], logits: Array) -> Refined:
        return refine_around(self.features, video, frame, points, logits)

    def _answer(self, video: Reader, frame: int, prompts: FramePrompts, prior: _Prior) -> Answer:
        def make() -> Answer:
            view = View.of(self.features, video, frame, self._cues)
            hints = Hints.of(prompts.clicks, prompts.box, video, view)
            if not prompts.clicks and prior.mask is not None:
                return Answer(_reduced(prior.mask, view), PRIOR_EXPECTED)
            if not prompts.clicks or (len(prompts.clicks) == 1 and prompts.box is None and prior.mask is None):
                best, *others = (from_box if prompts.box is not None else from_click)(view, hints, self._cues)
                return Answer(
                    np.asarray(best.probability, np.float32), best.expected, tuple(c.halved() for c in others)
                )
            *earlier, click = prompts.clicks
            before = self._answer(video, frame, replace(prompts, clicks=tuple(earlier)), prior)
            sy, sx = view.shape[0] / video.height, view.shape[1] / video.width
            return edit(view, hints, before, (int(click.x * sx), int(click.y * sy)), click.positive, self._cues)

        key = (video.key, "answer", frame, prompts.digest(), prior.digest, self._cues)
        return self.features.clicked.get(key, make)

    def _refined(self, video: Reader, frame: int, prompts: FramePrompts, prior: _Prior) -> Answer:
        assert prior.mask is not None
        view = View.of(self.features, video, frame, self._cues)
        probability = refine(view, _reduced(prior.mask, view), self._cues)
        return Answer(Hints.of(prompts.clicks, None, video, view).pinned(probability.copy()), PRIOR_EXPECTED)

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


@dataclass(frozen=True, slots=True, eq=False)
class _Prior:
    """The mask that clicks correct, with a name for its content."""

    mask: Mask | None
    digest: str

    @classmethod
    def of(cls, mask: Mask | None) -> _Prior:
        given = mask is not None and bool(mask.any())
        return cls(mask, FramePrompts(mask=mask).digest()) if given else cls(None, "")


def _reduced(mask: Mask, view: View) -> Array:
    height, width = view.shape
    return np.asarray(cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA), np.float32)


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
