"""The finishing pass: all confirmed frames are memory, and a result counts only where it is better."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from tam_backend.engines import Engine
from tam_backend.prompts import Mask
from tam_backend.propagators.base import Propagated
from tam_backend.tracking.runs import FINISH_MEMORY
from tam_backend.tracking.tracker import Anchor, TrackedFrame, Tracker
from tests.tracking.fakes import DictStore, DiscSegmenter, by_frame, clicked, content, disc, drawn, memory_video

LENGTH = 40
VIDEO = memory_video(LENGTH)
ANCHORS = {0: clicked(), 12: drawn(disc(10, 10, 4)), 30: drawn(disc(20, 12, 6))}


class _Remembering:
    """What it computes shows how many masks it remembers. More of them help on odd frames and do harm on even ones."""

    def __init__(self, owner: RememberingPropagator, memory: int) -> None:
        self._owner, self._memory = owner, memory

    def step(self, frame: int) -> Propagated:
        self._owner.steps.append(frame)
        quality = 0.5 + 0.01 * self._memory * (1 if frame % 2 else -1)
        return Propagated(np.full((VIDEO.height, VIDEO.width), 128 + self._memory, np.uint8), quality)

    def state(self) -> Mapping[str, Any]:
        return {"memory": np.array(self._memory)}


class RememberingPropagator:
    name = "remembering"
    state_every = 4

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.memories: list[tuple[int, ...]] = []

    def begin(self, video: Any, anchors: Mapping[int, Mask], start: int, state: Any = None) -> _Remembering:
        self.memories.append(tuple(anchors))
        return _Remembering(self, len(anchors))


class Bench:
    def __init__(self) -> None:
        self.propagator = RememberingPropagator()
        self.store = DictStore()
        engine = Engine("fake", "1", DiscSegmenter(), self.propagator)
        self.tracker = Tracker(engine, VIDEO, range(LENGTH), self.store)

    def track(self, anchors: Mapping[int, Anchor] = ANCHORS, **options: bool) -> dict[int, tuple[Any, ...]]:
        return by_frame([s for s in self.tracker.steps(anchors, 0, **options) if isinstance(s, TrackedFrame)])

    def stored(self, anchors: Mapping[int, Anchor] = ANCHORS) -> dict[int, tuple[Any, ...]]:
        found = {f: self.tracker.stored(anchors, f) for f in range(LENGTH)}
        return {f: content(t) for f, t in found.items() if t is not None}


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_all_anchors_are_memory_and_the_better_result_counts(bench):
    before = bench.track()
    bench.propagator.memories.clear()
    found = bench.track(finish=True)
    assert set(bench.propagator.memories) == {(0, 12, 30)}
    assert found.keys() == set(range(LENGTH)) - ANCHORS.keys()
    after = bench.stored()
    changed = {f for f in after if after[f] != before[f]}
    assert changed == {f for f in range(LENGTH) if f % 2} - ANCHORS.keys()
    assert {f: after[f] for f in found} == found
    assert all(after[f][2] > before[f][2] for f in changed)
    assert bench.track() == after, "tracking again gives what was finished, too"


def test_nothing_is_computed_twice(bench):
    bench.track()
    bench.track(finish=True)
    bench.propagator.steps.clear()
    bench.track(finish=True)
    assert not bench.propagator.steps


def test_a_pass_that_was_stopped_goes_on(bench):
    whole = Bench()
    whole.track()
    expected = whole.track(finish=True)
    bench.track()
    steps = bench.tracker.steps(ANCHORS, 0, finish=True)
    for _ in range(9):
        next(steps)
    steps.close()
    assert bench.track(finish=True) == expected
    assert len(bench.propagator.steps) <= len(whole.propagator.steps) + bench.propagator.state_every
    assert bench.stored() == whole.stored()


def test_a_later_correction_leaves_what_was_finished_elsewhere(bench):
    bench.track()
    bench.track(finish=True)
    before = bench.stored()
    corrected = {**ANCHORS, 20: drawn(disc(5, 5, 3))}
    bench.track(corrected)
    after = bench.stored(corrected)
    changed = {f for f in after if after[f] != before[f]}
    assert {f for f in range(13, 30) if f % 2} <= changed <= set(range(13, 30))  # plain results count again there


@pytest.mark.parametrize("anchors", [{3: clicked()}, {0: clicked(), LENGTH - 1: clicked()}])
def test_where_there_is_no_more_to_know_nothing_is_computed(bench, anchors):
    bench.track(anchors)
    bench.propagator.steps.clear()
    assert bench.track(anchors, finish=True) == {}
    assert not bench.propagator.steps


def test_memory_is_bounded_by_the_nearest(bench):
    anchors = {f: clicked(5 + f / 4) for f in range(0, LENGTH, 2)}
    assert len(anchors) > FINISH_MEMORY
    bench.track(anchors)
    bench.propagator.memories.clear()
    bench.track(anchors, finish=True)
    assert {len(m) for m in bench.propagator.memories} == {FINISH_MEMORY}
    assert tuple(range(0, 2 * FINISH_MEMORY, 2)) in bench.propagator.memories
