import numpy as np
import pytest

from tam_backend.features import FeatureStore, FrameFeatures
from tam_backend.propagators.base import SOFT_THRESHOLD
from tam_backend.propagators.embedded import EmbeddedPropagator

from .scenes import BLUE, RED, Disc, iou, moving_disc, scene


def walk(propagation, frames):
    return [propagation.step(f) for f in frames]


@pytest.mark.parametrize("backward", [False, True])
def test_a_disc_is_followed(backward):
    reader, masks = moving_disc()
    start, frames = (10, range(9, -1, -1)) if backward else (0, range(1, 11))
    results = walk(EmbeddedPropagator().begin(reader, {start: masks[start]}, start), frames)
    for frame, result in zip(frames, results, strict=True):
        assert result.soft.dtype == np.uint8
        assert result.soft.shape == (120, 160)
        assert iou(result.soft >= SOFT_THRESHOLD, masks[frame]) > 0.8
        assert 0 <= result.quality <= 1


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("both_ends", [False, True])
def test_resuming_gives_the_same_bits(backward, both_ends):
    reader, masks = moving_disc()
    start, frames = (10, list(range(9, -1, -1))) if backward else (0, list(range(1, 11)))
    anchors = {start: masks[start]}
    if both_ends:
        anchors[10 - start] = masks[10 - start]
    whole = walk(EmbeddedPropagator().begin(reader, anchors, start), frames)
    first = EmbeddedPropagator().begin(reader, anchors, start)
    head = walk(first, frames[:5])
    state = {name: np.array(value) for name, value in first.state().items()}
    walk(first, frames[5:7])  # what happens to the first run later does not reach the state taken
    tail = walk(EmbeddedPropagator().begin(reader, anchors, frames[4], state), frames[5:])
    for a, b in zip(whole, head + tail, strict=True):
        assert np.array_equal(a.soft, b.soft)
        assert a.quality == b.quality


def test_the_state_at_the_start_resumes_too():
    reader, masks = moving_disc(4)
    anchors = {0: masks[0]}
    state = EmbeddedPropagator().begin(reader, anchors, 0).state()
    a = EmbeddedPropagator().begin(reader, anchors, 0).step(1)
    b = EmbeddedPropagator().begin(reader, anchors, 0, state).step(1)
    assert np.array_equal(a.soft, b.soft)
    assert a.quality == b.quality


def test_a_tight_memory_changes_time_not_results():
    reader, masks = moving_disc(5)
    rich = walk(EmbeddedPropagator().begin(reader, {0: masks[0]}, 0), range(1, 5))
    poor = FrameFeatures(FeatureStore(max_bytes=0))
    for a, b in zip(rich, walk(EmbeddedPropagator(poor).begin(reader, {0: masks[0]}, 0), range(1, 5)), strict=True):
        assert np.array_equal(a.soft, b.soft)


def test_objects_share_the_flow():
    reader, masks = moving_disc(5)
    propagator = EmbeddedPropagator()
    walk(propagator.begin(reader, {0: masks[0]}, 0), range(1, 5))
    again = reader.clone()
    walk(propagator.begin(again, {0: ~masks[0]}, 0), range(1, 5))
    assert again.reads == []


def test_two_crossing_objects_keep_apart():
    discs = [Disc(lambda t: (40 + 5 * t, 50), 16, RED), Disc(lambda t: (140 - 5 * t, 74), 16, BLUE)]
    reader, masks = scene(120, 180, 17, discs, key="crossing")
    propagator = EmbeddedPropagator()
    for own, other in ((0, 1), (1, 0)):
        last = walk(propagator.begin(reader, {0: masks[own][0]}, 0), range(1, 17))[-1].soft >= SOFT_THRESHOLD
        assert iou(last, masks[own][16]) > 0.7
        assert np.count_nonzero(last & masks[other][16]) < 0.1 * np.count_nonzero(last)


def test_an_object_that_leaves_leaves_nothing_behind():
    reader, masks = scene(120, 160, 14, [Disc(lambda t: (100 + 8 * t, 60), 18, RED)], key="leaving")
    results = walk(EmbeddedPropagator().begin(reader, {0: masks[0][0]}, 0), range(1, 14))
    assert not masks[0][11].any()
    assert np.count_nonzero(results[-1].soft >= SOFT_THRESHOLD) < 20


def test_an_object_comes_back_from_behind_another():
    """A disc passes behind a standing pillar of discs that hides it entirely for several frames."""
    pillar = [Disc(lambda t, y=y: (100 - t, y - t / 2), 24, (90, 130, 90)) for y in range(10, 121, 10)]
    reader, masks = scene(120, 220, 32, [Disc(lambda t: (40 + 5 * t, 60), 14, RED), *pillar], key="pillar")
    own = masks[0]
    hidden = [f for f, mask in enumerate(own) if not mask.any()]
    assert len(hidden) >= 2
    results = walk(EmbeddedPropagator().begin(reader, {0: own[0]}, 0), range(1, 31))
    assert iou(results[-1].soft >= SOFT_THRESHOLD, own[30]) > 0.7
    assert results[-1].quality < results[0].quality


def test_an_absent_object_stays_absent():
    reader, masks = moving_disc(4)
    for result in walk(EmbeddedPropagator().begin(reader, {0: np.zeros_like(masks[0])}, 0), range(1, 4)):
        assert not result.soft.any()
        assert 0 <= result.quality <= 1


def test_quality_is_high_on_firm_ground_and_falls_on_drift():
    reader, masks = moving_disc()
    firm = walk(EmbeddedPropagator().begin(reader, {0: masks[0]}, 0), range(1, 11))
    # The same video with its second half replaced by noise: nothing can be followed into it.
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 255, (120, 160, 3), dtype=np.uint8) for _ in range(5)]
    broken = type(reader)([*reader.frames[:6], *noise], "broken")
    lost = walk(EmbeddedPropagator().begin(broken, {0: masks[0]}, 0), range(1, 11))
    assert firm[0].quality > 0.8
    assert firm[-1].quality > 0.5
    assert lost[-1].quality < 0.25
    assert lost[3].quality == firm[3].quality  # a step looks one frame further, so the fifth may differ


def test_the_second_anchor_teaches_colours_too():
    """The object turns from red to blue; only the anchor at the far end knows the blue."""
    reader, masks = moving_disc()
    blue = scene(120, 160, 11, [Disc(lambda t: (50 + 4 * t, 60 + t), 22, BLUE)], key="turning")[0]
    mixed = [
        np.rint(a * (1 - t / 10) + b * (t / 10)).astype(np.uint8)
        for t, (a, b) in enumerate(zip(reader.frames, blue.frames, strict=True))
    ]
    video = type(reader)(mixed, "turning")
    result = walk(EmbeddedPropagator().begin(video, {0: masks[0], 10: masks[10]}, 0), range(1, 10))[-1]
    assert iou(result.soft >= SOFT_THRESHOLD, masks[9]) > 0.8


@pytest.mark.parametrize("size", [(64, 64), (20, 20), (33, 47), (7, 5), (1, 1), (193, 251)])
def test_any_size_works(size):
    height, width = size
    reader, masks = scene(height, width, 4, [Disc(lambda t: (width / 2 + t, height / 2), min(size) / 4, RED)])
    for result in walk(EmbeddedPropagator().begin(reader, {0: masks[0][0]}, 0), range(1, 4)):
        assert result.soft.shape == size
    if min(size) >= 20:
        assert iou(result.soft >= SOFT_THRESHOLD, masks[0][3]) > 0.6


def test_large_frames_come_back_at_full_size():
    reader, masks = scene(900, 1400, 3, [Disc(lambda t: (600 + 12 * t, 400), 150, RED)])
    result = walk(EmbeddedPropagator().begin(reader, {0: masks[0][0]}, 0), range(1, 3))[-1]
    assert result.soft.shape == (900, 1400)
    assert iou(result.soft >= SOFT_THRESHOLD, masks[0][2]) > 0.9
