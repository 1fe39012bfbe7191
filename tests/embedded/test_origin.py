"""The memory of the frame a run began at: what it corrects, and where it knows that it does not know."""

import numpy as np
import pytest

from tam_backend.features import FrameFeatures
from tam_backend.features.filters import window
from tam_backend.propagators.embedded.origin import FRACTION, Origin
from tam_backend.propagators.embedded.propagator import RING

from .scenes import RED, Disc, scene

#: Pixels around the object's mask in which ways are composed.
MARGIN = RING[1]
DISC = Disc(lambda t: (70 + 4 * t, 60 + t), 24, RED)


def begin(reader, mask):
    features = FrameFeatures()
    geometry = features.geometry(reader)
    return features, Origin(0, features.gray(reader, 0), 255 * mask.astype(np.uint8), geometry)


def pasted(found, shape):
    part, mask, alike = found
    whole, certain = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    whole[part], certain[part] = mask, alike
    return whole, certain


@pytest.mark.parametrize("size", [(120, 160), (240, 320)])  # flow at the frame's size, and at half of it
@pytest.mark.parametrize("recall", [True, False])
def test_errors_that_add_up_are_put_right(size, recall):
    last, scale = 10, size[0] // 120
    disc = Disc(lambda t: (scale * (70 + 3 * t), scale * (60 + t)), scale * 24, RED)
    reader, (masks,) = scene(*size, last + 1, [disc], key="origin")
    features, origin = begin(reader, masks[0])
    for frame in range(1, last + 1):
        flow = features.flow(reader, frame, frame - 1) + np.float32((0.5, -0.4))
        origin.step(flow, window(masks[frame - 1], MARGIN))
        if recall:
            _, mask, certain = origin.recall(features.gray(reader, frame), window(masks[frame], 0))
    row, column = 60 + last, 70 + 3 * last  # the disc's centre, where the flow is
    way = origin.state()["way"][row - 5 : row + 6, column - 5 : column + 6] / FRACTION
    error = np.abs(way - (-3 * last, -last)).mean()
    assert error < 0.5 if recall else error > 1
    if recall:
        assert mask.shape == certain.shape
        assert 0 <= certain.min() <= certain.max() <= 1
        height, width = mask.shape
        assert mask[height // 2, width // 2] == 1
        assert mask[0, 0] == 0


def test_around_the_object_its_ways_are_those_of_the_whole_frame():
    reader, (masks,) = scene(240, 320, 11, [Disc(lambda t: (60 + 6 * t, 100 + t), 24, RED)], key="parts")
    features, part = begin(reader, masks[0])
    _, whole = begin(reader, masks[0])
    for frame in range(1, 11):
        flow = features.flow(reader, frame, frame - 1)
        part.step(flow, window(masks[frame - 1], MARGIN))
        whole.step(flow, (slice(0, 240), slice(0, 320)))
        rows, columns = window(masks[frame], 0)
        here = slice(rows.start // 2, rows.stop // 2), slice(columns.start // 2, columns.stop // 2)
        apart = part.state()["way"][here].astype(int) - whole.state()["way"][here]
        # Pixels at the rim may have the flow of the background, and so come from far away.
        assert np.abs(apart).max() <= 0.3 * FRACTION
        assert np.abs(apart).mean() <= 0.02 * FRACTION
    assert not np.array_equal(part.state()["way"], whole.state()["way"])


def test_what_covers_the_object_is_not_taken_for_it():
    cover = Disc(lambda t: (200 - 10 * t, 66), 20, (250, 250, 250))
    reader, (masks, covers) = scene(120, 220, 9, [DISC, cover], key="covered")
    _, (whole,) = scene(120, 220, 9, [DISC])
    features, origin = begin(reader, masks[0])
    for frame in range(1, 9):
        origin.step(features.flow(reader, frame, frame - 1), window(whole[frame - 1], MARGIN))
        found = origin.recall(features.gray(reader, frame), window(whole[frame], 0))
    mask, certain = pasted(found, (120, 220))
    hidden = whole[8] & covers[8]
    assert np.count_nonzero(hidden) > 300
    assert (mask * certain)[hidden].mean() < 0.3 * (mask * certain)[masks[8]].mean()


def test_it_goes_on_with_equal_bits():
    reader, (masks,) = scene(120, 160, 9, [DISC], key="origin")
    features, origin = begin(reader, masks[0])
    _, other = begin(reader, masks[0])
    for frame in range(1, 9):
        if frame == 5:
            other.resume({name: np.array(value) for name, value in origin.state().items()})
        for one in (origin, other) if frame >= 5 else (origin,):
            one.step(features.flow(reader, frame, frame - 1), window(masks[frame - 1], MARGIN))
            found = one.recall(features.gray(reader, frame), window(masks[frame], 0))
            if one is origin:
                expected = found
        if frame >= 5:
            assert found[0] == expected[0]
            assert all(np.array_equal(a, b) for a, b in zip(found[1:], expected[1:], strict=True))


def test_a_state_taken_does_not_change_later():
    reader, (masks,) = scene(120, 160, 4, [DISC], key="origin")
    features, origin = begin(reader, masks[0])
    origin.step(features.flow(reader, 1, 0), window(masks[0], MARGIN))
    state = origin.state()
    before = state["way"].copy()
    origin.step(features.flow(reader, 2, 1), window(masks[1], MARGIN))
    assert np.array_equal(state["way"], before)


def test_there_is_nothing_to_compare_in_a_tiny_frame():
    reader, (masks,) = scene(20, 24, 2, [Disc(lambda t: (10 + t, 10), 4, RED)])
    features, origin = begin(reader, masks[0])
    origin.step(features.flow(reader, 1, 0), window(masks[0], MARGIN))
    assert origin.recall(features.gray(reader, 1), window(masks[1], 0)) is None


def test_ways_beyond_what_fits_stay_as_long_as_possible():
    reader, (masks,) = scene(64, 80, 2, [DISC])
    _, origin = begin(reader, masks[0])
    origin.step(np.full((64, 80, 2), 5000, np.float32), (slice(0, 64), slice(0, 80)))
    assert origin.state()["way"].max() == 32767 > 1000 * FRACTION
