import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tam_backend.engines import load_engine
from tam_backend.errors import BadInput
from tam_backend.prompts import Box, Click, FramePrompts
from tam_backend.segmenters.embedded import EmbeddedSegmenter

from .scenes import BLUE, RED, ArrayReader, Disc, iou, moving_disc, scene


def clicks(*points: tuple[float, float, bool]) -> FramePrompts:
    return FramePrompts(tuple(Click(*p) for p in points))


@pytest.mark.parametrize("frame", [0, 5, 10])
def test_one_click_finds_what_moves(frame):
    reader, masks = moving_disc()
    result = EmbeddedSegmenter().segment(reader, frame, clicks((50 + 4 * frame, 60 + frame, True)))
    assert result.mask.dtype == bool
    assert iou(result.mask, masks[frame]) > 0.85
    assert 0.5 < result.score <= 1


def test_a_still_picture_is_segmented_by_colour():
    reader, masks = moving_disc()
    still = ArrayReader(reader.frames[:1], "still")
    result = EmbeddedSegmenter().segment(still, 0, clicks((50, 60, True)))
    assert iou(result.mask, masks[0]) > 0.7


def test_a_static_scene_is_segmented_by_colour():
    reader, masks = scene(120, 160, 4, [Disc(lambda t: (80, 60), 25, RED)], camera=(0, 0), key="static")
    result = EmbeddedSegmenter().segment(reader, 2, clicks((80, 60, True)))
    assert iou(result.mask, masks[0][2]) > 0.7


@pytest.mark.parametrize("moving", [True, False])
def test_a_box_is_enough(moving):
    reader, masks = moving_disc()
    video = reader if moving else ArrayReader(reader.frames[:1], "still")
    result = EmbeddedSegmenter().segment(video, 0, FramePrompts(box=Box(26, 36, 74, 84)))
    assert iou(result.mask, masks[0]) > 0.8
    outside = result.mask.copy()
    outside[36:84, 26:74] = False
    assert not outside.any()


def test_a_box_with_clicks_obeys_both():
    reader, masks = moving_disc()
    prompts = FramePrompts((Click(50, 60), Click(70, 40, positive=False)), Box(26, 36, 74, 84))
    mask = EmbeddedSegmenter().segment(reader, 0, prompts).mask
    assert mask[60, 50]
    assert not mask[40, 70]
    assert iou(mask, masks[0]) > 0.8


def test_a_negative_click_takes_the_neighbour_away():
    """Two touching discs that move together: one click takes both, a negative click keeps one."""
    discs = [Disc(lambda t: (55 + 3 * t, 60), 20, RED), Disc(lambda t: (93 + 3 * t, 60), 20, BLUE)]
    reader, masks = scene(120, 160, 3, discs, key="pair")
    segmenter = EmbeddedSegmenter()
    result = segmenter.segment(reader, 1, clicks((58, 60, True), (96, 60, False)))
    assert iou(result.mask, masks[0][1]) > 0.8
    both = segmenter.segment(reader, 1, clicks((58, 60, True), (96, 60, True)))
    assert iou(both.mask, masks[0][1] | masks[1][1]) > 0.8


def test_a_twin_elsewhere_is_left_alone():
    """Same colour, same motion, but not connected to the click."""
    discs = [Disc(lambda t: (40 + 3 * t, 60), 18, RED), Disc(lambda t: (110 + 3 * t, 60), 18, RED)]
    reader, masks = scene(120, 160, 3, discs, key="twins")
    mask = EmbeddedSegmenter().segment(reader, 1, clicks((43, 60, True))).mask
    assert iou(mask, masks[0][1]) > 0.8
    assert not (mask & masks[1][1]).any()


def test_every_click_changes_something_where_the_mask_was_wrong():
    reader, _ = moving_disc()
    segmenter = EmbeddedSegmenter()
    first = segmenter.segment(reader, 0, clicks((50, 60, True))).mask
    for x, y in ((120, 20), (140, 100), (20, 110)):
        assert not first[y, x]
        more = segmenter.segment(reader, 0, clicks((50, 60, True), (x, y, True))).mask
        assert np.count_nonzero(more[y - 4 : y + 5, x - 4 : x + 5]) > 20


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 159), st.integers(0, 119), st.booleans()),
        min_size=1,
        max_size=6,
        unique_by=lambda c: c[:2],
    )
)
def test_clicks_are_respected(points):
    reader, _ = moving_disc(2)
    points[0] = (*points[0][:2], True)
    mask = SHARED.segment(reader, 0, clicks(*((x + 0.5, y + 0.5, p) for x, y, p in points))).mask
    assert all(mask[y, x] == positive for x, y, positive in points)


SHARED = EmbeddedSegmenter()


def test_the_same_prompts_give_the_same_mask():
    reader, _ = moving_disc()
    prompts = clicks((60, 62, True), (20, 20, False))
    a = EmbeddedSegmenter().segment(reader, 3, prompts)
    busy = EmbeddedSegmenter()
    busy.segment(reader, 2, clicks((30, 30, True)))
    b = busy.segment(reader, 3, prompts)
    assert np.array_equal(a.mask, b.mask)
    assert a.score == b.score


@pytest.mark.parametrize("size", [(64, 64), (20, 20), (33, 47), (7, 5), (1, 1), (5, 300), (193, 251)])
@pytest.mark.parametrize("count", [1, 3])
def test_any_size_works(size, count):
    height, width = size
    reader, _ = scene(height, width, count, [Disc(lambda t: (width / 2 + t, height / 2), min(size) / 4, RED)])
    mask = EmbeddedSegmenter().segment(reader, 0, clicks((width // 2, height // 2, True))).mask
    assert mask.shape == size
    assert mask[height // 2, width // 2]


def test_large_frames_come_back_at_full_size():
    discs = [Disc(lambda t: (600 + 12 * t, 400), 150, RED)]
    reader, masks = scene(900, 1400, 2, discs)
    mask = EmbeddedSegmenter().segment(reader, 0, clicks((600, 400, True))).mask
    assert mask.shape == (900, 1400)
    assert iou(mask, masks[0][0]) > 0.8


def test_bad_prompts_are_refused_with_a_reason():
    reader, _ = moving_disc(2)
    segmenter = EmbeddedSegmenter()
    with pytest.raises(BadInput, match="outside the frame"):
        segmenter.segment(reader, 0, clicks((200, 10, True)))
    with pytest.raises(BadInput, match="positive click"):
        segmenter.segment(reader, 0, clicks((10, 10, False)))
    with pytest.raises(BadInput, match=r"pixel \(10, 10\)"):
        segmenter.segment(reader, 0, clicks((10, 10, True), (10.5, 10.5, False)))


def test_engines_by_name():
    engine = load_engine("embedded")
    assert (engine.name, engine.segmenter.name, engine.propagator.name) == ("embedded",) * 3
    assert engine.version
    with pytest.raises(BadInput, match="known engines: auto, embedded, sam-xmem"):
        load_engine("other")
