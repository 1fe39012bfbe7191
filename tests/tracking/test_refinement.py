"""Step 3 around a propagator whose every result can be worked out by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tam_backend.engines import Engine
from tam_backend.prompts import Click, FramePrompts, Mask
from tam_backend.propagators.base import Propagated
from tam_backend.propagators.probes import Projected, Review, ReviewedPropagator, spread
from tam_backend.refine_options import RefineOptions
from tam_backend.segmenters.base import Refined
from tam_backend.tracking.refinement import Decision, Point
from tam_backend.tracking.refinement.evidence import CLAIM, choose, claim, judge, too_few
from tam_backend.tracking.refinement.propagator import REST
from tam_backend.tracking.refinement.recipes import by_clicks, by_probes, log_odds
from tam_backend.tracking.tracker import Tracker
from tests.tracking.fakes import (
    HEIGHT,
    WIDTH,
    DictStore,
    DiscSegmenter,
    MemoryReader,
    content,
    disc,
    drawn,
    memory_video,
)

CENTRE = (14.5, 12.5)
TRUE = disc(*CENTRE, 7)
#: What is propagated: the true mask with a corner missing.
COARSE = TRUE & ~disc(18, 16, 4)
#: A probe in that corner: no prompt, as the propagated mask is not there, but the reason to believe one that is.
WITNESS = Projected(18.5, 16.5, True, 0.9, 0)


def probes(shift: float = 0.0) -> list[Projected]:
    """Four points on the object and four off it, moved to the right, and the witness."""
    on = [(CENTRE[0] + dx + shift, CENTRE[1] + dy) for dx, dy in ((0, 0), (-4, 0), (0, -4), (-3, 3))]
    off = [(3.5 + shift, 3.5), (3.5 + shift, 20.5), (26.5 + shift, 3.5), (26.5 + shift, 20.5)]
    used = [Projected(x, y, True, 0.9, 0) for x, y in on] + [Projected(x, y, False, 0.9, 0) for x, y in off]
    return [*used, WITNESS]


class _Coarse:
    """Every mask is what the last one in memory was; ``weak`` frames come out poor, and with a corner missing."""

    def __init__(self, weak: Mapping[int, float], soft: np.ndarray) -> None:
        self._weak, self._soft = weak, soft

    def step(self, frame: int, review: Review | None = None) -> Propagated:
        quality = self._weak.get(frame, 0.9)
        seen = Propagated(self._soft if quality >= 0.9 else np.where(COARSE, self._soft, 10).astype(np.uint8), quality)
        better = review(seen, probes) if review is not None else None
        result = better or seen
        self._soft = result.soft
        return result

    def state(self) -> Mapping[str, Any]:
        return {"soft": self._soft}

    def cut(self) -> None:
        raise AssertionError("nobody looks for cuts here")


class CoarsePropagator:
    name, state_every, reviewable = "coarse", 2, True

    def __init__(self, weak: Mapping[int, float]) -> None:
        self.weak = weak

    def begin(
        self, video: Any, anchors: Mapping[int, Mask], start: int, state: Mapping[str, Any] | None = None
    ) -> _Coarse:
        return _Coarse(self.weak, np.array(state["soft"]) if state else anchors[start] * np.uint8(255))


class RefiningDisc(DiscSegmenter):
    """Answers with ``mask``."""

    def __init__(self, mask: Mask, score: float = 0.9, stability: float = 0.95) -> None:
        super().__init__()
        self.mask, self.score, self.stability = mask, score, stability
        self.refined: list[tuple[int, tuple[Click, ...], np.ndarray]] = []

    def refine(self, video: Any, frame: int, points: Sequence[Click], logits: np.ndarray) -> Refined:
        self.refined.append((frame, tuple(points), logits))
        return Refined(self.mask, self.mask * np.uint8(250), self.score, self.stability)


def engine(segmenter: DiscSegmenter, weak: Mapping[int, float], options: RefineOptions | None) -> Engine:
    version = "1" if options is None else f"1-{options.tag}"
    return Engine("coarse", version, segmenter, CoarsePropagator(weak), refine=options)


ANCHORS = {0: drawn(TRUE)}


def track(made: Engine, video: MemoryReader, store: DictStore, stop: int | None = None) -> dict[int, Any]:
    with Tracker(made, video, range(len(video)), store) as tracker:
        frames: dict[int, Any] = {}
        steps = tracker.track(ANCHORS, 0)
        for tracked in steps:
            frames[tracked.frame] = content(tracked)
            if tracked.frame == stop:
                break
        steps.close()
        return frames


def decisions(made: Engine, video: MemoryReader, store: DictStore) -> dict[int, Decision]:
    with Tracker(made, video, range(len(video)), store) as tracker:
        return {f: d for f in range(len(video)) for d in tracker.decisions(ANCHORS, f)}


def test_an_accepted_mask_replaces_the_frames_and_enters_memory_at_once() -> None:
    video, store = memory_video(6), DictStore()
    segmenter = RefiningDisc(TRUE)
    made = engine(segmenter, {3: 0.5}, RefineOptions())
    frames = track(made, video, store)
    plain = track(engine(segmenter, {3: 0.5}, None), video, DictStore())
    assert [frames[f] == plain[f] for f in range(6)] == [True, True, True, False, False, False]
    for frame in (3, 4, 5):
        soft = np.frombuffer(frames[frame][1], np.uint8).reshape(HEIGHT, WIDTH)
        assert np.array_equal(soft >= 128, TRUE)
        assert soft[TRUE & ~COARSE].max() == CLAIM  # what the propagated mask did not have is claimed weakly
    assert frames[3][2] == pytest.approx(0.7)  # between 0.5 and the segmenter's 0.9
    ((frame, points, logits),) = segmenter.refined
    assert frame == 3
    assert {(p.x, p.y, p.positive) for p in points} == {(p.x, p.y, p.positive) for p in probes()[:-1]}
    assert logits.min() < -2 < 2 < logits.max()  # log odds, not probabilities
    decided = decisions(made, video, store)
    assert list(decided) == [3]
    assert decided[3].accepted
    assert (decided[3].quality, decided[3].result) == (0.5, pytest.approx(0.7))


@pytest.mark.parametrize(
    ("segmenter", "reason"),
    [
        (RefiningDisc(TRUE, score=0.3), "score 0.30 is below"),
        (RefiningDisc(TRUE, stability=0.5), "stability 0.50 is below"),
        (RefiningDisc(COARSE), "nearly the propagated mask"),
        (RefiningDisc(disc(*CENTRE, 11)), "area is"),
        (RefiningDisc(disc(22.5, 12.5, 7)), "agrees with the propagated mask by"),
        (RefiningDisc(TRUE & ~disc(10.5, 12.5, 2)), "1 of 9 concentrated probes contradict it"),
        (RefiningDisc(TRUE | disc(26.5, 20.5, 2)), "1 of 9 concentrated probes contradict it"),
    ],
)
def test_a_rejected_mask_changes_nothing_and_says_why(segmenter: RefiningDisc, reason: str) -> None:
    video, store = memory_video(6), DictStore()
    made = engine(segmenter, {3: 0.5}, RefineOptions())
    frames = track(made, video, store)
    assert frames == track(engine(segmenter, {3: 0.5}, None), video, DictStore())
    decided = decisions(made, video, store)[3]
    assert not decided.accepted
    assert any(reason in text for text in decided.refused), decided.refused


def test_probes_that_the_segmenter_does_not_see_count_as_well() -> None:
    """A probe that contradicts the propagated mask is no prompt, but speaks for or against the new mask."""
    assert TRUE[16, 18]
    assert not COARSE[16, 18]
    points = choose(probes(), COARSE * np.uint8(255))
    assert points[-1].dropped == "the mask is not there"
    decision = Decision(0, 1, 0.5, 0.5, points)
    small = disc(14, 12, 6) & ~disc(18, 16, 3)
    right, wrong = (Refined(mask, mask * np.uint8(250), 0.9, 0.9) for mask in (TRUE, small))
    assert judge(decision, right, COARSE).accepted
    assert "1 of 9 concentrated probes contradict it" in judge(decision, wrong, COARSE).refused


def test_a_large_part_does_not_change_without_a_probe_in_it() -> None:
    before, lump = disc(*CENTRE, 7), disc(18, 16, 3)
    unseen = choose(probes()[:-1], before * np.uint8(255))
    for mask, old in ((before & ~lump, before), (before, before & ~lump)):
        refined = Refined(mask, mask * np.uint8(250), 0.9, 0.9)
        reasons = judge(Decision(0, 1, 0.5, 0.5, unseen), refined, old).refused
        assert "no probe says why a part of 0." in reasons[0]
        side = bool(mask[16, 18])
        seen = choose([*probes()[:-1], Projected(18.5, 16.5, side, 0.9, 0)], old * np.uint8(255))
        assert judge(Decision(0, 1, 0.5, 0.5, seen), refined, old).accepted


def test_a_mask_does_not_shrink_bit_by_bit_without_probes() -> None:
    before = disc(*CENTRE, 7)
    bits = np.zeros_like(before)
    bits[9:17:3, 11:19:3] = True  # none of them large by itself
    points = choose(probes()[:-1], before * np.uint8(255))

    def refused(mask: np.ndarray) -> list[str]:
        decision = judge(Decision(0, 1, 0.5, 0.5, points), Refined(mask, mask * np.uint8(250), 0.9, 0.9), before)
        return [reason for reason in decision.refused if "smaller" in reason]

    assert refused(before & ~bits) == ["it is smaller by 0.06 of the propagated mask, and no probe says why"]
    assert refused(before & ~bits | np.roll(bits, 12, axis=0)) == []  # as much is added as taken away


def test_only_poor_masks_are_looked_at_and_not_again_soon_after() -> None:
    video, store, segmenter = memory_video(3 * REST + 3), DictStore(), RefiningDisc(TRUE)
    weak = dict.fromkeys(range(4, 3 * REST + 3), 0.5) | {2: 0.74, 3: 0.76}
    made = engine(segmenter, weak, RefineOptions(below=0.75))
    track(made, video, store)
    assert [frame for frame, _, _ in segmenter.refined] == [2, 2 + REST + 1, 2 + 2 * (REST + 1)]
    decided = decisions(made, video, store)
    assert 3 not in decided
    assert decided[4].refused == ("it was refined 2 frames ago",)


def test_a_stopped_track_goes_on_byte_for_byte_alike() -> None:
    video = memory_video(26)
    weak = dict.fromkeys(range(5, 26), 0.5)
    expected = track(engine(RefiningDisc(TRUE), weak, RefineOptions()), video, DictStore())
    store = DictStore()
    for stop in (3, 5, 9, 14, None):
        found = track(engine(RefiningDisc(TRUE), weak, RefineOptions()), video, store, stop)
    assert found == expected
    # the frames alone are lost, states stay: they are computed from those
    for key in [k for k in store.blobs if k.startswith("track/") and k.rpartition("/")[2] in ("12", "13", "25")]:
        del store.blobs[key]
    assert track(engine(RefiningDisc(TRUE), weak, RefineOptions()), video, store) == expected


def test_stored_frames_are_those_of_the_options_they_were_made_with() -> None:
    video, store, weak = memory_video(6), DictStore(), {3: 0.5}
    refined = track(engine(RefiningDisc(TRUE), weak, RefineOptions()), video, store)
    plain = track(engine(RefiningDisc(TRUE), weak, None), video, store)
    lower = track(engine(RefiningDisc(TRUE), weak, RefineOptions(below=0.4)), video, store)
    assert plain == lower != refined
    assert len({RefineOptions(r, b).tag for r in ("probes", "clicks") for b in (0.4, 0.75)}) == 4


def test_the_second_recipe_clicks_until_it_has_the_mask_and_goes_on_from_its_own() -> None:
    soft = COARSE * np.uint8(255)

    class Clicked(RefiningDisc):
        def segment(self, video: Any, frame: int, prompts: FramePrompts, prior: Mask | None = None) -> Any:
            assert prior is None
            found = super().segment(video, frame, prompts, prior)
            return replace(found, mask=found.mask & TRUE)

    segmenter, video = Clicked(TRUE), memory_video(2)
    points = [Click(p.x, p.y, p.positive) for p in probes()]
    assert by_clicks(segmenter, video, 1, soft, points) is not None
    ((_, given, logits),) = segmenter.refined
    clicks = segmenter.asked[-1][1].clicks
    assert given == (*clicks, *points)
    assert len(segmenter.asked) == len(clicks) >= 2
    reached = logits > 0
    assert (reached & COARSE).sum() >= 0.8 * (reached | COARSE).sum()
    never = DiscSegmenter()
    never.segment = lambda *a, **k: replace(DiscSegmenter().segment(*a, **k), mask=np.zeros_like(TRUE))  # type: ignore[method-assign]
    assert by_clicks(never, video, 1, soft, points) is None  # type: ignore[arg-type]
    by_probes(segmenter, video, 1, soft, points)
    assert np.array_equal(segmenter.refined[-1][2], log_odds(soft))


def test_log_odds_are_finite_and_right() -> None:
    odds = log_odds(np.array([[0, 51, 204, 255]], np.uint8))
    assert np.allclose(odds, [[-8, np.log(0.25), np.log(4), 8]])


def test_points_must_be_concentrated_agree_with_the_mask_and_lie_apart() -> None:
    soft = COARSE * np.uint8(255)
    many = [Projected(8.5 + i, 12.5, True, 0.9, 0) for i in range(9)]
    wrong = [Projected(1.5, 1.5, True, 0.9, 0), Projected(*CENTRE, False, 0.9, 0), Projected(*CENTRE, True, 0.1, 0)]
    points = choose([*many, *wrong], soft)
    assert [p.dropped for p in points[9:]] == [
        "the mask is not there", "the mask is there", "affinity is not concentrated",
    ]  # fmt: skip
    kept = [p.x for p in points if not p.dropped]
    assert len(kept) == 6
    assert max(kept) - min(kept) >= 7
    assert too_few(points) == ("0 points off it, 2 are needed",)
    assert too_few(choose(probes(), soft)) == ()


def test_points_far_from_each_other_come_first() -> None:
    points = np.array([[0, 0], [1, 0], [10, 0], [10, 1], [5, 9]], np.float32)
    assert set(spread(points, 3)) <= {0, 1, 2, 3, 4}
    chosen = points[spread(points, 3, taken=points[:1])]
    assert [tuple(p) for p in chosen] == [(5, 9), (10, 0), (1, 0)]
    assert len(spread(points, 9)) == 5
    assert len(spread(points[:0], 3)) == 0


def test_decisions_survive_being_written_down() -> None:
    point = Point(1.5, 2.5, True, 0.75, 3, "close to others")
    decision = Decision(7, -1, 0.4, 0.4, (point,), ("a", "b"), 0.5)
    assert Decision.unpack(decision.pack()) == decision


def test_the_fakes_are_what_they_stand_for() -> None:
    assert isinstance(CoarsePropagator({}), ReviewedPropagator)
    refined = Refined(TRUE, TRUE * np.uint8(250), 0.9, 0.9)
    assert judge(Decision(0, 1, 0.5, 0.5, choose(probes(), COARSE * np.uint8(255))), refined, COARSE).accepted
    assert np.array_equal(claim(refined, TRUE), refined.soft)
