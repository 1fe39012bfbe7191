"""Convolutions by tiles against PyTorch's own."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from tam_backend.propagators.xmem.layers import Kernel
from tam_backend.propagators.xmem.winograd import convolve, transform
from tam_backend.workers import Workers


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("size", [(1, 1), (4, 4), (6, 10), (31, 57), (13, 140)])
def test_the_result_is_that_of_a_direct_convolution(size: tuple[int, int], threads: int) -> None:
    torch.set_num_threads(threads)
    random = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 5, *size, generator=random), torch.randn(2, 3, *size, generator=random)
    weight, bias = torch.randn(7, 8, 3, 3, generator=random), torch.randn(7, generator=random)
    for add in (None, torch.randn(1, 7, *size, generator=random), torch.randn(2, 7, *size, generator=random)):
        for relu_inputs, relu in ((False, False), (True, False), (False, True), (True, True)):
            ours = convolve((first, second), transform(weight), bias, add, relu_inputs, relu)
            x = torch.cat([first, second], 1).double()
            exact = F.conv2d(x.relu() if relu_inputs else x, weight.double(), bias.double(), padding=1)
            exact = exact if add is None else exact + add
            assert (ours - (exact.relu() if relu else exact)).abs().max() < 1e-4
            assert ours.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("channels", [Kernel.ENOUGH, 4])
def test_both_ways_to_convolve_are_one(channels: int) -> None:
    """Many channels go by tiles, few go through PyTorch's convolution."""
    x, add = torch.randn(1, 2 * channels, 9, 11), torch.randn(1, channels, 9, 11)
    weight = torch.randn(channels, 2 * channels, 3, 3) / (18 * channels) ** 0.5
    kernel = Kernel.of(weight, None)
    assert kernel.weight.dim() == (3 if channels == Kernel.ENOUGH else 4)
    ours = kernel(*x.chunk(2, 1), add=add, relu_inputs=True, relu=True)
    assert torch.allclose(ours, (F.conv2d(x.relu(), weight, padding=1) + add).relu(), atol=1e-4)


def test_every_piece_is_computed_once_by_single_threads() -> None:
    torch.set_num_threads(3)
    done: list[tuple[int, int]] = []

    def work(pieces: Iterable[int]) -> None:
        done.extend((piece, torch.get_num_threads()) for piece in pieces)

    workers = Workers()
    workers.run(work, range(40))
    assert sorted(piece for piece, _ in done) == list(range(40))
    assert {threads for _, threads in done} == {1}
    assert torch.get_num_threads() == 3


def test_an_error_in_a_piece_is_raised_when_all_threads_are_done() -> None:
    torch.set_num_threads(2)
    begun: list[int] = []

    def work(pieces: Iterable[int]) -> None:
        for piece in pieces:
            begun.append(piece)
            if piece == 3:
                raise MemoryError("full")

    with pytest.raises(MemoryError, match="full"):
        Workers().run(work, range(10))
    assert sorted(begun) == list(range(10))
