"""3x3 convolutions with a quarter of the multiplications (Winograd's minimal filtering, as in Lavin and Gray, "Fast
Algorithms for Convolutional Neural Networks", CVPR 2016), from matrix products alone.

A tile of 4x4 outputs depends on 6x6 inputs. Interpolated at six points in each direction, it takes 36 products for
each pair of an input and an output channel, where the definition takes 144. The six points are 0, 1, -1, 1/2, -2 and
infinity: with them, rounding errors are about three times those of a direct convolution.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from tam_backend.workers import WORKERS

#: Outputs and inputs of a tile, in each direction.
OUT, IN = 4, 6

#: From the inputs of a tile to their values at the six points, from a filter's three numbers to its values there, and
#: from products of both to the outputs.
_INPUT = (
    (1, -1.5, -2, 1.5, 1, 0),
    (0, -1, 0.5, 2.5, 1, 0),
    (0, 1, -2.5, 0.5, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 0.5, -1, -0.5, 1, 0),
    (0, 1, -1.5, -2, 1.5, 1),
)
_FILTER = (
    (1, 0, 0),
    (1 / 3, 1 / 3, 1 / 3),
    (-1 / 3, 1 / 3, -1 / 3),
    (-16 / 15, -8 / 15, -4 / 15),
    (1 / 15, -2 / 15, 4 / 15),
    (0, 0, 1),
)
_OUTPUT = (
    (1, 1, 1, 1, 1, 0),
    (0, 1, -1, 1 / 2, -2, 0),
    (0, 1, 1, 1 / 4, 4, 0),
    (0, 1, -1, 1 / 8, -8, 1),
)
#: What is added to the product at the point 1, in both directions, is added to every output: the bias goes there.
_ONE = IN + 1

#: Tiles that are computed at once: few enough for the caches, enough for the matrix product to be quick.
TILES = 128


def transform(weight: Tensor) -> Tensor:
    """KxCx3x3 -> 36xCxK, for ``convolve``."""
    g = torch.tensor(_FILTER, dtype=torch.float64, device=weight.device)
    values = torch.einsum("ai,bj,kcij->abck", g, g, weight.double())
    return values.flatten(0, 1).to(weight.dtype).contiguous()


def convolve(
    inputs: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor | None = None,
    add: Tensor | None = None,
    relu_inputs: bool = False,
    relu: bool = False,
) -> Tensor:
    """The 3x3 convolution with stride 1 and padding 1 of all inputs as one, side by side in the channels.

    inputs: BxC_ixHxW, weight: from ``transform``, C being the sum of all C_i. add: BxKxHxW or 1xKxHxW, what is added to
    the result. relu_inputs, relu: negative numbers become zero, of the inputs before and of the result at last.
    -> BxKxHxW, channels last.
    """
    batch, _, height, width = inputs[0].shape
    down, across = -(-height // OUT), -(-width // OUT)
    each = -(-down * batch // torch.get_num_threads())  # every thread has its part in small images as well
    rows = min(down, each, max(1, TILES // across))  # of tiles, computed at once
    sources = [x.permute(0, 2, 3, 1) for x in inputs]
    result = inputs[0].new_empty(batch, height, width, weight.shape[2])
    added = None if add is None else add.permute(0, 2, 3, 1).expand(batch, -1, -1, -1)

    def compute(pieces: Iterable[tuple[int, int]]) -> None:
        room = _Room(weight, rows, across)
        for image, first in pieces:
            room.fill([s[image] for s in sources], first * OUT - 1, relu_inputs)
            tiles = room.products(min(rows, down - first), weight, bias)
            part = slice(first * OUT, (first + rows) * OUT)
            _write(result[image, part], tiles, None if added is None else added[image, part], relu)

    WORKERS.run(compute, [(image, first) for image in range(batch) for first in range(0, down, rows)])
    return result.permute(0, 3, 1, 2)


class _Room:
    """Where one thread computes some rows of tiles at a time; used again for every piece, so that it stays in the
    cache."""

    def __init__(self, weight: Tensor, rows: int, across: int) -> None:
        channels, outputs = weight.shape[1:]
        self._across = across
        self._before, self._after = _kron(_INPUT, weight), _kron(_OUTPUT, weight)
        self._window = weight.new_zeros(rows * OUT + 2, across * OUT + 2, channels)
        n = rows * across
        self._patches, self._values = weight.new_empty(2, n * IN * IN * channels)
        self._products, self._tiles = (weight.new_empty(n * side**2 * outputs) for side in (IN, OUT))

    def fill(self, sources: Sequence[Tensor], top: int, relu: bool) -> None:
        """Take rows of HxWxC_i, side by side, from row ``top`` on. What is beyond the image is zero."""
        height, width = sources[0].shape[:2]
        begin, end = max(0, top), min(height, top + len(self._window))
        self._window[: begin - top].zero_()
        self._window[end - top :].zero_()
        inner, channel = self._window[begin - top : end - top, 1 : 1 + width], 0
        for source in sources:
            to = inner[..., channel : channel + source.shape[2]]
            if relu:
                torch.clamp_min(source[begin:end], 0, out=to)
            else:
                to.copy_(source[begin:end])
            channel += source.shape[2]

    def products(self, rows: int, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The outputs of so many rows of tiles: rows x 4 x across x 4 x K."""
        _, channels, outputs = weight.shape
        n = rows * self._across
        u, v = (t[: IN * IN * n * channels].view(IN * IN, n * channels) for t in (self._patches, self._values))
        y, o = (
            t[: s * s * n * outputs].view(s * s, n * outputs) for t, s in ((self._products, IN), (self._tiles, OUT))
        )
        row, column, channel = self._window.stride()
        strides = (row, column, OUT * row, OUT * column, channel)  # the inputs of all tiles, in which they overlap
        overlapping = self._window.as_strided((IN, IN, rows, self._across, channels), strides)
        u.view(overlapping.shape).copy_(overlapping)
        torch.mm(self._before, u, out=v)
        torch.bmm(v.view(IN * IN, n, channels), weight, out=y.view(IN * IN, n, outputs))
        if bias is not None:
            y[_ONE].view(n, outputs).add_(bias)
        torch.mm(self._after, y, out=o)
        return o.view(OUT, OUT, rows, self._across, outputs).permute(2, 0, 3, 1, 4)


def _kron(matrix: Sequence[Sequence[float]], like: Tensor) -> Tensor:
    """What the matrix does to rows and to columns, as one."""
    m = torch.tensor(matrix, dtype=like.dtype, device=like.device)
    return torch.kron(m, m)


def _write(result: Tensor, tiles: Tensor, add: Tensor | None, relu: bool) -> None:
    """Tiles (down x 4 x across x 4 x K) into rows of the result, without what is beyond the image."""
    height, width, outputs = result.shape
    down, across = tiles.shape[0], tiles.shape[2]
    if (height, width) == (down * OUT, across * OUT):
        split = (down, OUT, across, OUT, outputs)
        to, add = result.view(split), None if add is None else add.unflatten(1, (-1, OUT)).unflatten(0, (-1, OUT))
    else:
        to, tiles = result, tiles.reshape(down * OUT, across * OUT, outputs)[:height, :width]
    if add is None:
        to.copy_(tiles)
    else:
        torch.add(tiles, add, out=to)
    if relu:
        result.relu_()
