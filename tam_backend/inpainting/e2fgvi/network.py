"""E2FGVI-HQ: what is behind a hole, from frames around it (Li et al., "Towards An End-to-End Framework for Flow-Guided
Video Inpainting", CVPR 2022). For inference; module names and shapes are those of the published file.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 (the field's name for it)
from torch import Tensor, nn

from tam_backend.inpainting.e2fgvi.flow import SPyNet
from tam_backend.inpainting.e2fgvi.propagation import Propagation, quarter
from tam_backend.inpainting.e2fgvi.transformer import Block, SoftComposition, SoftSplit

#: Frames that the network takes have sides that are multiples of these: a window of tokens, 12 pixels a token.
MULTIPLES = (60, 108)
BLOCKS = 8
SLOPE = 0.2


class _Encoder(nn.Module):
    """Frames to features at a quarter of the size. Its last four convolutions see an earlier layer once more."""

    #: Layer -> its groups; in each, a slice of the features of layer 6 goes before a slice of the running ones.
    GROUPED = {10: 2, 12: 4, 14: 8, 16: 1}  # noqa: RUF012 (never changed)

    def __init__(self) -> None:
        super().__init__()
        sizes = ((3, 64, 2, 1), (64, 64, 1, 1), (64, 128, 2, 1), (128, 256, 1, 1), (256, 384, 1, 1))
        grouped = ((640, 512, 1, 2), (768, 384, 1, 4), (640, 256, 1, 8), (512, 128, 1, 1))
        layers: list[nn.Module] = []
        for inputs, outputs, stride, groups in sizes + grouped:
            layers += [
                nn.Conv2d(inputs, outputs, 3, stride, 1, groups=groups),
                nn.LeakyReLU(SLOPE, inplace=True),
            ]
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        early = x
        for i, layer in enumerate(self.layers):
            if i == 8:
                early = x
            groups = self.GROUPED.get(i)
            if groups is not None:
                slices = [t.unflatten(1, (groups, -1)) for t in (early, x)]
                x = torch.cat(slices, 2).flatten(1, 2)
            x = layer(x)
        return x


class _Enlarge(nn.Module):
    """Twice the size, then a convolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True))


def _decoder() -> nn.Sequential:
    return nn.Sequential(
        _Enlarge(128, 128),
        nn.LeakyReLU(SLOPE, inplace=True),
        nn.Conv2d(128, 64, 3, padding=1),
        nn.LeakyReLU(SLOPE, inplace=True),
        _Enlarge(64, 64),
        nn.LeakyReLU(SLOPE, inplace=True),
        nn.Conv2d(64, 3, 3, padding=1),
    )


class E2FGVI(nn.Module):
    """The generator of E2FGVI-HQ."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = _Encoder()
        self.decoder = _decoder()
        self.feat_prop_module = Propagation()
        self.ss = SoftSplit()
        self.sc = SoftComposition()
        self.transformer = nn.ModuleList(Block() for _ in range(BLOCKS))
        self.update_spynet = SPyNet()

    def flows(self, local: Tensor) -> tuple[Tensor, Tensor]:
        """From each frame to the next, and from each but the first to the one before: (L-1)x2xHxW/4, x then y.

        local: Lx3xHxW in [-1, 1], holes 0. "Completed flow" is what SPyNet makes of frames with grey holes.
        """
        small = quarter(local)
        return self.update_spynet(small[:-1], small[1:]), self.update_spynet(small[1:], small[:-1])

    def forward(self, frames: Tensor, local: int) -> Tensor:
        """The frames with their holes filled: Lx3xHxW in [-1, 1], of the local frames.

        frames: Tx3xHxW in [-1, 1], holes 0; sides are multiples of MULTIPLES. The first ``local`` of them follow one
        another, the rest are references from farther away.
        """
        return self.decode(self.tokens_to_features(self.features(frames, local))[:local])

    def features(self, frames: Tensor, local: int) -> Tensor:
        """Tx128xH/4xW/4: encoded, and the local ones told what their neighbours know."""
        encoded = torch.cat([self.encoder(frame[None]) for frame in frames])
        near = encoded[:local]
        flows = self.flows(frames[:local]) if local > 1 else (frames.new_zeros(0),) * 2
        return torch.cat([self.feat_prop_module(near, *flows), encoded[local:]])

    def tokens_to_features(self, features: Tensor) -> Tensor:
        """The same shape: with what the transformer found in all frames."""
        size = (features.shape[2], features.shape[3])
        grid = (size[0] // 3, size[1] // 3)
        tokens = self.ss(features)
        for block in self.transformer:
            tokens = block(tokens, grid, size)
        return self.sc(tokens, size).add_(features)

    def decode(self, features: Tensor) -> Tensor:
        return torch.cat([torch.tanh(self.decoder(one[None])) for one in features])
