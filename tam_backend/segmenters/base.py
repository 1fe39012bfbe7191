"""Step 1: prompts on one frame become a mask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from tam_backend.prompts import FramePrompts, Mask
from tam_backend.video.base import Reader


@dataclass(frozen=True, slots=True, eq=False)
class Segmentation:
    """mask: HxW bool. score: in [0, 1], how far the segmenter trusts it."""

    mask: Mask
    score: float


class Segmenter(Protocol):
    name: str

    def segment(self, video: Reader, frame: int, prompts: FramePrompts, prior: Mask | None = None) -> Segmentation:
        """Segment the object on ``video[frame]`` from clicks and box (``prompts.locates`` is true).

        prior: HxW bool, the mask that the clicks correct. Where all clicks agree with it, its outline is to be drawn
        anew. It is a hint, and the result need not resemble it.

        A mask in the prompts is returned as it is. (``refine`` is the business of ``segment_with_prior``.)

        The video comes along, not just the image, because a segmenter may look at neighbouring frames (motion).
        Every positive click is inside the mask, every negative one outside. Raises BadInput when the prompts do not
        fit on the frame. Deterministic: the same prompts on the same frame give the same mask.
        """
