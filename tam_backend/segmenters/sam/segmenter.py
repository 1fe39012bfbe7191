"""SAM as a segmenter."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import cv2
import numpy as np
import numpy.typing as npt
from segment_anything.modeling import Sam

from tam_backend.devices import DeviceError, out_of_memory, release_memory
from tam_backend.errors import BadInput
from tam_backend.features import FeatureStore
from tam_backend.prompts import Click, FramePrompts, Mask
from tam_backend.segmenters.base import SOFT_THRESHOLD, Refined, Segmentation
from tam_backend.segmenters.sam.embeddings import EmbeddingCache
from tam_backend.segmenters.sam.predictor import LOW_RES_STRIDE, Candidates, Embedding, Floats, Predictor
from tam_backend.video.base import Reader

#: Enough for about 80 answers of three candidates.
ANSWER_BYTES = 64 * 1024 * 1024

#: Radius in pixels of the spot by which a mask gives in to a click that it does not agree with.
SPOT = 2

#: Logits between which the stability of a mask is measured.
STABLE = 1.0

T = TypeVar("T")


class SamSegmenter:
    """Clicks and boxes to masks by Segment Anything.

    A frame is encoded once, whatever is asked about it, also if several threads ask at the same time.

    Prompts are answered one after the other, as they were made: each answer's low-res logits are the mask prompt of the
    next. One click alone is ambiguous, so SAM proposes three masks, from part to whole, and the one that it trusts most
    is taken; a second click that does not agree with that one, but with another of the three, switches to the other.
    From then on SAM gives a single mask. A mask that the clicks correct is the mask prompt of the first of them, which
    then is not ambiguous. Answers are cached, but follow from the prompts alone.

    When the device's memory runs out, what can be computed again is let go of and the frame is tried once more; SAM
    knows no smaller input. DeviceError if that is not enough.
    """

    name = "sam"

    def __init__(
        self,
        sam: Sam,
        amp: bool | None = None,
        embeddings: EmbeddingCache | None = None,
        answer_bytes: int = ANSWER_BYTES,
        make_room: Callable[[], None] = lambda: None,
    ) -> None:
        """amp: mixed precision on CUDA (None: yes); it has no effect on other devices. make_room: called when the
        device is full, to free what others hold there."""
        self._predictor = Predictor(sam, amp=amp is not False)
        #: Its ``misses`` are the frames that were encoded.
        self.embeddings = embeddings if embeddings is not None else EmbeddingCache()
        self._answers = FeatureStore(answer_bytes)
        self._encoding = threading.Lock()
        self._make_room = make_room

    def segment(self, video: Reader, frame: int, prompts: FramePrompts, prior: Mask | None = None) -> Segmentation:
        """See ``Segmenter``. The score is SAM's own guess at the intersection over union with the right mask.

        Raises DeviceError if the device has not enough memory for a frame.
        """
        prompts.validate(video.height, video.width)
        if prompts.mask is not None:
            return Segmentation(prompts.mask, 1.0)
        if not prompts.locates:
            raise BadInput("negative clicks alone do not say where the object is; give a positive click or a box")
        return self._guarded(lambda: self._segment(video, frame, prompts, prior))

    def refine(self, video: Reader, frame: int, points: Sequence[Click], logits: Floats) -> Refined:
        """See ``Refiner``: SAM is asked once, with all points and the logits as its mask prompt.

        The stability is that of its package: the mask's intersection over union between thresholds of +1 and -1 logit.
        """
        return self._guarded(lambda: self._refine(video, frame, points, logits))

    def _refine(self, video: Reader, frame: int, points: Sequence[Click], logits: Floats) -> Refined:
        size = (video.height, video.width)
        answer = self._predictor.decode(
            self._embedding(video, frame),
            self._places(points, size),
            [int(c.positive) for c in points],
            None,
            self._predictor.logits_prompt(logits),
            several=False,
        )
        large = self._predictor.enlarge(answer.low_res[:1], size)[0]
        soft = np.rint(255 / (1 + np.exp(-np.clip(large, -30, 30)))).astype(np.uint8)
        strict, generous = np.count_nonzero(large > STABLE), np.count_nonzero(large > -STABLE)
        score = float(np.clip(answer.iou[0], 0, 1))
        return Refined(soft >= SOFT_THRESHOLD, soft, score, strict / generous if generous else 0.0)

    def _places(self, points: Sequence[Click], size: tuple[int, int]) -> list[tuple[float, float]]:
        """From pixel edges to the package's convention, in which the encoder's image has its pixel centres at whole
        numbers (it adds 0.5 there)."""
        shift = 0.5 / self._predictor.scale(size)
        return [(c.x - shift, c.y - shift) for c in points]

    def _guarded(self, compute: Callable[[], T]) -> T:
        device = self._predictor.device
        for _ in range(2):
            try:
                return compute()
            except (RuntimeError, MemoryError) as e:
                if not out_of_memory(e):
                    raise
            # outside the except clause, so that the error does not keep the failed pass's tensors alive
            self._make_room()
            release_memory(device)
        raise DeviceError(
            f"not enough memory on {device} for SAM to segment a frame. Choose a smaller SAM (TAM_SAM=vit_b), end "
            "other programs that use the device, or set TAM_DEVICE=cpu"
        )

    def _segment(self, video: Reader, frame: int, prompts: FramePrompts, prior: Mask | None) -> Segmentation:
        size = (video.height, video.width)
        answer = self._answer(video, frame, prompts, _Prior.of(prior))
        best = self._choose(answer, prompts.clicks, size)
        logits = self._predictor.enlarge(answer.low_res[best : best + 1], size)[0]
        mask = agree(logits > 0, prompts.clicks)
        return Segmentation(mask, float(np.clip(answer.iou[best], 0, 1)))

    def _embedding(self, video: Reader, frame: int) -> Embedding:
        def encode() -> Embedding:
            with self._encoding:  # the global attention of two frames at once would take twice the memory
                return self._predictor.encode(video[frame])

        return self.embeddings.get(video.key, frame, encode)

    def _answer(self, video: Reader, frame: int, prompts: FramePrompts, prior: _Prior) -> Candidates:
        size = (video.height, video.width)

        def decode() -> Candidates:
            before = replace(prompts, clicks=prompts.clicks[:-1])
            low_res = None
            if prompts.clicks and before.locates:
                earlier = self._answer(video, frame, before, prior)
                low_res = earlier.low_res[self._choose(earlier, prompts.clicks, size)]
            elif prior.mask is not None:
                low_res = self._predictor.mask_prompt(prior.mask)
            points = self._places(prompts.clicks, size)
            shift = 0.5 / self._predictor.scale(size)
            box = prompts.box
            return self._predictor.decode(
                self._embedding(video, frame),
                points or None,
                [int(c.positive) for c in prompts.clicks] or None,
                None if box is None else [v - shift for v in (box.left, box.top, box.right, box.bottom)],
                low_res,
                several=box is None and low_res is None and len(prompts.clicks) == 1,
            )

        return self._answers.get((video.key, frame, prompts.digest(), prior.digest), decode)

    def _choose(self, answer: Candidates, clicks: Sequence[Click], frame: tuple[int, int]) -> int:
        """The candidate that agrees with most clicks, and of those the one that SAM trusts most."""
        scale = self._predictor.scale(frame) / LOW_RES_STRIDE
        at = np.array([(c.x * scale - 0.5, c.y * scale - 0.5) for c in clicks], np.float32).reshape(-1, 2)
        positive = np.array([c.positive for c in clicks], bool)
        agreeing = [int(((_sample(logits, at) > 0) == positive).sum()) for logits in answer.low_res]
        return max(range(len(agreeing)), key=lambda i: (agreeing[i], float(answer.iou[i])))


@dataclass(frozen=True, slots=True, eq=False)
class _Prior:
    """The mask that clicks correct, with a name for its content."""

    mask: Mask | None
    digest: str

    @classmethod
    def of(cls, mask: Mask | None) -> _Prior:
        return cls(mask, "" if mask is None else FramePrompts(mask=mask).digest())


def _sample(logits: Floats, at: npt.NDArray[np.float32]) -> Floats:
    """Bilinear values at Nx2 places (x, y)."""
    if not len(at):
        return np.zeros(0, np.float32)
    values = cv2.remap(logits, at[:, 0], at[:, 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(values, np.float32)[:, 0]


def agree(mask: Mask, clicks: Sequence[Click]) -> Mask:
    """The mask, with a small spot changed at each click it contradicts. Of clicks on one pixel, the last counts."""
    result = mask.astype(np.uint8)
    for click in clicks:
        x, y = int(click.x), int(click.y)
        if bool(mask[y, x]) != click.positive:
            cv2.circle(result, (x, y), SPOT, int(click.positive), cv2.FILLED)
    for click in clicks:  # spots may have covered other clicks
        result[int(click.y), int(click.x)] = click.positive
    return result.astype(bool)
