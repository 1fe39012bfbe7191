"""Every frame, read in any order, is bit for bit the one of a decoding from beginning to end."""

from __future__ import annotations

import random

import numpy as np
import pytest

from tam_backend.video import open_video
from tests.video.conftest import KINDS
from tests.video.make import number_of, sequential


@pytest.mark.parametrize("name", KINDS)
def test_frames_are_those_of_sequential_decoding(video, name):
    kind, path = KINDS[name], video(name)
    expected = sequential(path)
    numbers = [number_of(frame) for frame in expected]
    assert len(expected) == kind.frames
    assert numbers == list(range(numbers[0], numbers[0] + kind.frames))

    with open_video(path) as reader:
        assert len(reader) == kind.frames
        assert (reader.height, reader.width, 3) == expected[0].shape
        assert reader.warning is None
        # The index must not depend on whether the packets were believed.
        with open_video(path, verify=True) as verified:
            assert len(verified) == kind.frames
            assert [verified.time(i) for i in range(kind.frames)] == [reader.time(i) for i in range(kind.frames)]

        for frame, truth in zip(reader, expected, strict=True):
            np.testing.assert_array_equal(frame, truth)
        assert reader.packets_decoded <= kind.frames + (18 if name == "edit list" else 0)
        assert reader.seeks == 0

        for frame, truth in zip(reversed(reader.clone()), reversed(expected), strict=True):
            np.testing.assert_array_equal(frame, truth)

    # Three small frames fit into this cache.
    order = random.Random(name).sample(range(kind.frames), kind.frames)
    with open_video(path, cache_bytes=30_000) as small:
        for i in order[:25]:
            np.testing.assert_array_equal(small[i], expected[i])
        for i in range(kind.frames - 1, kind.frames - 16, -1):
            np.testing.assert_array_equal(small[i], expected[i])
        for i in (0, kind.frames - 1, 0):
            np.testing.assert_array_equal(small[i], expected[i])


@pytest.mark.parametrize("name", KINDS)
def test_any_frame_costs_at_most_its_group(video, name):
    """What is decoded in front of a frame is its group, and behind it only what the decoder holds back."""
    kind = KINDS[name]
    held_back = 3
    with open_video(video(name), threads=1, cache_bytes=1) as reader:
        for i in random.Random(1).sample(range(kind.frames), 20):
            before = reader.packets_decoded
            reader[i]
            assert reader.packets_decoded - before <= kind.group + held_back


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.group < 48])
def test_walking_backward_decodes_every_group_once(video, name):
    kind = KINDS[name]
    with open_video(video(name), threads=1) as reader:
        assert sum(1 for _ in reversed(reader)) == kind.frames
        # Closed groups of 12: each once, and what the decoder holds back. In open groups the pictures that lead a group
        # on the screen need the group before, so that up to two are decoded for one.
        assert reader.packets_decoded <= (4 * (12 + 3) if kind.group == 12 else 2 * 48)


def test_a_group_larger_than_the_cache_is_decoded_in_stretches(video):
    path = video("one long group")
    expected = sequential(path)
    budget = 12 * 96 * 64 * 2  # of YUV 4:2:0 frames, with the decoder's own padding
    with open_video(path, threads=1, cache_bytes=budget) as reader:
        for i in reversed(range(48)):
            np.testing.assert_array_equal(reader[i], expected[i])
            assert reader.cached_bytes <= budget
        stretches = reader.seeks
        assert 2 <= stretches <= 8
        assert reader.packets_decoded < 48 * (stretches + 1)


def test_going_on_forward_after_a_jump_does_not_seek(video):
    with open_video(video("closed groups"), threads=1, cache_bytes=1) as reader:
        reader[14]
        reader[17]
        reader[18]
        reader[23]
        reader[24]  # the first frame of the next group
        assert reader.seeks == 0
        assert reader.packets_decoded <= 24 - 12 + 1 + 3
        before = reader.packets_decoded
        reader[47]  # skips the group between
        assert reader.packets_decoded - before <= 12
        assert reader.seeks == 1
