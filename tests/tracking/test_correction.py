"""Clicks on a frame that has a mask: they edit it where they are, and only there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from tam_backend.prompts import Box, Click, FramePrompts, Mask
from tam_backend.segmenters.base import Segmentation
from tam_backend.tracking.correction import interior_point, segment_with_prior
from tests.tracking.fakes import DiscSegmenter, MemoryReader, disc, memory_video, relaxed

SHAPE = (40, 60)

# A body with an arm, and a stranger beside the body. Regions of the picture, by their grey value.
BODY, ARM, STRANGER = 1, 2, 3
PICTURE = np.zeros(SHAPE, np.uint8)
PICTURE[10:30, 10:30] = BODY
PICTURE[18:22, 30:42] = ARM
PICTURE[22:36, 30:50] = STRANGER
REGIONS = {region: region == PICTURE for region in (BODY, ARM, STRANGER)}


class RegionSegmenter:
    """Takes the regions of the picture under positive clicks, without those under negative ones."""

    name = "regions"

    def __init__(self) -> None:
        self.asked: list[FramePrompts] = []
        self.priors: list[Mask | None] = []

    def segment(self, video: Any, frame: int, prompts: FramePrompts, prior: Mask | None = None) -> Segmentation:
        self.asked.append(prompts)
        self.priors.append(prior)
        picture = video[frame][..., 0]
        mask = np.zeros(picture.shape, bool)
        for positive in (True, False):
            for click in prompts.clicks:
                if click.positive == positive:
                    mask[picture == picture[int(click.y), int(click.x)]] = positive
        return Segmentation(mask=mask, score=0.7)


# The body as somebody's mask has it: frayed at its edges.
FRAYED = REGIONS[BODY] & (np.random.default_rng(0).random(SHAPE) < 0.7)
FRAYED[12:28, 12:28] = True

VIDEO = MemoryReader(np.repeat(PICTURE[None, :, :, None], 3, axis=3))


def edit(prior: Mask | None, *clicks: Click) -> Segmentation:
    return segment_with_prior(RegionSegmenter(), VIDEO, 0, FramePrompts(clicks=clicks), prior)


def test_a_negative_click_takes_the_leak_away_and_nothing_else():
    edited = edit(FRAYED | REGIONS[STRANGER], Click(40, 30, positive=False))
    assert np.array_equal(edited.mask, FRAYED)
    assert edited.score == 0.7


def test_a_positive_click_adds_the_lost_part_and_nothing_else():
    edited = edit(FRAYED, Click(38, 20))
    assert np.array_equal(edited.mask & ~REGIONS[BODY], REGIONS[ARM])
    # Frayed edges that touch the arm are filled with it; everywhere else the mask is as it was.
    assert np.array_equal(edited.mask[:, :27], FRAYED[:, :27])
    assert (edited.mask | FRAYED).sum() == edited.mask.sum()


def test_several_clicks_at_once():
    edited = edit(REGIONS[BODY] | REGIONS[STRANGER], Click(38, 20), Click(45, 33, positive=False), Click(12, 12))
    assert np.array_equal(edited.mask, REGIONS[BODY] | REGIONS[ARM])


def test_clicks_that_agree_with_the_mask_leave_it_as_it_is():
    segmenter = RegionSegmenter()
    prompts = FramePrompts(clicks=(Click(20, 20), Click(40, 20, positive=False)))
    edited = segment_with_prior(segmenter, VIDEO, 0, prompts, REGIONS[BODY])
    assert np.array_equal(edited.mask, REGIONS[BODY])
    assert segmenter.asked == []


def test_the_segmenter_gets_the_mask_that_is_corrected_and_only_then():
    segmenter = RegionSegmenter()
    segment_with_prior(segmenter, VIDEO, 0, FramePrompts(clicks=(Click(38, 20),)), REGIONS[BODY])
    segment_with_prior(segmenter, VIDEO, 0, FramePrompts(clicks=(Click(38, 20),)), None)
    shown, nothing = segmenter.priors
    assert np.array_equal(shown, REGIONS[BODY])
    assert nothing is None


def test_the_segmenter_is_shown_the_mask_by_a_click_away_from_the_negative_ones():
    segmenter = RegionSegmenter()
    negative = Click(20, 20, positive=False)  # the very middle of the mask
    segment_with_prior(segmenter, VIDEO, 0, FramePrompts(clicks=(negative,)), REGIONS[BODY])
    [asked] = segmenter.asked
    ours, *given_clicks = asked.clicks
    assert given_clicks == [negative]
    assert ours.positive
    assert REGIONS[BODY][int(ours.y), int(ours.x)]
    assert np.hypot(ours.x - 20, ours.y - 20) > 2


@pytest.mark.parametrize("prior", [None, np.zeros(SHAPE, bool)])
def test_without_a_mask_the_clicks_speak_for_themselves(prior):
    assert np.array_equal(edit(prior, Click(20, 20)).mask, REGIONS[BODY])


def test_negative_clicks_on_an_empty_mask_leave_it_empty():
    assert not edit(np.zeros(SHAPE, bool), Click(20, 20, positive=False)).mask.any()


def test_a_box_starts_anew():
    segmenter, box = DiscSegmenter(), Box(3, 4, 9, 11)
    found = segment_with_prior(segmenter, memory_video(1), 0, FramePrompts(box=box), disc(20, 10, 5))
    assert np.array_equal(np.argwhere(found.mask).min(0), [4, 3])
    assert found.mask.sum() == 42


def test_a_speck_that_is_clicked_away_is_gone():
    """There is no room beside the negative click for one of ours: the segmenter must not be given a contradiction."""
    speck = np.zeros(SHAPE, bool)
    speck[20:22, 20:22] = True
    assert not edit(speck, Click(20.5, 20.5, positive=False)).mask.any()
    moved = edit(speck, Click(20.5, 20.5, positive=False), Click(40, 30))
    assert np.array_equal(moved.mask, REGIONS[STRANGER])


def test_a_mask_is_refined_by_a_click_in_its_middle():
    rough = REGIONS[BODY].copy()
    rough[:, :14] = False
    segmenter = RegionSegmenter()
    refined = segment_with_prior(segmenter, VIDEO, 0, FramePrompts(mask=rough, refine=True), None)
    assert np.array_equal(refined.mask, REGIONS[BODY])
    [prior] = segmenter.priors
    assert np.array_equal(prior, rough)
    prompts = FramePrompts((Click(38, 20),), mask=rough, refine=True)
    edited = segment_with_prior(RegionSegmenter(), VIDEO, 0, prompts, None).mask
    assert np.array_equal(edited, REGIONS[BODY] | REGIONS[ARM])


def test_an_empty_mask_has_no_outline_to_refine():
    prompts = FramePrompts(mask=np.zeros(SHAPE, bool), refine=True)
    assert not segment_with_prior(RegionSegmenter(), VIDEO, 0, prompts, None).mask.any()


masks = hnp.arrays(bool, (12, 16))
clicks = st.lists(
    st.builds(
        Click, st.integers(0, 15).map(lambda x: x + 0.5), st.integers(0, 11).map(lambda y: y + 0.5), st.booleans()
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda c: (c.x, c.y),
)


@settings(relaxed, max_examples=300)
@given(masks, clicks)
def test_whatever_the_mask_and_the_clicks(prior, clicks):
    """The result agrees with every click, and differs from the mask only in pieces that hold a click."""
    prompts = FramePrompts(clicks=tuple(clicks))
    segmenter = DiscSegmenter()
    video = MemoryReader(np.zeros((1, 12, 16, 3), np.uint8))
    if not prompts.locates and not prior.any():
        assert not segment_with_prior(segmenter, video, 0, prompts, prior).mask.any()
        return
    mask = segment_with_prior(segmenter, video, 0, prompts, prior).mask
    for click in clicks:
        assert mask[int(click.y), int(click.x)] == click.positive
    for _, asked in segmenter.asked:
        on = {(int(c.x), int(c.y)) for c in asked.clicks if c.positive}
        off = {(int(c.x), int(c.y)) for c in asked.clicks if not c.positive}
        assert not on & off, "the segmenter is given a contradiction"
    if prior.any():
        for changed, positive in ((mask & ~prior, True), (prior & ~mask, False)):
            pieces, count = ndimage.label(changed, structure=np.ones((3, 3)))
            touched = {pieces[int(c.y), int(c.x)] for c in clicks if c.positive == positive}
            assert set(range(1, count + 1)) <= touched


@relaxed
@given(masks)
def test_the_interior_point_is_the_farthest_from_every_border(mask):
    point = interior_point(mask)
    if not mask.any():
        assert point is None
        return
    assert point is not None
    assert point.positive
    outside = np.argwhere(~np.pad(mask, 1)) - 1
    inside = np.argwhere(mask)
    distances = np.sqrt(((inside[:, None] - outside[None]) ** 2).sum(-1)).min(1)
    here = distances[(inside == [int(point.y), int(point.x)]).all(1)]
    assert here == pytest.approx(distances.max(), abs=1e-3)
    assert (point.x % 1, point.y % 1) == (0.5, 0.5)
