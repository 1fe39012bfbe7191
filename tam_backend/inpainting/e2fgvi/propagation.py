"""Features carried from frame to frame along the flow, by deformable convolution.

The second-order flow-guided propagation of Chan et al. ("BasicVSR++", CVPR 2022), as E2FGVI uses it.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F  # noqa: N812 (the field's name for it)
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

from tam_backend.inpainting.e2fgvi.flow import warp

CHANNELS = 128
#: Groups of channels that have offsets of their own, and how far (pixels) these may be from the flow.
GROUPS, REACH = 16, 10.0
SLOPE = 0.1


def _convolutions(*sizes: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in pairwise(sizes):
        layers += [nn.Conv2d(a, b, 3, padding=1), nn.LeakyReLU(SLOPE, inplace=True)]
    return nn.Sequential(*layers[:-1])


class _Alignment(nn.Module):
    """Aligns two earlier states with the current frame: a deformable convolution whose offsets begin at the flow."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(CHANNELS, 2 * CHANNELS, 3, 3))
        self.bias = nn.Parameter(torch.empty(CHANNELS))
        offsets = 27 * GROUPS
        self.conv_offset = _convolutions(3 * CHANNELS + 4, CHANNELS, CHANNELS, CHANNELS, offsets)

    def forward(self, states: Tensor, seen: Tensor, flow: Tensor, flow2: Tensor) -> Tensor:
        """states: the two earlier states, not moved; seen: both moved, with the frame between them."""
        a, b, mask = self.conv_offset(torch.cat([seen, flow, flow2], 1)).chunk(3, 1)
        offset = REACH * torch.tanh(torch.cat([a, b], 1))
        # Offsets are y then x, flows are x then y. The first half of the groups is for the state before this frame,
        # the second half for the one before that.
        first, second = offset.chunk(2, 1)
        offset = torch.cat(
            [
                first + flow.flip(1).repeat(1, first.shape[1] // 2, 1, 1),
                second + flow2.flip(1).repeat(1, second.shape[1] // 2, 1, 1),
            ],
            1,
        )
        return deform_conv2d(states, offset, self.weight, self.bias, padding=1, mask=torch.sigmoid(mask))


class Propagation(nn.Module):
    """A sweep backward and a sweep forward over the local frames."""

    def __init__(self) -> None:
        super().__init__()
        self.deform_align = nn.ModuleDict({"backward_": _Alignment(), "forward_": _Alignment()})
        self.backbone = nn.ModuleDict(
            {
                "backward_": _convolutions(2 * CHANNELS, CHANNELS, CHANNELS),
                "forward_": _convolutions(3 * CHANNELS, CHANNELS, CHANNELS),
            }
        )
        self.fusion = nn.Conv2d(2 * CHANNELS, CHANNELS, 1)

    def forward(self, features: Tensor, forward_flows: Tensor, backward_flows: Tensor) -> Tensor:
        """features: Lx128xhxw of the local frames; flows: (L-1)x2xhxw, from each to the next and back. Lx128xhxw."""
        count = len(features)
        # The published network visits the frames from last to first here, but takes the flows from first to last; its
        # weights were trained so. With the flows in their right order, its results are others.
        order = list(range(count - 1, -1, -1))
        backward = self._sweep("backward_", features, order, list(forward_flows), None)
        forward = self._sweep("forward_", features, order[::-1], list(backward_flows), backward)
        joined = torch.stack([torch.cat([backward[i], forward[i]], 1)[0] for i in range(count)])
        return self.fusion(joined) + features

    def _sweep(
        self, name: str, features: Tensor, order: list[int], flows: list[Tensor], other: dict[int, Tensor] | None
    ) -> dict[int, Tensor]:
        """States by frame, each 1x128xhxw. flows: by step, from each frame but the first one visited."""
        result: dict[int, Tensor] = {}
        state = torch.zeros_like(features[:1])
        before = state
        for step, frame in enumerate(order):
            current = features[frame : frame + 1]
            if step > 0:
                flow = flows[step - 1][None]
                moved = warp(state, flow.permute(0, 2, 3, 1))
                if step > 1:
                    flow2 = flow + warp(flows[step - 2][None], flow.permute(0, 2, 3, 1))
                    moved2 = warp(before, flow2.permute(0, 2, 3, 1))
                else:
                    flow2, moved2, before = torch.zeros_like(flow), torch.zeros_like(state), torch.zeros_like(state)
                states, before = torch.cat([state, before], 1), state
                seen = torch.cat([moved, current, moved2], 1)
                state = self.deform_align[name](states, seen, flow, flow2)
            parts = [current, state] if other is None else [current, other[frame], state]
            state = state + self.backbone[name](torch.cat(parts, 1))
            result[frame] = state
        return result


def quarter(frames: Tensor) -> Tensor:
    """Lx3xHxW in [-1, 1] to [0, 1] at a quarter of the size: what flow is computed from."""
    return F.interpolate((frames + 1) / 2, scale_factor=0.25, mode="bilinear", align_corners=True)
