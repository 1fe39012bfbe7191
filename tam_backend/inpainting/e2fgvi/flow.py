"""SPyNet: optical flow by six small networks, from coarse to fine (Ranjan and Black, CVPR 2017)."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F  # noqa: N812 (the field's name for it)
from torch import Tensor, nn

LEVELS = 6
#: The pyramid's coarsest level has 1/32 of the pixels of a side.
MULTIPLE = 2 ** (LEVELS - 1)


def warp(x: Tensor, flow: Tensor, padding: str = "zeros") -> Tensor:
    """``x`` where the flow leads to. x: NxCxHxW; flow: NxHxWx2, pixels, x then y. padding: of what is outside."""
    height, width = x.shape[2:]
    rows = torch.arange(height, dtype=x.dtype, device=x.device)
    columns = torch.arange(width, dtype=x.dtype, device=x.device)
    place_x = (columns + flow[..., 0]) * (2 / max(width - 1, 1)) - 1
    place_y = (rows[:, None] + flow[..., 1]) * (2 / max(height - 1, 1)) - 1
    return F.grid_sample(x, torch.stack((place_x, place_y), 3), "bilinear", padding, align_corners=True)


class _Step(nn.Module):
    """One convolution; it has a name of its own in the published files."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class _Level(nn.Module):
    """Improves the flow of one level of the pyramid."""

    def __init__(self) -> None:
        super().__init__()
        sizes = (8, 32, 64, 32, 16, 2)
        self.basic_module = nn.ModuleList(_Step(a, b) for a, b in pairwise(sizes))

    def forward(self, x: Tensor) -> Tensor:
        for step in self.basic_module[:-1]:
            x = F.relu(step(x), inplace=True)
        return self.basic_module[-1](x)


class SPyNet(nn.Module):
    """Flow between pairs of pictures."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.basic_module = nn.ModuleList(_Level() for _ in range(LEVELS))
        self.register_buffer("mean", torch.tensor((0.485, 0.456, 0.406)).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor((0.229, 0.224, 0.225)).view(1, 3, 1, 1))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Nx2xHxW flow, pixels, x then y: from each pixel of ``first`` to ``second``. Both Nx3xHxW in [0, 1]."""
        height, width = first.shape[2:]
        size = tuple(-(-side // MULTIPLE) * MULTIPLE for side in (height, width))
        a, b = (self._resized(picture, size) for picture in (first, second))
        flow = self._pyramid(a, b)
        flow = F.interpolate(flow, (height, width), mode="bilinear", align_corners=False)
        return flow * flow.new_tensor((width / size[1], height / size[0])).view(1, 2, 1, 1)

    def _resized(self, picture: Tensor, size: tuple[int, ...]) -> Tensor:
        return F.interpolate(picture, size, mode="bilinear", align_corners=False)

    def _pyramid(self, first: Tensor, second: Tensor) -> Tensor:
        levels = [((first - self.mean) / self.std, (second - self.mean) / self.std)]
        for _ in range(LEVELS - 1):
            a, b = (F.avg_pool2d(p, 2, 2, count_include_pad=False) for p in levels[0])
            levels.insert(0, (a, b))
        up = flow = first.new_zeros(len(first), 2, *levels[0][0].shape[2:])
        for level, (a, b) in enumerate(levels):
            if level > 0:
                up = F.interpolate(flow, scale_factor=2, mode="bilinear", align_corners=True) * 2.0
            moved = warp(b, up.permute(0, 2, 3, 1), "border")
            flow = up + self.basic_module[level](torch.cat([a, moved, up], 1))
        return flow
