"""XMem's part in step 3: its affinities on demand, masks that are put right before they enter memory, and cuts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from tam_backend.propagators.base import Propagated
from tam_backend.propagators.probes import Projected, ReviewedPropagator
from tam_backend.propagators.xmem import XMem, XMemCore, XMemPropagator
from tam_backend.propagators.xmem.memory import Memory
from tam_backend.propagators.xmem.network import FrameEncoding
from tam_backend.propagators.xmem.probing import PERMANENT, ProbeBook, affinity, cell_shares, place
from tam_backend.tracking.store import pack_state, unpack_state
from tests.array_video import ArrayVideo
from tests.parity import arrays, image
from tests.xmem.test_propagator import CONFIG, mask_of

State = Mapping[str, npt.NDArray[Any]]


@pytest.fixture(scope="module")
def video() -> ArrayVideo:
    return ArrayVideo(arrays("video")["frames"])


def plane(label: int, frame: int) -> Tensor:
    return torch.from_numpy(mask_of(label, frame).astype(np.float32))[None]


def same(a: State, b: State) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def refuse(seen: Propagated, project: Callable[[], Sequence[Projected]]) -> None:
    project()


def dense_affinity(memory: Memory, frame: FrameEncoding, elements: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """The whole matrix by the paper's formula, in float64, then the columns that were asked for."""
    key, shrinkage = (memory.table(n).double().numpy() for n in ("key", "shrinkage"))
    query, selection = frame.key.double().numpy(), frame.selection.double().numpy()
    distance = (selection[:, None] * (key[None] - query[:, None]) ** 2).sum(2)
    similarity = -shrinkage[:, 0] * distance / np.sqrt(key.shape[1])
    weights = np.zeros_like(similarity)
    for row, values in zip(weights, similarity, strict=True):
        top = np.argsort(-values)[: memory.config.top_k]
        power = np.exp(values[top] - values[top].max())
        row[top] = power / power.sum()
    return weights[:, elements]


@pytest.mark.parametrize("frames", [3, 14])  # working memory alone, and with prototypes
def test_affinities_are_those_of_a_dense_read(network: XMem, frames: int) -> None:
    core = XMemCore(network, CONFIG)
    core.set_all_labels([1])
    core.remember(image(20), plane(1, 20))
    core.step(image(0), plane(1, 0))
    for number in range(1, frames):
        core.step(image(number))
    memory = core.memory
    assert memory is not None
    assert (memory.long > 0) == (frames == 14)
    seen = core.encode(image(frames))
    elements = np.arange(0, len(memory), 7)
    expected = dense_affinity(memory, seen, elements)
    assert expected.max() > 0.05
    assert np.abs(affinity(memory, seen, 1, elements) - expected).max() < 1e-4


def test_probes_are_cells_of_frames_that_are_still_there(network: XMem) -> None:
    core = XMemCore(network, CONFIG)
    core.set_all_labels([1])
    core.remember(image(20), plane(1, 20))
    core.step(image(0), plane(1, 0))
    memory = core.memory
    assert memory is not None
    shares = {number: cell_shares(plane(1, frame)) for number, frame in ((PERMANENT, 20), (0, 0), (99, 5))}
    elements, positive, frames = ProbeBook(shares).probes(memory)
    assert set(frames) == {PERMANENT, 0}  # there is no frame 99 in memory
    assert positive.any()
    assert not positive.all()
    for element, side, number in zip(elements, positive, frames, strict=True):
        assert (element < memory.permanent) == (number == PERMANENT)
        share = shares[number].ravel()[element - (0 if number == PERMANENT else memory.permanent)]
        assert share >= 0.98 if side else share <= 0.02


def test_a_place_is_where_the_affinity_is() -> None:
    column = np.zeros((6, 10), np.float32)
    column[2, 3], column[2, 4] = 0.6, 0.6
    assert place(column.ravel(), (6, 10)) == pytest.approx((2.5, 4.0, 1.0))
    column[5, 9] = 1.2
    column[2, 3] += 0.7
    assert place(column.ravel(), (6, 10))[2] == pytest.approx(1.9 / 3.1)
    assert place(np.zeros(60, np.float32), (6, 10))[2] == 0


def test_a_review_that_refuses_changes_nothing(network: XMem, video: ArrayVideo) -> None:
    plain, reviewed = (XMemPropagator(network, CONFIG).begin(video, {0: mask_of(1, 0)}, 0) for _ in range(2))
    for frame in range(1, 9):
        a, b = plain.step(frame), reviewed.step(frame, refuse)
        assert np.array_equal(a.soft, b.soft)
        assert a.quality == b.quality
    rest = {n: v for n, v in reviewed.state().items() if not n.startswith("probes.")}
    assert same(plain.state(), rest)


@pytest.mark.parametrize("every", [-1, 3])
def test_an_accepted_mask_is_remembered_as_if_it_had_been_given(network: XMem, every: int) -> None:
    config = {**CONFIG, "deep_update_every": every, "mem_every": 4}
    given, reviewed = XMemCore(network, config), XMemCore(network, config)
    for core in (given, reviewed):
        core.set_all_labels([1])
        core.step(image(0), plane(1, 0))
        core.step(image(1))
    expected = given.step(image(2), plane(1, 2))
    assert torch.equal(reviewed.step(image(2), review=lambda seen, p: plane(1, 2)), expected)
    assert reviewed.remembered == 2
    assert same(reviewed.state(), given.state())
    assert torch.equal(reviewed.step(image(3)), given.step(image(3)))


def replace_on(frame: int, shown: list[Sequence[Projected]]) -> Callable[..., Propagated | None]:
    """A review that gives the true mask on this frame."""
    at = [0]

    def review(seen: Propagated, project: Callable[[], Sequence[Projected]]) -> Propagated | None:
        at[0] += 1
        shown.append(project())
        return Propagated(mask_of(1, frame) * np.uint8(255), 0.95) if at[0] == frame else None

    return review


def test_a_replaced_mask_resumes_bit_for_bit(network: XMem, video: ArrayVideo) -> None:
    anchors = {0: mask_of(1, 0), 20: mask_of(1, 20)}
    whole = XMemPropagator(network, CONFIG).begin(video, anchors, 0)
    assert isinstance(XMemPropagator(network, CONFIG), ReviewedPropagator)
    shown: list[Sequence[Projected]] = []
    review = replace_on(5, shown)
    expected = []
    for frame in range(1, 12):
        expected.append(whole.step(frame, review))
        if frame == 7:
            blob = pack_state(frame, whole.state())
    assert np.array_equal(expected[4].soft, mask_of(1, 5) * np.uint8(255))
    assert {p.source for p in shown[-1]} >= {0, 20}
    assert all(0 <= p.x < video.width and 0 <= p.y < video.height for p in shown[-1])
    frame, state = unpack_state(blob)
    again = XMemPropagator(network, CONFIG).begin(video, anchors, frame, state)
    later: list[Sequence[Projected]] = []
    for number in range(8, 12):
        result = again.step(number, replace_on(0, later))
        assert np.array_equal(result.soft, expected[number - 1].soft)
    assert later == shown[7:]
    unreviewed = XMemPropagator(network, CONFIG).begin(video, anchors, 0)
    plain = [unreviewed.step(frame) for frame in range(1, 12)]
    assert np.array_equal(plain[3].soft, expected[3].soft)
    assert not np.array_equal(plain[5].soft, expected[5].soft)  # the replaced mask is in memory at once


def test_a_cut_ends_sensory_memory_alone(network: XMem, video: ArrayVideo) -> None:
    propagation = XMemPropagator(network, CONFIG).begin(video, {0: mask_of(1, 0)}, 0)
    for frame in range(1, 4):
        propagation.step(frame)
    before = dict(propagation.state())
    propagation.cut()
    core = propagation._core
    assert core is not None
    assert before["core.hidden.1"].any()
    core.forget_sensory()
    after = core.state()
    assert not after["hidden.1"].any()
    assert all(np.array_equal(after[n], before[f"core.{n}"]) for n in after if n != "hidden.1")
    # after a cut the next frame is segmented with an empty sensory memory; a propagation without the cut differs
    frame, state = unpack_state(pack_state(3, before))
    plain = XMemPropagator(network, CONFIG).begin(video, {0: mask_of(1, 0)}, frame, state)
    cut = XMemPropagator(network, CONFIG).begin(video, {0: mask_of(1, 0)}, frame, state)
    cut.cut()
    assert not np.array_equal(plain.step(4).soft, cut.step(4).soft)
    assert list(cut.state()["cuts"]) == [4]
