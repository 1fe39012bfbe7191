"""Objects that go out of sight for a while and come back: nothing stays on the background, and they are found again."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tam_backend.prompts import Mask
from tam_backend.propagators.base import SOFT_THRESHOLD
from tam_backend.propagators.embedded import EmbeddedPropagator

from .scenes import RED, ArrayReader, Disc, behind_wall, iou, scene

SPEED, RADIUS = 4, 14


def passes_behind_a_wall(hidden: int, camera: tuple[float, float]) -> tuple[ArrayReader, list[Mask]]:
    speed = SPEED + camera[0]  # relative to the wall
    left = int(30 + RADIUS + 6 * speed)
    right = int(left + 2 * RADIUS + speed * hidden)
    count = int((right + RADIUS - 30) / speed) + 8
    width = int(max(30 + SPEED * count + RADIUS, right)) + 10
    disc = Disc(lambda t: (30 + SPEED * t, 60), RADIUS, RED)
    reader, (masks,) = scene(120, width, count, [disc], camera, key=f"behind-{hidden}-{camera}")
    return behind_wall(reader, masks, left, right, camera)


def leaves_the_picture(hidden: int, camera: tuple[float, float]) -> tuple[ArrayReader, list[Mask]]:
    turn = math.ceil((50 + RADIUS) / SPEED) + hidden / 2
    disc = Disc(lambda t: (50 - SPEED * min(t, 2 * turn - t), 60), RADIUS, RED)
    reader, (masks,) = scene(120, 160, int(2 * turn) - 4, [disc], camera, key=f"leaves-{hidden}-{camera}")
    return reader, masks


@pytest.mark.parametrize("video", [passes_behind_a_wall, leaves_the_picture])
@pytest.mark.parametrize("hidden", [10, 30])
def test_out_of_sight_and_back(video, hidden):
    reader, truth = video(hidden, (1.0, 0.5) if hidden == 10 else (0.0, 0.0))
    propagation = EmbeddedPropagator().begin(reader, {0: truth[0]}, 0)
    results = [propagation.step(frame) for frame in range(1, len(truth))]
    gone = [frame for frame, mask in enumerate(truth) if not mask.any()]
    assert abs(len(gone) - hidden) <= 1
    masks = [truth[0], *(r.soft >= SOFT_THRESHOLD for r in results)]
    assert sum(np.count_nonzero(masks[frame]) for frame in gone) == 0
    assert all(results[frame - 1].quality < 0.5 for frame in gone)
    assert all(iou(masks[frame], truth[frame]) > 0.8 for frame in range(1, gone[0] - 5))
    back = range(gone[-1] + 7, len(truth))  # it is all in sight again
    assert len(back) >= 5
    assert all(iou(masks[frame], truth[frame]) > 0.8 for frame in back)
