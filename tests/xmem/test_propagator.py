from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tam_backend.devices import DeviceError
from tam_backend.engines import Engine
from tam_backend.errors import BadInput
from tam_backend.prompts import FramePrompts, Mask
from tam_backend.propagators.xmem import InputSize, XMem, XMemPropagator
from tam_backend.propagators.xmem.frames import to_input, to_plane, to_soft
from tam_backend.tracking.filestore import FileStore
from tam_backend.tracking.store import pack_state, unpack_state
from tam_backend.tracking.tracker import Anchor, Tracker
from tests.array_video import ArrayVideo
from tests.parity import arrays, image

CONFIG = {
    "max_mid_term_frames": 4,
    "min_mid_term_frames": 2,
    "max_long_term_elements": 60,
    "num_prototypes": 12,
    "mem_every": 2,
}


@pytest.fixture(scope="module")
def video() -> ArrayVideo:
    return ArrayVideo(arrays("video")["frames"])


def mask_of(label: int, frame: int) -> Mask:
    return np.asarray(arrays("video")["masks"][frame] == label)


@pytest.fixture
def encodings(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Grows by the shape of every image that the network encodes."""
    seen: list[tuple[int, ...]] = []
    original = XMem.encode_frame

    def count(self: XMem, image: Tensor) -> object:
        seen.append(tuple(image.shape))
        return original(self, image)

    monkeypatch.setattr(XMem, "encode_frame", count)
    return seen


@pytest.mark.parametrize(("start", "direction"), [(3, 1), (3, -1)])
def test_steps_give_masks_of_the_frame_size(network: XMem, video: ArrayVideo, start: int, direction: int) -> None:
    propagation = XMemPropagator(network, CONFIG).begin(video, {start: mask_of(1, start)}, start)
    for frame in range(start + direction, start + 4 * direction, direction):
        result = propagation.step(frame)
        assert result.soft.shape == (96, 160)
        assert result.soft.dtype == np.uint8
        assert 0 <= result.quality <= 1


def test_the_masks_are_those_of_the_core(network: XMem, video: ArrayVideo) -> None:
    from tam_backend.propagators.xmem import XMemCore

    core = XMemCore(network, CONFIG)
    core.set_all_labels([1])
    core.step(image(0), torch.from_numpy(mask_of(1, 0).astype(np.float32))[None], [1])
    propagation = XMemPropagator(network, CONFIG).begin(video, {0: mask_of(1, 0)}, 0)
    for frame in range(1, 8):
        probability = core.step(image(frame))[1].numpy()
        result = propagation.step(frame)
        assert np.abs(result.soft - 255 * probability).max() < 0.51
        inside = probability >= 0.5
        assert result.quality == pytest.approx((2 * probability[inside] - 1).mean(), abs=1e-4)


def test_a_propagation_that_was_interrupted_goes_on_bit_for_bit_alike(network: XMem, video: ArrayVideo) -> None:
    anchors = {2: mask_of(1, 2), 20: mask_of(1, 20)}
    whole = XMemPropagator(network, CONFIG).begin(video, anchors, 2)
    expected = []
    for frame in range(3, 16):
        expected.append(whole.step(frame))
        if frame == 9:
            blob = pack_state(frame, whole.state())
    frame, state = unpack_state(blob)
    again = XMemPropagator(network, CONFIG).begin(video, anchors, frame, state)
    for frame, before in zip(range(10, 16), expected[7:], strict=True):
        result = again.step(frame)
        assert np.array_equal(result.soft, before.soft)
        assert result.quality == before.quality


def test_a_tracker_that_is_stopped_goes_on_byte_for_byte_alike(
    network: XMem, video: ArrayVideo, tmp_path: Path
) -> None:
    """Through files, at every fifth frame, with a propagator of its own each time."""
    anchors = {4: Anchor(FramePrompts(mask=mask_of(1, 4))), 20: Anchor(FramePrompts(mask=mask_of(1, 20)))}

    def tracker(store: FileStore) -> Tracker:
        engine = Engine("test", "1", segmenter=None, propagator=XMemPropagator(network, CONFIG))  # type: ignore[arg-type]
        return Tracker(engine, video, range(26), store)

    with tracker(FileStore(tmp_path / "whole")) as whole:
        expected = {t.frame: (t.soft.tobytes(), t.quality) for t in whole.track(anchors, 4)}
    store = FileStore(tmp_path / "parts")
    for stop in (5, 10, 15, 20, 26):
        with tracker(store) as part:
            frames = part.track(anchors, 4)
            found = {t.frame: (t.soft.tobytes(), t.quality) for t in itertools.islice(frames, stop)}
            frames.close()
    assert found == expected


def test_a_quick_device_stores_its_state_less_often(network: XMem, monkeypatch: pytest.MonkeyPatch) -> None:
    assert XMemPropagator(network).state_every == 16
    monkeypatch.setattr(XMem, "device", torch.device("cuda"))
    assert XMemPropagator(network, amp=False).state_every == 64


def test_the_other_anchor_is_permanent_memory(network: XMem, video: ArrayVideo) -> None:
    propagation = XMemPropagator(network, CONFIG).begin(video, {0: mask_of(1, 0), 9: mask_of(1, 9)}, 0)
    alone = XMemPropagator(network, CONFIG).begin(video, {0: mask_of(1, 0)}, 0)
    assert not np.array_equal(propagation.step(1).soft, alone.step(1).soft)
    memory = propagation._core.memory if propagation._core else None
    assert memory is not None
    assert memory.permanent == 60


def test_objects_and_directions_share_what_is_seen_of_a_frame(
    network: XMem, video: ArrayVideo, encodings: list[tuple[int, ...]]
) -> None:
    propagator = XMemPropagator(network, CONFIG)
    for label in (1, 2):
        forward = propagator.begin(video, {3: mask_of(label, 3)}, 3)
        backward = propagator.begin(video, {3: mask_of(label, 3)}, 3)
        for step in range(1, 4):
            forward.step(3 + step)
            backward.step(3 - step)
    assert len(encodings) == 7


def test_the_cache_is_bounded(network: XMem, video: ArrayVideo, encodings: list[tuple[int, ...]]) -> None:
    propagator = XMemPropagator(network, CONFIG, cache_bytes=4_000_000)
    propagation = propagator.begin(video, {0: mask_of(1, 0)}, 0)
    for frame in range(1, 6):
        propagation.step(frame)
    assert 0 < propagator.frames.nbytes <= 4_000_000
    held = sum(e.nbytes for e in propagator.frames._values.values())
    for seen in propagator.frames._values.values():
        encoding = seen.encoding
        tensors = [seen.image, encoding.key, encoding.shrinkage, encoding.selection, encoding.f16, *encoding.terms]
        assert seen.nbytes == sum(t.nbytes for t in tensors)
    assert held == propagator.frames.nbytes


def test_an_object_that_no_anchor_shows_is_nowhere(
    network: XMem, video: ArrayVideo, encodings: list[tuple[int, ...]]
) -> None:
    nothing = np.zeros((96, 160), bool)
    propagation = XMemPropagator(network, CONFIG).begin(video, {0: nothing, 9: nothing}, 0)
    result = propagation.step(1)
    assert not result.soft.any()
    assert result.quality == 1.0
    again = XMemPropagator(network, CONFIG).begin(video, {0: nothing, 9: nothing}, 1, propagation.state())
    assert not again.step(2).soft.any()
    assert encodings == []


def test_large_frames_are_reduced_and_masks_enlarged_again(
    network: XMem, video: ArrayVideo, encodings: list[tuple[int, ...]]
) -> None:
    propagator = XMemPropagator(network, CONFIG, InputSize(short_side=48))
    result = propagator.begin(video, {0: mask_of(1, 0)}, 0).step(1)
    assert result.soft.shape == (96, 160)
    assert set(encodings) == {(3, 48, 80)}


@pytest.mark.parametrize(
    ("size", "seen"),
    [
        ((64, 64), (48, 48)),
        ((33, 57), (48, 64)),  # not enlarged: padded to multiples of 16
        ((2160, 3840), (48, 96)),
        ((1920, 1080), (96, 48)),
        ((40, 1280), (16, 400)),  # a strip: held to the largest area
        ((9, 20), (16, 32)),
    ],
)
def test_frames_of_any_size(
    network: XMem, encodings: list[tuple[int, ...]], size: tuple[int, int], seen: tuple[int, int]
) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, *size, 3), np.uint8)
    mask = np.zeros(size, bool)
    mask[size[0] // 4 : size[0] // 2, size[1] // 4 : size[1] // 2] = True
    propagation = XMemPropagator(network, CONFIG, InputSize(48, 6400)).begin(ArrayVideo(frames), {0: mask}, 0)
    for frame in (1, 2):
        assert propagation.step(frame).soft.shape == size
    assert set(encodings) == {(3, *seen)}


class Failing:
    """Makes the decoder fail ``times`` times from the ``after``-th call on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: Exception, after: int, times: int) -> None:
        original = XMem.segment
        calls = iter(range(1_000_000))

        def segment(network: XMem, *args: object) -> object:
            if after <= next(calls) < after + times:
                raise error
            return original(network, *args)

        monkeypatch.setattr(XMem, "segment", segment)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("MPS backend out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"),
    ],
)
def test_out_of_memory_is_answered_with_a_smaller_size(
    network: XMem, video: ArrayVideo, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    small = XMemPropagator(network, CONFIG, InputSize(short_side=68)).begin(video, {4: mask_of(1, 4)}, 4)
    expected = [small.step(frame) for frame in range(3, -1, -1)]
    Failing(monkeypatch, error, after=2, times=1)
    propagation = XMemPropagator(network, CONFIG).begin(video, {4: mask_of(1, 4)}, 4)
    results = [propagation.step(frame) for frame in range(3, -1, -1)]
    assert not np.array_equal(results[1].soft, expected[1].soft)  # handed out before memory ran out
    for ours, theirs in zip(results[2:], expected[2:], strict=True):
        assert np.array_equal(ours.soft, theirs.soft)
    assert propagation.state()["size"].tolist() == [68, 113]


def test_out_of_memory_after_the_step_itself(network: XMem, video: ArrayVideo, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the probabilities are enlarged to the frame, the core has moved on already."""
    small = XMemPropagator(network, CONFIG, InputSize(short_side=68)).begin(video, {4: mask_of(1, 4)}, 4)
    expected = [small.step(frame).soft for frame in (3, 2)]
    errors = [torch.OutOfMemoryError("CUDA out of memory")]

    def fail_once(*args: Any) -> Any:
        if errors:
            raise errors.pop()
        return to_soft(*args)

    monkeypatch.setattr("tam_backend.propagators.xmem.propagator.to_soft", fail_once)
    propagation = XMemPropagator(network, CONFIG).begin(video, {4: mask_of(1, 4)}, 4)
    for frame, soft in zip((3, 2), expected, strict=True):
        assert np.array_equal(propagation.step(frame).soft, soft)


def test_a_smaller_size_survives_a_resume(network: XMem, video: ArrayVideo, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        Failing(patch, MemoryError(), after=1, times=1)
        propagation = XMemPropagator(network, CONFIG).begin(video, {0: mask_of(1, 0)}, 0)
        for frame in (1, 2):
            propagation.step(frame)
    again = XMemPropagator(network, CONFIG).begin(video, {0: mask_of(1, 0)}, 2, propagation.state())
    assert np.array_equal(again.step(3).soft, propagation.step(3).soft)
    Failing(monkeypatch, MemoryError(), after=0, times=1)
    with pytest.raises(DeviceError, match="not enough memory on cpu for this video, even at 113x68"):
        again.step(4)


def test_a_device_that_is_full_for_good_fails_with_advice(
    network: XMem, video: ArrayVideo, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        Failing(patch, MemoryError(), after=0, times=2)
        propagator = XMemPropagator(network, CONFIG)
        propagation = propagator.begin(video, {0: mask_of(1, 0)}, 0)
        with pytest.raises(DeviceError, match=r"even at 113x68\. Choose a smaller size \(TAM_XMEM_SHORT_SIDE\)"):
            propagation.step(1)
        assert propagator.frames.nbytes == 0
    assert propagator.begin(video, {0: mask_of(1, 0)}, 0).step(1).soft.shape == (96, 160)  # others live on


def test_other_errors_are_not_taken_for_a_lack_of_memory(
    network: XMem, video: ArrayVideo, monkeypatch: pytest.MonkeyPatch
) -> None:
    Failing(monkeypatch, RuntimeError("shapes do not match"), after=0, times=1)
    propagation = XMemPropagator(network, CONFIG).begin(video, {0: mask_of(1, 0)}, 0)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        propagation.step(1)


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        ((480, 854), (480, 854)),
        ((64, 64), (64, 64)),
        ((240, 320), (240, 320)),
        ((1080, 1920), (480, 853)),
        ((1920, 1080), (853, 480)),
        ((2160, 3840), (480, 853)),
        ((480, 7680), (200, 3200)),
        ((10_000_000, 1), (40_000, 1)),
        ((12, 12), (12, 12)),
    ],
)
def test_frames_are_reduced_and_never_enlarged(frame: tuple[int, int], expected: tuple[int, int]) -> None:
    assert InputSize().fit(*frame) == expected


def test_input_sizes_that_make_no_sense_are_named() -> None:
    with pytest.raises(BadInput, match="short_side is 8, it must be at least 16"):
        InputSize(short_side=8)


def test_input_is_normalised_as_the_references_are() -> None:
    frame = arrays("video")["frames"][0]
    assert torch.allclose(to_input(frame, (96, 160), torch.device("cpu")), image(0), atol=1e-6)


def test_a_reduced_mask_holds_the_covered_share() -> None:
    mask = np.zeros((4, 4), bool)
    mask[0, 0] = mask[2:, 2:] = True
    assert to_plane(mask, (2, 2), torch.device("cpu")).tolist() == [[[0.25, 0], [0, 1]]]


def test_probabilities_are_enlarged_before_they_are_rounded() -> None:
    probability = torch.tensor([[0.0, 0.5], [0.502, 1.0]])
    assert to_soft(probability, (2, 2)).tolist() == [[0, 128], [128, 255]]
    large = to_soft(probability, (8, 8))
    assert large.shape == (8, 8)
    assert len(np.unique(large)) > 8
