"""Figures about one task: how good its masks are, where they jump, and how far people agree. Masks in, numbers out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tam_backend.evaluation.metrics import boundary_measure, region_similarity
from tam_backend.prompts import Mask
from tam_backend.quality import Review, review

#: A mask below this share of the median area of its track is tiny, and so is one of fewer pixels than this.
TINY_SHARE, TINY_PIXELS = 0.05, 16
#: From one frame to the next the area of an object changes by less than this factor, and its centre moves by less than
#: this many times the root of its area. Beyond, it jumps.
AREA_FACTOR, MOVE_FACTOR = 2.0, 1.0

Masks = Mapping[str, Mask]


@dataclass(frozen=True, slots=True)
class FrameMask:
    """What is kept of a mask. quality: estimated IoU, None if unknown. decided: by a person, on this frame. centre:
    column and row."""

    area: int
    centre: tuple[float, float]
    quality: float | None
    decided: bool


@dataclass(frozen=True, slots=True)
class Jump:
    """Between a frame and the one before. text: what jumped."""

    frame: int
    text: str


@dataclass(slots=True)
class TrackFigures:
    """One object in one task. frames: of the original video, in order. shown: frame -> mask, where there is one.

    clicks: points and boxes that the annotation keeps. changed: frame -> IoU of the person's mask with the one that was
    predicted; changed_blind: masks by hand that no prediction is known for.
    """

    label: str
    frames: Sequence[int]
    shown: dict[int, FrameMask] = field(default_factory=dict)
    clicks: int = 0
    changed: dict[int, float] = field(default_factory=dict)
    changed_blind: int = 0

    @property
    def qualities(self) -> dict[int, float]:
        """Frame -> quality of the masks for which it is known; 1 where a person decided."""
        return {f: 1.0 if m.decided else m.quality for f, m in self.shown.items() if m.decided or m.quality is not None}  # type: ignore[misc]

    @property
    def decided(self) -> set[int]:
        return {f for f, m in self.shown.items() if m.decided}

    @property
    def by_hand(self) -> int:
        return len(self.changed) + self.changed_blind

    def review(self) -> Review:
        return review(self.qualities, self.decided)

    def gaps(self) -> list[int]:
        """Frames without a mask between frames that have one: the object was hidden, or its mask was lost."""
        if not self.shown:
            return []
        first, last = min(self.shown), max(self.shown)
        return [f for f in self.frames if first < f < last and f not in self.shown]

    def tiny(self) -> list[int]:
        if not self.shown:
            return []
        median = float(np.median([m.area for m in self.shown.values()]))
        least = max(TINY_PIXELS, TINY_SHARE * median)
        return [f for f, m in self.shown.items() if m.area < least]

    def jumps(self) -> list[Jump]:
        """Changes from one frame to the next that a moving object does not make."""
        found = []
        for before, after in zip(self.frames, self.frames[1:], strict=False):
            a, b = self.shown.get(before), self.shown.get(after)
            if a is None or b is None:
                continue
            ratio = b.area / a.area
            moved = float(np.hypot(b.centre[0] - a.centre[0], b.centre[1] - a.centre[1]))
            texts = []
            if not 1 / AREA_FACTOR <= ratio <= AREA_FACTOR:
                texts.append(f"area x {ratio:.2g}")
            if moved > MOVE_FACTOR * np.sqrt(max(a.area, b.area)):
                texts.append(f"moved {moved:.0f} px")
            if texts:
                found.append(Jump(after, ", ".join(texts)))
        return found


@dataclass(frozen=True, slots=True)
class Disagreement:
    """Two annotations of a task. score: mean J&F over all objects and frames that either has a mask on, 1 where both
    agree everywhere. worst: the frame and label on which they differ most, and their J&F there."""

    first: str
    second: str
    score: float
    worst: tuple[int, str, float] | None


def mask_figures(mask: Mask, quality: float | None, decided: bool) -> FrameMask:
    """mask: HxW bool, not empty."""
    rows, columns = np.nonzero(mask)
    return FrameMask(len(rows), (float(columns.mean()), float(rows.mean())), quality, decided)


def disagreement(
    first: str,
    second: str,
    frames: Sequence[int],
    a: Callable[[int], Masks],
    b: Callable[[int], Masks],
    labels: Collection[str],
) -> Disagreement:
    """Compare two annotations. a, b: index of a frame -> label -> HxW bool, without empty ones."""
    scores: list[float] = []
    worst: tuple[int, str, float] | None = None
    for index, frame in enumerate(frames):
        ours, theirs = a(index), b(index)
        for label in labels:
            mask, other = ours.get(label), theirs.get(label)
            if mask is None and other is None:
                continue
            score = 0.0 if mask is None or other is None else agreement(mask, other)
            scores.append(score)
            if worst is None or score < worst[2]:
                worst = frame, label, score
    return Disagreement(first, second, float(np.mean(scores)) if scores else 1.0, worst)


def agreement(mask: Mask, other: Mask) -> float:
    """J&F of two masks, HxW bool."""
    return (region_similarity(mask, other) + boundary_measure(mask, other)) / 2
