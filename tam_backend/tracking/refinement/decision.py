"""What was decided about the mask of a frame, and why. Plain data."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace


@dataclass(frozen=True, slots=True)
class Point:
    """A projected probe (see ``Projected``). dropped: why it is not used, in words; empty: it is."""

    x: float
    y: float
    positive: bool
    concentration: float
    source: int
    dropped: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """One frame that was looked at. direction: +1, reached from an earlier frame, or -1.

    quality: of the propagated mask. refused: why the segmenter's mask was not taken; empty: it was. score, stability:
    the segmenter's. agreement: intersection over union of its mask with the propagated one. growth: its area over the
    propagated one's. The last four are None where the segmenter was not asked. result: the quality afterwards.
    """

    frame: int
    direction: int
    quality: float
    result: float
    points: tuple[Point, ...]
    refused: tuple[str, ...] = ()
    score: float | None = None
    stability: float | None = None
    agreement: float | None = None
    growth: float | None = None

    @property
    def accepted(self) -> bool:
        return not self.refused

    @property
    def kept(self) -> tuple[Point, ...]:
        return tuple(p for p in self.points if not p.dropped)

    def refuse(self, *reasons: str) -> Decision:
        return replace(self, refused=(*self.refused, *reasons))

    def pack(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @staticmethod
    def unpack(blob: bytes) -> Decision:
        facts = json.loads(blob)
        points = tuple(Point(**p) for p in facts.pop("points"))
        return Decision(points=points, refused=tuple(facts.pop("refused")), **facts)
