"""Temporal focal transformer: every window of tokens looks at itself, its surroundings and a summary of far windows.

The attention of Yang et al. ("Focal Self-attention", NeurIPS 2021) over space and time, with the feed-forward layer of
FuseFormer (Liu et al., ICCV 2021), in which tokens that overlap in the picture exchange what they know.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 (the field's name for it)
from torch import Tensor, nn

WIDTH, HEADS = 512, 4
#: Tokens in a window, height and width.
WINDOW = (5, 9)
CELLS = WINDOW[0] * WINDOW[1]
#: A token covers 7x7 pixels of the feature map; the next one begins 3 pixels further on.
PATCH = {"kernel_size": (7, 7), "stride": (3, 3), "padding": (3, 3)}
PATCH_CELLS = 49
_MIXED = 40 * PATCH_CELLS

Size = tuple[int, int]


def surrounding_cells() -> Tensor:
    """(120,) int64: of the 4x45 cells of a window shifted by half its size to the four corners, those outside it.

    They are 108 different tokens: 12 of them are in two of the shifted windows, are listed twice, and so count double.
    The published weights were trained with that.
    """
    half_y, half_x = WINDOW[0] // 2, WINDOW[1] // 2
    cells = []
    for corner, (below, right) in enumerate(((False, False), (False, True), (True, False), (True, True))):
        for row in range(WINDOW[0]):
            for column in range(WINDOW[1]):
                out_y = row < half_y if below else row >= WINDOW[0] - half_y
                out_x = column < half_x if right else column >= WINDOW[1] - half_x
                if out_y or out_x:
                    cells.append(corner * CELLS + row * WINDOW[1] + column)
    return torch.tensor(cells)


def _window_tokens(size: Size) -> tuple[Tensor, Tensor]:
    """For each window of a grid of tokens the numbers of its own 45 cells and of the 4x45 of the shifted windows.

    Shifted windows go on at the opposite edge.
    """
    height, width = size
    half_y, half_x = WINDOW[0] // 2, WINDOW[1] // 2

    def numbers(shift_y: int, shift_x: int) -> Tensor:
        grid = torch.arange(height * width).view(height, width).roll((-shift_y, -shift_x), (0, 1))
        grid = grid.view(height // WINDOW[0], WINDOW[0], width // WINDOW[1], WINDOW[1])
        return grid.transpose(1, 2).reshape(-1, CELLS)

    corners = [(half_y, half_x), (half_y, -half_x), (-half_y, half_x), (-half_y, -half_x)]
    return numbers(0, 0), torch.cat([numbers(*corner) for corner in corners], 1)


class _Attention(nn.Module):
    """Attention of each window's tokens, of all frames at once, to those around and to the summaries of windows."""

    valid_ind_rolled: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("valid_ind_rolled", surrounding_cells())
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor, pooled: Tensor, size: Size) -> Tensor:
        """x: TxNx512, N tokens of a grid of this size; pooled: TxWx512, a summary of each window. TxNx512."""
        own, shifted = (index.to(x.device) for index in _window_tokens(size))
        around = shifted[:, self.valid_ind_rolled]
        query, key, value = self.qkv(x).chunk(3, 2)
        _, far_key, far_value = self.qkv(pooled).chunk(3, 2)
        grid = (size[0] // WINDOW[0], size[1] // WINDOW[1])
        seen = torch.cat([own, around], 1)
        result = torch.empty_like(x)
        for window in range(len(own)):  # one at a time: all their keys at once would fill the memory
            far, absent = _neighbours(window, grid, x.device)
            keys, values = (
                torch.cat([near[:, seen[window]], _padded(summary, far)], 1)
                for near, summary in ((key, far_key), (value, far_value))
            )
            # Places outside the grid of windows have zero keys, and -100 in place of nothing at all.
            bias = x.new_zeros(keys.shape[1])
            bias[-CELLS:][absent] = -100.0
            attended = F.scaled_dot_product_attention(
                _heads(query[:, own[window]]), _heads(keys), _heads(values), bias.repeat(len(x))[None, None, None]
            )
            result[:, own[window]] = attended[0].transpose(0, 1).reshape(len(x), CELLS, WIDTH)
        return self.proj(result)


def _heads(x: Tensor) -> Tensor:
    """TxNx512 to 1xheadsx(T*N)x128."""
    return x.reshape(-1, HEADS, WIDTH // HEADS).transpose(0, 1)[None]


def _neighbours(window: int, grid: Size, device: torch.device) -> tuple[Tensor, Tensor]:
    """The 5x9 windows around one: their numbers (0 where there is none), and where there is none."""
    row, column = divmod(window, grid[1])
    rows = torch.arange(row - WINDOW[0] // 2, row + WINDOW[0] // 2 + 1)[:, None]
    columns = torch.arange(column - WINDOW[1] // 2, column + WINDOW[1] // 2 + 1)
    absent = ((rows < 0) | (rows >= grid[0]) | (columns < 0) | (columns >= grid[1])).flatten()
    numbers = (rows * grid[1] + columns).flatten()
    return torch.where(absent, -1, numbers).to(device), absent.to(device)


def _padded(summary: Tensor, numbers: Tensor) -> Tensor:
    """The summaries of these windows, zeros for -1."""
    return F.pad(summary, (0, 0, 0, 1))[:, numbers]


class _FeedForward(nn.Module):
    """Two linear layers; between them, what overlapping tokens say of a place is averaged."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(nn.Linear(WIDTH, _MIXED))
        self.conv2 = nn.Sequential(nn.GELU(), nn.Linear(_MIXED, WIDTH))

    def forward(self, x: Tensor, features: Size) -> Tensor:
        """x: TxNx512; features: size of the feature map that the tokens cover."""
        patches = self.conv1(x).transpose(1, 2)
        overlaps = F.fold(x.new_ones(1, PATCH_CELLS, x.shape[1]), features, **PATCH)
        averaged = F.fold(patches, features, **PATCH) / overlaps
        return self.conv2(F.unfold(averaged, **PATCH).transpose(1, 2))


class Block(nn.Module):
    """Attention and feed-forward layer, each added to what comes in."""

    def __init__(self) -> None:
        super().__init__()
        self.pool_layers = nn.ModuleList([nn.Linear(CELLS, 1)])
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attn = _Attention()
        self.mlp = _FeedForward()

    def forward(self, x: Tensor, size: Size, features: Size) -> Tensor:
        """x: TxNx512 tokens of a grid of this size, which cover a feature map of that size."""
        normed = self.norm1(x)
        own, _ = _window_tokens(size)
        windows = normed[:, own.to(x.device)]  # T x windows x 45 x 512
        pooled = self.pool_layers[0](windows.transpose(2, 3))[..., 0]
        x = x + self.attn(normed, pooled, size)
        return x + self.mlp(self.norm2(x), features)


class SoftSplit(nn.Module):
    """A feature map becomes overlapping tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Linear(128 * PATCH_CELLS, WIDTH)

    def forward(self, features: Tensor) -> Tensor:
        """Tx128xhxw to TxNx512."""
        return self.embedding(F.unfold(features, **PATCH).transpose(1, 2))


class SoftComposition(nn.Module):
    """Overlapping tokens become a feature map: their sums, and one convolution over them."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Linear(WIDTH, 128 * PATCH_CELLS)
        self.bias_conv = nn.Conv2d(128, 128, 3, padding=1)

    def forward(self, x: Tensor, features: Size) -> Tensor:
        """TxNx512 to Tx128xhxw."""
        return self.bias_conv(F.fold(self.embedding(x).transpose(1, 2), features, **PATCH))
