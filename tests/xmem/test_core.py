from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tam_backend.errors import BadInput
from tam_backend.propagators.xmem import XMem, XMemCore
from tests.parity import image, masks

CONFIG = {
    "max_mid_term_frames": 4,
    "min_mid_term_frames": 2,
    "max_long_term_elements": 40,
    "num_prototypes": 12,
    "mem_every": 2,
}
CROP = (48, 64)


def squares(count: int, size: tuple[int, int]) -> Tensor:
    """``count`` masks that do not overlap."""
    planes = torch.zeros(count, *size)
    for i in range(count):
        planes[i, :, i * size[1] // count : (i + 1) * size[1] // count - 1] = 1
    return planes


def random_image(size: tuple[int, int], seed: int = 0) -> Tensor:
    return torch.randn(3, *size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [(64, 64), (33, 65), (97, 31), (16, 256), (7, 5), (1, 40)])
def test_any_size_gives_probabilities_of_that_size(network: XMem, size: tuple[int, int]) -> None:
    core = XMemCore(network, CONFIG)
    core.set_all_labels([1])
    core.step(random_image(size), (torch.rand(1, *size) > 0.5).float())
    for index in range(6):
        result = core.step(random_image(size, index))
        assert result.shape == (2, *size)
        assert torch.allclose(result.sum(0), torch.ones(size), atol=1e-5)
        assert result.min() >= 0


def test_ten_objects_that_come_and_go(network: XMem) -> None:
    core = XMemCore(network, CONFIG)
    for index in range(10):
        labels = list(range(1, index + 2))
        core.set_all_labels(labels)
        result = core.step(image(index, CROP), squares(index + 1, CROP), labels[-1:])
        assert result.shape == (index + 2, *CROP)
    for index, gone in enumerate((1, 5, 10)):
        core.set_all_labels([label for label in core.labels if label != gone])
        result = core.step(image(10 + index, CROP))
        assert result.shape == (len(core.labels) + 1, *CROP)
        assert core.memory is not None
        assert sorted(core.memory.labels) == core.labels
    assert torch.allclose(result.sum(0), torch.ones(CROP), atol=1e-5)


def test_the_order_of_labels_is_the_order_of_planes(network: XMem) -> None:
    results = []
    for labels, later in (([1, 2], [1, 2]), ([1, 2], [2, 1]), ([7, 3], [7, 3])):
        core = XMemCore(network, CONFIG)
        core.set_all_labels(labels)
        core.step(image(0), masks(0, [1, 2], [1, 2]))
        core.set_all_labels(later)
        results.append(core.step(image(1)))
    plain, swapped, renamed = results
    assert torch.allclose(plain[[0, 2, 1]], swapped, atol=1e-5)
    assert torch.equal(plain, renamed)


def test_removing_an_object_leaves_the_memory_of_the_others(network: XMem) -> None:
    core = XMemCore(network, {**CONFIG, "mem_every": 1})
    core.set_all_labels([1, 2])
    for index in range(3):
        core.step(image(index), masks(0, [1, 2], [1, 2]) if index == 0 else None)
    assert core.memory is not None
    before = core.memory.nbytes
    core.set_all_labels([2])
    assert core.memory.nbytes == {None: before[None], 2: before[2]}
    assert not any("value.1" in name or name == "hidden.1" for name in core.state())
    assert core.step(image(3)).shape == (2, 96, 160)


@pytest.mark.parametrize("cut", [0, 3, 9])
def test_a_core_restored_from_its_state_goes_on_bit_for_bit_alike(network: XMem, cut: int) -> None:
    def event(core: XMemCore, index: int) -> Tensor:
        if index in (0, 4):
            core.set_all_labels([1] if index == 0 else [1, 2])
            return core.step(image(index, CROP), squares(len(core.labels), CROP), [1] if index == 0 else [2])
        return core.step(image(index, CROP))

    whole = XMemCore(network, CONFIG)
    whole.set_all_labels([1])
    whole.remember(image(12, CROP), squares(1, CROP))
    expected = []
    for index in range(14):
        expected.append(event(whole, index))
        if index == cut:
            state = whole.state()
    again = XMemCore(network, CONFIG)
    again.restore(state)
    for index in range(cut + 1, 14):
        assert torch.equal(event(again, index), expected[index])
    assert whole.memory is not None
    assert whole.memory.long > 0
    ours, theirs = whole.state(), again.state()
    assert ours.keys() == theirs.keys()
    assert all((ours[name] == theirs[name]).all() for name in ours)


def test_the_state_is_a_copy(network: XMem) -> None:
    core = XMemCore(network, CONFIG)
    core.set_all_labels([1])
    core.step(image(0, CROP), squares(1, CROP))
    state = core.state()
    before = {name: array.copy() for name, array in state.items()}
    for index in range(1, 10):
        core.step(image(index, CROP))
    assert all((before[name] == state[name]).all() for name in state)


def test_a_remembered_frame_is_read(network: XMem) -> None:
    results = []
    for remember in (False, True):
        core = XMemCore(network, CONFIG)
        core.set_all_labels([1])
        core.step(image(0), torch.zeros(1, 96, 160))
        if remember:
            core.remember(image(2), masks(2, [1], [1]))
        results.append(core.step(image(1)))
    assert (results[0] - results[1]).abs().max() > 0.05


def test_remembering_before_the_first_frame_is_the_same_as_after_it(network: XMem) -> None:
    results = []
    for first in (True, False):
        core = XMemCore(network, CONFIG)
        core.set_all_labels([1])
        steps = [
            lambda core=core: core.remember(image(9, CROP), squares(1, CROP)),
            lambda core=core: core.step(image(0, CROP), squares(1, CROP)),
        ]
        for step in steps if first else reversed(steps):
            step()
        for index in range(1, 9):
            result = core.step(image(index, CROP))
        results.append(result)
        assert core.memory is not None
        assert core.memory.permanent == 12
    assert torch.equal(*results)


def test_end_remembers_nothing(network: XMem) -> None:
    core = XMemCore(network, {**CONFIG, "mem_every": 1})
    core.set_all_labels([1])
    core.step(image(0, CROP), squares(1, CROP))
    core.step(image(1, CROP), end=True)
    assert core.memory is not None
    assert core.memory.work == 12


def test_wrong_arguments_are_named(network: XMem) -> None:
    core = XMemCore(network, CONFIG)
    picture, mask = image(0, CROP), squares(1, CROP)
    with pytest.raises(BadInput, match="call set_all_labels first"):
        core.step(picture, mask)
    with pytest.raises(BadInput, match="labels must be different numbers"):
        core.set_all_labels([1, 1])
    core.set_all_labels([1])
    wrong = [
        ((picture, None), r"objects \[1\] have no mask yet"),
        ((picture[0], mask), r"image is torch.float32 \(48, 64\), it must be floating point 3xHxW"),
        ((picture, squares(2, CROP)), r"mask is \(2, 48, 64\), it must be \(1, 48, 64\)"),
        ((picture, mask, [2]), r"valid_labels names \[2\]"),
    ]
    for arguments, message in wrong:
        with pytest.raises(BadInput, match=message):
            core.step(*arguments)
    core.step(picture, mask)
    with pytest.raises(BadInput, match=r"image is \(40, 64\) \(height, width\), the frames before were \(48, 64\)"):
        core.step(image(1, (40, 64)))
