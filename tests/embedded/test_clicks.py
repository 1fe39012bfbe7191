"""Clicks as people make them: off the middle, one after the other, on parts and wholes, where nothing moves."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tam_backend.evaluation.robot import next_click
from tam_backend.features import FeatureStore, FrameFeatures
from tam_backend.prompts import Box, Click, FramePrompts, Mask
from tam_backend.segmenters.embedded import EmbeddedSegmenter
from tam_backend.segmenters.embedded.candidates import from_click, merits
from tam_backend.segmenters.embedded.view import Cues, Hints, View
from tam_backend.tracking.correction import segment_with_prior

from .scenes import BLUE, RED, ArrayReader, Disc, iou, moving_disc, scene

GREEN = (60, 190, 60)


def part_and_whole() -> tuple[ArrayReader, Mask, Mask]:
    """A blue head on a red body that moves with it: reader, head, both, on frame 1."""
    discs = [Disc(lambda t: (80 + 4 * t, 66), 32, RED), Disc(lambda t: (80 + 4 * t, 44), 12, BLUE)]
    reader, masks = scene(120, 160, 3, discs, key="part")
    return reader, masks[1][1], masks[0][1] | masks[1][1]


def still(discs: list[Disc], count: int = 3) -> tuple[ArrayReader, list[Mask]]:
    reader, masks = scene(120, 160, count, discs, camera=(0, 0), key=f"still{len(discs)}")
    return reader, [m[min(1, count - 1)] for m in masks]


@pytest.mark.parametrize("seed", range(5))
def test_a_click_need_not_be_central(seed):
    reader, masks = moving_disc(4)
    rows, columns = np.nonzero(cv2.erode(masks[1].astype(np.uint8), np.ones((7, 7), np.uint8)))
    i = np.random.default_rng(seed).integers(len(rows))
    mask = EmbeddedSegmenter().segment(reader, 1, FramePrompts((Click(columns[i] + 0.5, rows[i] + 0.5),))).mask
    assert iou(mask, masks[1]) > 0.8


@pytest.mark.parametrize("start", [(84, 44), (80, 80)])
def test_further_clicks_never_make_it_much_worse(start):
    """A robot clicks what is wrong, on an object of two colours and on one of its parts."""
    reader, head, both = part_and_whole()
    segmenter = EmbeddedSegmenter()
    for truth in (both, head) if start[1] == 44 else (both, both & ~head):
        clicks, before = [Click(*start)], 0.0
        for _ in range(8):
            mask = segmenter.segment(reader, 1, FramePrompts(tuple(clicks))).mask
            assert iou(mask, truth) > before - 0.03
            before = iou(mask, truth)
            click = next_click(mask, truth)
            if click is None or click in clicks:
                break
            clicks.append(click)
        assert before > 0.85


def test_a_second_click_switches_between_the_part_and_the_whole():
    reader, head, both = part_and_whole()
    on_head, on_body = Click(84, 40), Click(84, 80)
    segmenter = EmbeddedSegmenter()
    whole = segmenter.segment(reader, 1, FramePrompts((on_head, on_body))).mask
    part = segmenter.segment(reader, 1, FramePrompts((on_head, Click(84, 80, positive=False)))).mask
    assert iou(whole, both) > 0.8
    assert iou(part, head) > 0.7


def test_candidates_of_several_scales_come_best_first():
    reader, head, both = part_and_whole()
    segmenter = EmbeddedSegmenter()
    view = View.of(segmenter.features, reader, 1, Cues())
    found = from_click(view, Hints.of((Click(84, 44),), None, reader, view), Cues())
    assert all(c.region[44, 84] for c in found)
    assert [c.merit for c in found] == sorted((c.merit for c in found), reverse=True)
    assert max(iou(c.region, head) for c in found) > 0.7
    assert max(iou(c.region, both) for c in found) > 0.6
    # Given a choice between the object and the same shape beside it, the merit says which one is an object.
    beside = np.roll(both, 40, axis=0)
    true, false = merits(view, [both.astype(np.float32), beside.astype(np.float32)])
    assert true > false + 0.1


def test_a_click_changes_nothing_far_from_it():
    """Three discs alike; the second is added, and then taken away, and the first and the third stay byte for byte."""
    places = (30, 80, 130)
    discs = [Disc(lambda t, x=x: (x + 2 * t, 60), 14, RED) for x in places]
    reader, masks = scene(120, 170, 3, discs, key="three")
    segmenter = EmbeddedSegmenter()
    clicks = [Click(32, 60), Click(132, 60)]
    two = segmenter.segment(reader, 1, FramePrompts(tuple(clicks))).mask
    assert iou(two, masks[0][1] | masks[2][1]) > 0.8
    clicks.append(Click(82, 60))
    three = segmenter.segment(reader, 1, FramePrompts(tuple(clicks))).mask
    assert iou(three, masks[0][1] | masks[1][1] | masks[2][1]) > 0.8
    clicks.append(Click(82.5, 66, positive=False))
    again = segmenter.segment(reader, 1, FramePrompts(tuple(clicks))).mask
    for mask in (three, again):
        assert np.array_equal(mask[:, :48], two[:, :48])
        assert np.array_equal(mask[:, 118:], two[:, 118:])
    assert np.count_nonzero(again[:, 60:105]) < np.count_nonzero(three[:, 60:105])


def test_a_click_that_agrees_changes_nothing():
    reader, _ = moving_disc(4)
    segmenter = EmbeddedSegmenter()
    one = segmenter.segment(reader, 1, FramePrompts((Click(54, 61),)))
    agreeing = segmenter.segment(reader, 1, FramePrompts((Click(54, 61), Click(60, 58), Click(130, 20, False))))
    assert np.array_equal(agreeing.mask, one.mask)
    assert agreeing.score > one.score


@pytest.mark.parametrize("count", [1, 3])
def test_where_nothing_moves_colours_and_edges_carry_it_and_the_score_is_lower(count):
    """A camera that stands still before things that do, and a single picture."""
    reader, masks = still([Disc(lambda t: (60, 60), 24, RED), Disc(lambda t: (110, 60), 16, GREEN)], count)
    segmenter = EmbeddedSegmenter()
    results = [segmenter.segment(reader, count // 2, FramePrompts((Click(x, 60),))) for x in (56, 112)]
    for result, mask in zip(results, masks, strict=True):
        assert iou(result.mask, mask) > 0.75
    moving, _ = moving_disc(4)
    clear = segmenter.segment(moving, 1, FramePrompts((Click(54, 61),)))
    assert max(r.score for r in results) < clear.score


def test_a_frame_of_one_colour_gives_a_mask_and_a_low_score():
    flat = ArrayReader([np.full((90, 120, 3), 127, np.uint8)], "flat")
    result = EmbeddedSegmenter().segment(flat, 0, FramePrompts((Click(60, 45),)))
    assert result.mask[45, 60]
    assert result.score < 0.5


@pytest.mark.parametrize("margin", [0, 6])
@pytest.mark.parametrize("moving", [True, False])
def test_tight_and_loose_boxes(margin, moving):
    if moving:
        reader, masks = moving_disc(4)
        mask = masks[1]
    else:
        reader, [mask] = still([Disc(lambda t: (54, 61), 22, RED)])
    box = Box(54 - 22 - margin, 61 - 22 - margin, 54 + 22 + margin, 61 + 22 + margin)
    assert iou(EmbeddedSegmenter().segment(reader, 1, FramePrompts(box=box)).mask, mask) > 0.8


def test_clicks_edit_the_mask_that_was_on_the_screen():
    """The prior is a person's business: it holds a disc that no click names, and that stays."""
    discs = [Disc(lambda t: (35 + 3 * t, 60), 18, RED), Disc(lambda t: (110 + 3 * t, 60), 18, BLUE)]
    reader, masks = scene(120, 160, 3, discs, key="two")
    red, blue = masks[0][1], masks[1][1]
    prior = red.copy()
    added = EmbeddedSegmenter().segment(reader, 1, FramePrompts((Click(38, 60), Click(113, 60))), prior).mask
    assert iou(added, red | blue) > 0.8
    removed = EmbeddedSegmenter().segment(reader, 1, FramePrompts((Click(38, 60), Click(113, 60, False))), red | blue)
    assert iou(removed.mask, red) > 0.8


def test_a_click_on_one_piece_of_a_prior_leaves_the_other_pieces():
    """No click is on the blue disc, and a leak is taken off the green one: neither is dropped."""
    discs = [Disc(lambda t, x=x: (x, 60), 16, c) for x, c in ((30, BLUE), (90, GREEN))]
    reader, masks = still(discs)
    prior = masks[0] | masks[1]
    prior[40:80, 104:125] = True
    mask = EmbeddedSegmenter().segment(reader, 1, FramePrompts((Click(90, 60), Click(117, 60, False))), prior).mask
    assert np.array_equal(
        mask[:, :60],
        EmbeddedSegmenter()
        .segment(reader, 1, FramePrompts((Click(90, 60), Click(150, 10, False), Click(150, 110))), prior)
        .mask[:, :60],
    )
    assert iou(mask, masks[0] | masks[1]) > 0.8


@pytest.mark.parametrize("grow", [5, -5])
def test_a_rough_mask_is_refined_only_if_asked(grow):
    reader, masks = moving_disc(4)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * abs(grow) + 1, 2 * abs(grow) + 1))
    change = cv2.dilate if grow > 0 else cv2.erode
    rough = change(masks[1].astype(np.uint8), kernel) > 0
    segmenter = EmbeddedSegmenter()
    kept = segment_with_prior(segmenter, reader, 1, FramePrompts(mask=rough), None)
    assert np.array_equal(kept.mask, rough)
    refined = segment_with_prior(segmenter, reader, 1, FramePrompts(mask=rough, refine=True), None)
    assert iou(refined.mask, masks[1]) > max(0.85, iou(rough, masks[1]) + 0.1)
    assert refined.score < 1


def test_a_refined_mask_stays_near_the_rough_one():
    """Half of the disc was drawn: the outline may move a little, but not out to the whole disc."""
    reader, masks = moving_disc(4)
    half = masks[1].copy()
    half[:, 54:] = False
    refined = segment_with_prior(EmbeddedSegmenter(), reader, 1, FramePrompts(mask=half, refine=True), None).mask
    assert not refined[:, 66:].any()
    assert iou(refined, half) > 0.6


def test_clicks_change_a_mask_that_is_refined():
    reader, masks = moving_disc(4)
    half = masks[1].copy()
    half[:, 54:] = False
    prompts = FramePrompts((Click(66, 61),), mask=half, refine=True)
    mask = segment_with_prior(EmbeddedSegmenter(), reader, 1, prompts, None).mask
    assert iou(mask, masks[1]) > 0.8


def hard_masks(cues: Cues) -> list[Mask]:
    """After one, two and three clicks on an object that its surroundings resemble."""
    discs = [Disc(lambda t: (70 + t, 60), 26, (100, 130, 90)), Disc(lambda t: (110 + t, 60), 14, RED)]
    reader, _ = scene(120, 160, 3, discs, key="hard")
    segmenter, clicks = EmbeddedSegmenter(cues=cues), (Click(80, 66), Click(112, 60, False), Click(60, 45))
    return [segmenter.segment(reader, 1, FramePrompts(clicks[:n])).mask for n in (1, 2, 3)]


@pytest.fixture(scope="module")
def with_all_cues() -> list[Mask]:
    return hard_masks(Cues())


@pytest.mark.parametrize("cue", ["motion", "colour", "core", "position", "choice", "local", "edges"])
def test_every_cue_can_be_switched_off_and_changes_something(cue, with_all_cues):
    less = hard_masks(Cues(**{cue: False}))
    assert not np.array_equal(less, with_all_cues)
    assert all(m[66, 80] for m in less)
    assert not less[1][60, 112]


points = st.lists(
    st.tuples(st.integers(0, 159), st.integers(0, 119), st.booleans()),
    min_size=2,
    max_size=5,
    unique_by=lambda c: c[:2],
)
WARM = EmbeddedSegmenter()


@settings(max_examples=5, deadline=None)
@given(points)
def test_answers_follow_from_the_prompts_alone(given_points):
    """Whatever was asked before, and with nothing held from one call to the next."""
    reader, _ = moving_disc(3)
    clicks = tuple(Click(x + 0.5, y + 0.5, p or n == 0) for n, (x, y, p) in enumerate(given_points))
    cold = EmbeddedSegmenter(FrameFeatures(FeatureStore(0))).segment(reader, 1, FramePrompts(clicks))
    warm = WARM.segment(reader, 1, FramePrompts(clicks))
    assert np.array_equal(cold.mask, warm.mask)
    assert cold.score == warm.score


def test_any_number_of_clicks():
    reader, masks = moving_disc(3)
    rows, columns = np.nonzero(cv2.erode(masks[1].astype(np.uint8), np.ones((9, 9), np.uint8)))
    clicks = tuple(Click(x + 0.5, y + 0.5) for x, y in list(zip(columns, rows, strict=True))[:400])
    mask = EmbeddedSegmenter().segment(reader, 1, FramePrompts(clicks)).mask
    assert all(mask[int(c.y), int(c.x)] for c in clicks)
    assert iou(mask, masks[1]) > 0.8


def test_a_further_click_computes_one_edit():
    reader, _ = moving_disc(4)
    segmenter = EmbeddedSegmenter()
    clicks = (Click(54, 61), Click(130, 20), Click(20, 100), Click(140, 100))
    segmenter.segment(reader, 1, FramePrompts(clicks[:3]))
    misses = segmenter.features.clicked.misses
    segmenter.segment(reader, 1, FramePrompts(clicks))
    assert segmenter.features.clicked.misses == misses + 1
