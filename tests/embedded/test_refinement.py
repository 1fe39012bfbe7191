"""Step 3 of the embedded engine: probes that follow the flow, masks cut anew around them, and objects in a new shot."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from tam_backend.features import FrameFeatures
from tam_backend.features.geometry import Geometry
from tam_backend.prompts import Click, Mask
from tam_backend.propagators.base import Propagated
from tam_backend.propagators.embedded import EmbeddedPropagator
from tam_backend.propagators.embedded.correspondence import PROBES, Correspondence
from tam_backend.propagators.probes import Projected, ReviewedPropagator
from tam_backend.segmenters.embedded import EmbeddedSegmenter
from tam_backend.tracking.refinement.recipes import log_odds
from tam_backend.tracking.store import pack_state, unpack_state
from tests.embedded.scenes import BLUE, RED, ArrayReader, Disc, iou, moving_disc, scene

Shown = list[list[Projected]]


def looking(shown: Shown, replaced: dict[int, Mask] | None = None) -> Callable[..., Propagated | None]:
    """A review that projects on every step, and replaces the masks of some (counted from 1)."""
    replaced, at = replaced or {}, [0]

    def review(seen: Propagated, project: Callable[[], Sequence[Projected]]) -> Propagated | None:
        at[0] += 1
        shown.append(list(project()))
        mask = replaced.get(at[0])
        return None if mask is None else Propagated(mask * np.uint8(255), 0.9)

    return review


@pytest.mark.parametrize("direction", [1, -1])
def test_probes_stay_on_what_they_were_taken_from(direction: int) -> None:
    video, truth = moving_disc()
    start = 0 if direction > 0 else 10
    shown: Shown = []
    propagation = EmbeddedPropagator().begin(video, {start: truth[start]}, start)
    for frame in range(start + direction, start + 9 * direction, direction):
        propagation.step(frame, looking(shown))
        points = [p for p in shown[-1] if p.concentration >= 0.5]
        for side in (True, False):
            right = [bool(truth[frame][int(p.y), int(p.x)]) == side for p in points if p.positive == side]
            assert len(right) >= 5
            assert np.mean(right) >= 0.9
        places = np.array([(p.x, p.y) for p in points if p.positive])
        assert places.std(axis=0).min() > 3  # spread over a disc of radius 22


def test_a_review_that_refuses_changes_nothing() -> None:
    video, truth = moving_disc()
    assert isinstance(EmbeddedPropagator(), ReviewedPropagator)
    plain, reviewed = (EmbeddedPropagator().begin(video, {0: truth[0]}, 0) for _ in range(2))
    for frame in range(1, 10):
        a, b = plain.step(frame), reviewed.step(frame, looking([]))
        assert np.array_equal(a.soft, b.soft)
        assert a.quality == b.quality
    before, after = plain.state(), reviewed.state()
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_a_replaced_mask_is_gone_on_from_and_resumes_bit_for_bit() -> None:
    video, truth = moving_disc()
    half = truth[4] & (np.arange(160) < 70)
    shown: Shown = []
    whole, review = EmbeddedPropagator().begin(video, {0: truth[0]}, 0), looking(shown, {4: half})
    expected = []
    for frame in range(1, 10):
        expected.append(whole.step(frame, review))
        if frame == 6:
            blob = pack_state(frame, whole.state())
    assert np.array_equal(expected[3].soft >= 128, half)
    plain = EmbeddedPropagator().begin(video, {0: truth[0]}, 0)
    unchanged = [plain.step(frame) for frame in range(1, 10)]
    assert np.array_equal(expected[2].soft, unchanged[2].soft)
    assert (expected[4].soft >= 128).sum() < 0.9 * (unchanged[4].soft >= 128).sum()
    frame, state = unpack_state(blob)
    assert state["origin"] == 0  # the frame that a person decided on is still what the rest is compared with
    assert state["revised"][truth[6] & (np.arange(160) > 85)].mean() > 200
    assert state["revised"][truth[6] & (np.arange(160) < 65)].mean() < 20
    again, later = EmbeddedPropagator().begin(video, {0: truth[0]}, frame, state), []
    for number in range(7, 10):
        assert np.array_equal(again.step(number, looking(later)).soft, expected[number - 1].soft)
    assert later == shown[6:]


def test_chains_break_where_flow_there_and_back_disagree() -> None:
    rng = np.random.default_rng(0)
    lab = rng.integers(0, 256, (100, 120, 3), np.uint8)
    mask = np.zeros((100, 120), bool)
    mask[30:70, 30:80] = True
    geometry = Geometry.of(100, 120)
    assert (geometry.flow_height, geometry.flow_width) == (100, 120)
    probes = Correspondence.none()
    probes.plant(3, mask, lab)
    assert (probes.positive.sum(), (~probes.positive).sum()) == (PROBES, PROBES)
    assert all(mask[int(y), int(x)] == side for (x, y), side in zip(probes.at, probes.positive, strict=True))
    there, back = np.zeros((2, 100, 120, 2), np.float32)
    there[..., 0], back[..., 0] = 5, -5
    back[:50] = 3  # what moved in the upper half does not come back
    before = probes.at.copy()
    probes.follow(there, back, geometry)
    assert (probes.at[:, 1] >= 49).all()
    stayed = before[before[:, 1] >= 51] + (5, 0)
    assert {tuple(p) for p in stayed if p[0] < 115} <= {tuple(p) for p in probes.at}
    moved = np.roll(lab, 5, axis=1)
    assert all(p.concentration > 0.9 for p in probes.project(moved, geometry))
    assert all(p.source == 3 for p in probes.project(moved, geometry))
    assert all(p.concentration < 0.5 for p in probes.project(255 - moved, geometry))  # nothing looks like it
    probes.forget()
    assert probes.project(moved, geometry) == []


def test_refine_takes_a_leak_away_and_brings_a_lost_part_back() -> None:
    video, (truth,) = scene(120, 160, 3, [Disc(lambda t: (70, 60), 26, RED)], key="refine")
    leak = np.zeros_like(truth[1])
    leak[52:68, 90:125] = True
    lost = truth[1].copy()
    lost[:, :58] = False
    on, off = Click(70.5, 60.5), Click(140.5, 20.5, positive=False)
    for wrong, points in (
        (truth[1] | leak, [on, Click(80.5, 75.5), Click(115.5, 60.5, positive=False), off]),
        (lost, [on, Click(50.5, 60.5), off, Click(20.5, 100.5, positive=False)]),
    ):
        logits = log_odds(np.where(wrong, 230, 20).astype(np.uint8))
        first, second = (EmbeddedSegmenter().refine(video, 1, points, logits) for _ in range(2))
        assert iou(first.mask, truth[1]) > iou(wrong, truth[1]) + 0.08
        assert np.array_equal(first.mask, second.mask)
        assert np.array_equal(first.mask, first.soft >= 128)
        assert 0.5 < first.score <= 1
        assert 0.5 < first.stability <= 1


def shots(second: Sequence[Disc], place: tuple[float, float] = (70, 60)) -> tuple[ArrayReader, list[Mask], list[Mask]]:
    """Five frames with a red disc, a cut, five frames of something else; and where the first disc of each is."""
    one, (before,) = scene(120, 160, 5, [Disc(lambda t: (place[0] + t, place[1]), 20, RED)], key="one")
    two, after = scene(120, 160, 5, second, camera=(-2.0, 1.0), key="two")
    turned = [np.ascontiguousarray(255 - f if not second else f) for f in two.frames]
    reader = ArrayReader([*one.frames, *turned], f"shots-{len(second)}-{second[0].colour if second else 0}")
    return reader, before, after[0] if after else []


@pytest.mark.parametrize("reviewed", [False, True])
def test_in_a_new_shot_the_object_is_found_by_its_colours(reviewed: bool) -> None:
    video, before, after = shots([Disc(lambda t: (110 - t, 40 + t), 16, RED), Disc(lambda t: (40, 80), 18, BLUE)])
    propagation = EmbeddedPropagator().begin(video, {0: before[0]}, 0)
    extra = (looking([]),) if reviewed else ()
    for frame in range(1, 10):
        if frame == 5:
            propagation.cut()
        result = propagation.step(frame, *extra)
        if frame >= 5:
            assert iou(result.soft >= 128, after[frame - 5]) > 0.7
    assert result.quality < 0.85


def test_in_a_new_shot_without_the_object_the_mask_is_empty() -> None:
    video, before, _ = shots([Disc(lambda t: (40, 80), 18, BLUE)])
    propagation = EmbeddedPropagator().begin(video, {0: before[0]}, 0)
    for frame in range(1, 10):
        if frame == 5:
            propagation.cut()
        result = propagation.step(frame)
        if frame >= 5:
            assert not (result.soft >= 128).any()
    assert result.quality < 0.5


def test_an_object_that_comes_later_in_the_new_shot_is_found_then() -> None:
    video, before, after = shots([Disc(lambda t: (110 - t, 40 + t if t >= 3 else -90), 16, RED)])
    whole = EmbeddedPropagator().begin(video, {0: before[0]}, 0)
    results = []
    for frame in range(1, 10):
        if frame == 5:
            whole.cut()
        results.append(whole.step(frame))
        if frame == 6:
            blob = pack_state(frame, whole.state())
    assert [bool((r.soft >= 128).any()) for r in results[4:]] == [False, False, False, True, True]
    assert iou(results[8].soft >= 128, after[4]) > 0.7
    frame, state = unpack_state(blob)
    again = EmbeddedPropagator().begin(video, {0: before[0]}, frame, state)
    assert all(np.array_equal(again.step(f).soft, results[f - 1].soft) for f in (7, 8, 9))


def test_no_flow_leads_across_a_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    video, before, _ = shots([Disc(lambda t: (110 - t, 40 + t), 16, RED)])
    asked: set[tuple[int, int]] = set()
    original = FrameFeatures.flow

    def flow(self: FrameFeatures, reader: ArrayReader, source: int, target: int):  # type: ignore[no-untyped-def]
        asked.add((min(source, target), max(source, target)))
        return original(self, reader, source, target)

    propagation = EmbeddedPropagator().begin(video, {0: before[0]}, 0)
    for frame in range(1, 5):
        propagation.step(frame, looking([]))
    asked.clear()
    monkeypatch.setattr(FrameFeatures, "flow", flow)
    propagation.cut()
    propagation.step(5, looking([]))
    assert (4, 5) not in asked
