"""Clicks on a frame that already has a mask edit that mask where they are, and leave the rest of it alone."""

from __future__ import annotations

import cv2
import numpy as np

from tam_backend.prompts import Click, FramePrompts, Mask
from tam_backend.segmenters.base import Segmentation, Segmenter
from tam_backend.video.base import Reader


def interior_point(mask: Mask) -> Click | None:
    """The point of the mask that is farthest from its border and from the frame's (None for an empty mask)."""
    if not mask.any():
        return None
    padded = np.pad(mask.astype(np.uint8), 1)
    distance = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    row, column = np.unravel_index(int(distance.argmax()), distance.shape)
    return Click(float(column) - 0.5, float(row) - 0.5, positive=True)


def _component_at(mask: Mask, click: Click) -> Mask:
    """The 8-connected component of ``mask`` under the click; all False if the click is not on it."""
    _, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    label = labels[int(click.y), int(click.x)]
    return labels == label if label else np.zeros_like(mask)


def _refined(segmenter: Segmenter, video: Reader, frame: int, mask: Mask) -> Segmentation:
    inside = interior_point(mask)
    if inside is None:
        return Segmentation(mask, 1.0)
    return segmenter.segment(video, frame, FramePrompts(clicks=(inside,)), mask)


def segment_with_prior(
    segmenter: Segmenter, video: Reader, frame: int, prompts: FramePrompts, prior: Mask | None
) -> Segmentation:
    """Segment a frame whose clicks were made while ``prior`` (HxW bool or None) was on the screen.

    Without a prior, or with a box, the prompts speak for themselves. With one, the segmenter is shown the prior by a
    click of ours at its most interior point (and the prior itself, for segmenters that take a mask as a prompt), and
    its answer is taken over just where a click asked for a change: the added piece under a positive click outside the
    prior, the removed piece under a negative click inside it. So one negative click takes a leak away and one positive
    click adds a lost arm, and neither redraws the object.

    A mask to be refined is a prior that nobody objects to: its outline is drawn anew, and then the clicks edit it.
    """
    if prompts.refine and prompts.mask is not None:
        refined = _refined(segmenter, video, frame, prompts.mask)
        if not prompts.clicks:
            return refined
        edited = segment_with_prior(segmenter, video, frame, FramePrompts(clicks=prompts.clicks), refined.mask)
        return Segmentation(edited.mask, min(refined.score, edited.score))
    if prior is None or prompts.box is not None or (prompts.locates and not prior.any()):
        return segmenter.segment(video, frame, prompts)
    changes = [c for c in prompts.clicks if bool(prior[int(c.y), int(c.x)]) != c.positive]
    if not changes:
        return Segmentation(mask=prior, score=1.0)
    negatives = [c for c in prompts.clicks if not c.positive]
    core = prior.copy()
    for click in negatives:  # our click must not land next to what the person has just said is not the object
        radius = max(3, round(0.1 * np.sqrt(prior.sum())))
        disc = cv2.circle(np.zeros(prior.shape, np.uint8), (int(click.x), int(click.y)), radius, 1, -1)
        core &= disc == 0
    ours = interior_point(core)
    if ours is not None:
        answer = segmenter.segment(video, frame, FramePrompts(clicks=(ours, *prompts.clicks)), prior)
    elif prompts.locates:
        answer = segmenter.segment(video, frame, prompts)
    else:  # the negative clicks cover all there was: it goes, and nothing is left to ask the segmenter about
        answer = Segmentation(mask=np.zeros_like(prior), score=1.0)
    mask = prior.copy()
    for click in changes:
        if click.positive:
            mask |= _component_at(answer.mask & ~prior, click)
        else:
            mask &= ~_component_at(prior & ~answer.mask, click)
    return Segmentation(mask=mask, score=answer.score)
