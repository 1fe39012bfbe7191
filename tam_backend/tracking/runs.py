"""Which frames are reached from which anchors, and how what arrives on a frame becomes its result."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from tam_backend.prompts import Mask
from tam_backend.propagators.base import Propagated, Propagation
from tam_backend.tracking.fusion import fuse, share_of_later

#: As many masks at most are memory of a run of the finishing pass: those nearest to its span.
FINISH_MEMORY = 16


@dataclass(slots=True, eq=False)
class Run:
    """The frames on which one anchor has a say, in one direction, in the order they are computed.

    anchors: its memory. at: the frame that ``propagation`` has reached. saved: the frame of the state in the store
    (None: there is none). given: quality of the mask that the anchor has.
    """

    origin: int
    frames: range
    anchors: Mapping[int, Mask]
    key: str
    given: float = 1.0
    position: int = 0
    propagation: Propagation | None = None
    saved: int | None = None
    at: int = field(init=False)

    def __post_init__(self) -> None:
        self.at = self.origin

    @property
    def done(self) -> bool:
        return self.position >= len(self.frames)

    @property
    def next_frame(self) -> int:
        return self.frames[self.position]

    def steps_to(self, frame: int) -> int:
        """How many steps are left until the run has passed ``frame``; 0 if it has."""
        return max(0, (frame - self.origin) * self.frames.step - self.position)


@dataclass(slots=True, eq=False)
class Due:
    """A frame that is to be finished. bracket: the anchors around it. runs: those that it needs, the one from the
    earlier anchor first. sides: what they made of it so far, by their origins (packed: there may be hundreds).
    reused: all of that was in the store."""

    bracket: tuple[int, ...]
    runs: list[Run] = field(default_factory=list)
    sides: dict[int, bytes] = field(default_factory=dict)
    reused: bool = True


def plan_runs(
    frames: range,
    masks: Mapping[int, Mask],
    given: Mapping[int, float],
    key: Callable[[int, tuple[int, ...]], str],
    *,
    finish: bool = False,
) -> dict[int, Due]:
    """The frames of the range that are no anchors, with the runs that they need.

    masks, given: of each anchor, its mask and the quality of that. key: names a run by its origin and its memory.
    finish: the memory of a run is not the two anchors around it but as many as there are, up to ``FINISH_MEMORY``;
    frames for which that is the same are left out.

    A run goes no farther than it is needed. One from an anchor beyond the range begins there all the same.
    """
    plan: dict[int, Due] = {}
    for before, after in itertools.pairwise([None, *sorted(masks), None]):
        bracket = tuple(f for f in (before, after) if f is not None)
        memory = _nearest(masks, bracket) if finish else bracket
        if finish and memory == bracket:
            continue
        start = frames.start if before is None else max(before + 1, frames.start)
        stop = frames.stop if after is None else min(after, frames.stop)
        origins = {f: origins_of(bracket, f) for f in range(start, stop)}
        for origin in bracket:
            reached = [f for f in origins if origin in origins[f]]
            if not reached:
                continue
            ahead = origin == before
            way = range(origin + 1, reached[-1] + 1) if ahead else range(origin - 1, reached[0] - 1, -1)
            run = Run(origin, way, {f: masks[f] for f in memory}, key(origin, memory), given[origin])
            for frame in reached:
                plan.setdefault(frame, Due(bracket)).runs.append(run)
    return plan


def bracket_of(anchors: Iterable[int], frame: int) -> tuple[int, ...]:
    """The anchors next to a frame that is not one: the last before it and the first after it, where there are any."""
    before = [f for f in anchors if f < frame]
    after = [f for f in anchors if f > frame]
    return (*([max(before)] if before else []), *([min(after)] if after else []))


def origins_of(bracket: tuple[int, ...], frame: int) -> tuple[int, ...]:
    """Those of the anchors around a frame from which it is reached by a run."""
    if len(bracket) < 2:
        return bracket
    share = share_of_later(frame, *bracket)
    return bracket if 0 < share < 1 else bracket[round(share) :][:1]


def joined(sides: list[Propagated], frame: int, bracket: tuple[int, ...]) -> Propagated:
    """The result for a frame from what the runs of ``origins_of`` made of it, in that order."""
    if len(sides) == 1:
        return sides[0]
    return fuse(sides[0], sides[1], share_of_later(frame, *bracket))


def _nearest(anchors: Iterable[int], bracket: tuple[int, ...]) -> tuple[int, ...]:
    """The anchors of a bracket and those nearest to it, in order."""
    ranked = sorted(anchors, key=lambda f: (min(abs(f - b) for b in bracket), f))
    return tuple(sorted(ranked[:FINISH_MEMORY]))
