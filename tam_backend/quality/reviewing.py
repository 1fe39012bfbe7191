"""What the figures of all frames say about an object's masks as a whole."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from tam_backend.quality.calibration import needs_a_look
from tam_backend.quality.suggestion import suggest


@dataclass(frozen=True, slots=True)
class Review:
    """frames: that have a mask or are known to have none, confirmed ones included. look: how many of them need a look.
    fix_next: the frame whose correction is expected to help most; None if none needs a look. gain: of correcting it,
    see ``Suggestion``. mean: estimated IoU over the frames, 0 if there are none.
    """

    frames: int
    look: int
    fix_next: int | None
    gain: float
    mean: float

    @property
    def share(self) -> float:
        """Share of the frames that need a look, in [0, 1]."""
        return self.look / self.frames if self.frames else 0.0


def mean_quality(reviews: Iterable[Review]) -> float:
    """Estimated IoU over all frames of some objects, in [0, 1]; 0 if there are none."""
    some = [(r.mean, r.frames) for r in reviews]
    frames = sum(count for _, count in some)
    return sum(mean * count for mean, count in some) / frames if frames else 0.0


def review(quality: Mapping[int, float], confirmed: Collection[int]) -> Review:
    """quality: frame -> estimate in [0, 1], of the frames that are finished. confirmed: frames that a person decided,
    which count as right; they may lie elsewhere."""
    decided = set(confirmed)
    values = {f: 1.0 if f in decided else q for f, q in quality.items()}
    look = sum(needs_a_look(q) for q in values.values())
    best = suggest(values, decided) if look else None
    mean = sum(values.values()) / len(values) if values else 0.0
    return Review(len(values), look, best.frame if best else None, best.gain if best else 0.0, mean)
