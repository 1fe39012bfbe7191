"""What a person would do who knows the true mask: where they click, which box they draw."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from tam_backend.prompts import Box, Click, Mask
from tam_backend.tracking.correction import interior_point


def next_click(mask: Mask | None, truth: Mask, void: Mask | None = None) -> Click | None:
    """The next click: the most interior point of the largest error region. None if nothing is wrong.

    mask: what is on the screen, HxW bool; None or empty at the first click, which so becomes the most interior point of
    the object's largest part. Missed and wrongly covered regions are told apart (8-connected, the larger one counts);
    they get a positive and a negative click. void: pixels that nobody judges.
    """
    wrong = truth.copy() if mask is None else mask ^ truth
    if void is not None:
        wrong &= ~void
    regions = [r for r in (_largest(wrong & truth), _largest(wrong & ~truth)) if r is not None]
    if not regions:
        return None
    region = max(regions, key=np.count_nonzero)  # the first one of equals: what was missed
    click = interior_point(region)
    assert click is not None
    return replace(click, positive=bool(truth[int(click.y), int(click.x)]))


def box_around(mask: Mask) -> Box:
    """The smallest box that holds a mask (HxW bool, not empty)."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return Box(float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))


def _largest(region: Mask) -> Mask | None:
    _, labels, stats, _ = cv2.connectedComponentsWithStats(region.astype(np.uint8), connectivity=8)
    if len(stats) < 2:
        return None
    return np.asarray(labels == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA])))
