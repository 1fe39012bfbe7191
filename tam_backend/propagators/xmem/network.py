"""The network of XMem (Cheng and Schwing, "XMem: Long-Term Video Object Segmentation with an Atkinson-Shiffrin Memory
Model", ECCV 2022), at the published sizes and with the parameter names of the published checkpoints.

For inference: batch norms always use their running statistics, and parameters need no gradient. Nothing is downloaded.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from tam_backend.propagators.xmem import weights
from tam_backend.propagators.xmem.layers import (
    BasicBlock,
    Bottleneck,
    Fusion,
    Kernel,
    UpsampleBlock,
    conv3x3,
    conv_bn,
    derived,
    gated_update,
    kernel_of,
    residual_stage,
)

KEY_DIM, VALUE_DIM, HIDDEN_DIM = 64, 512, 64
#: Every size the network sees is a multiple of this; keys, values and hidden states have one cell per such square.
STRIDE = 16


@dataclass(slots=True, eq=False)
class FrameEncoding:
    """What the network knows of a frame without any mask. h, w: padded height and width over 16.

    key: hw x 64, shrinkage: hw x 1, >= 1, selection: hw x 64, in (0, 1); float32. f16: 1x1024xhxw.
    f8 and f4 (512 and 256 channels at strides 8 and 4) live until ``XMem.decoder_terms`` turns them into ``terms``.
    """

    grid: tuple[int, int]
    key: Tensor
    shrinkage: Tensor
    selection: Tensor
    f16: Tensor
    f8: Tensor | None
    f4: Tensor | None
    terms: tuple[Tensor, Tensor, Tensor] | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def nbytes(self) -> int:
        """Bytes with ``terms``, whether they are there yet or not: f8 and f4 give way to arrays of their size."""
        cells = self.grid[0] * self.grid[1]
        floats = KEY_DIM * 2 + 1
        features = 1024 + 4 * 512 + 16 * 256 + 2 * VALUE_DIM
        return cells * (4 * floats + self.f16.element_size() * features)


class KeyEncoder(nn.Module):
    """ResNet-50 up to stride 16."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        self.res2 = residual_stage(Bottleneck, 64, 64, 3, 1)
        self.layer2 = residual_stage(Bottleneck, 256, 128, 4, 2)
        self.layer3 = residual_stage(Bottleneck, 512, 256, 6, 2)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """1x3xHxW -> features at strides 16, 8 and 4."""
        x = F.max_pool2d(conv_bn(self.conv1, self.bn1, image, relu=True), 3, 2, 1)
        f4 = self.res2(x)
        f8 = self.layer2(f4)
        return self.layer3(f8), f8, f4


class KeyProjection(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.key_proj = conv3x3(1024, KEY_DIM)
        self.d_proj = conv3x3(1024, 1)
        self.e_proj = conv3x3(1024, KEY_DIM)

    def forward(self, f16: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """1x1024xhxw -> key hw x 64, shrinkage hw x 1, selection hw x 64; float32.

        One convolution computes all three, exactly (see ``Bottleneck``).
        """
        convs = (self.key_proj, self.d_proj, self.e_proj)
        parameters = tuple(p for conv in convs for p in (conv.weight, conv.bias) if p is not None)

        weights, biases = parameters[0::2], parameters[1::2]
        kernel = derived(self, parameters, lambda: Kernel.of(torch.cat(weights), torch.cat(biases), exact=True))
        y = kernel(f16).float()
        rows = y.permute(0, 2, 3, 1).reshape(-1, y.shape[1])
        key, shrinkage, selection = rows.split([KEY_DIM, 1, KEY_DIM], 1)
        return key.contiguous(), shrinkage.square().add_(1), selection.sigmoid()


class HiddenReinforcer(nn.Module):
    """The deep update: the sensory memory takes in the value of a memory frame."""

    def __init__(self) -> None:
        super().__init__()
        self.transform = conv3x3(VALUE_DIM + HIDDEN_DIM, 3 * HIDDEN_DIM)

    def forward(self, value: Tensor, hidden: Tensor) -> Tensor:
        return gated_update(kernel_of(self.transform)(value, hidden), hidden)


class ValueEncoder(nn.Module):
    """ResNet-18 up to stride 16 over image, mask of the object and sum of the other masks."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(5, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        self.layer1 = residual_stage(BasicBlock, 64, 64, 2, 1)
        self.layer2 = residual_stage(BasicBlock, 64, 128, 2, 2)
        self.layer3 = residual_stage(BasicBlock, 128, 256, 2, 2)
        self.fuser = Fusion(1024, 256, VALUE_DIM)
        self.hidden_reinforce = HiddenReinforcer()

    def forward(self, image: Tensor, f16: Tensor, masks: Tensor) -> Tensor:
        """1x3xHxW, 1x1024xhxw, OxHxW in [0, 1] -> OxVxhxw."""
        others = masks.sum(0, keepdim=True) - masks if len(masks) > 1 else torch.zeros_like(masks)
        x = torch.cat([image.expand(len(masks), -1, -1, -1), masks[:, None], others[:, None]], 1)
        x = x.contiguous(memory_format=torch.channels_last)
        x = F.max_pool2d(conv_bn(self.conv1, self.bn1, x, relu=True), 3, 2, 1)
        return self.fuser(self.fuser.image_terms(f16), self.layer3(self.layer2(self.layer1(x))))


class HiddenUpdater(nn.Module):
    """The normal update: the sensory memory takes in the decoder's features."""

    def __init__(self) -> None:
        super().__init__()
        self.g16_conv = nn.Conv2d(512, 256, 1)
        self.g8_conv = nn.Conv2d(256, 256, 1)
        self.g4_conv = nn.Conv2d(257, 256, 1)
        self.transform = conv3x3(256 + HIDDEN_DIM, 3 * HIDDEN_DIM)

    def forward(self, g16: Tensor, g8: Tensor, g4: Tensor, logits: Tensor, hidden: Tensor) -> Tensor:
        fine = torch.cat([F.avg_pool2d(g4, 4), F.avg_pool2d(logits, 4)], 1)
        g = self.g16_conv(g16).add_(self.g8_conv(F.avg_pool2d(g8, 2))).add_(self.g4_conv(fine))
        return gated_update(kernel_of(self.transform)(g, hidden), hidden)


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fuser = Fusion(1024, VALUE_DIM + HIDDEN_DIM, 512)
        self.hidden_update = HiddenUpdater()
        self.up_16_8 = UpsampleBlock(512, 512, 256)
        self.up_8_4 = UpsampleBlock(256, 256, 256)
        self.pred = conv3x3(256, 1)

    def forward(
        self, terms: tuple[Tensor, Tensor, Tensor], readout: Tensor, hidden: Tensor, update_hidden: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Logits OxHxW at the size of the image, and the new hidden state if it is asked for."""
        fuse, skip8, skip4 = terms
        g16 = self.fuser(fuse, readout, hidden.to(readout.dtype))
        g8 = self.up_16_8(skip8, g16)
        g4 = self.up_8_4(skip4, g8)
        logits = self.pred(g4.relu())
        new = self.hidden_update(g16, g8, g4, logits, hidden) if update_hidden else None
        return F.interpolate(logits.float(), scale_factor=4, mode="bilinear", align_corners=False)[:, 0], new


def aggregate(probabilities: Tensor) -> Tensor:
    """Soft aggregation (Oh et al., ICCV 2019): OxHxW in [0, 1] -> logits (O+1)xHxW whose softmax over the first axis
    is the probability of background and objects."""
    p = probabilities.float()
    p = torch.cat([(1 - p).prod(0, keepdim=True), p]).clamp_(1e-7, 1 - 1e-7)
    return torch.log(p / (1 - p))


class XMem(nn.Module):
    """The published network: 64-channel keys, 512-channel values, 64-channel hidden state, any number of objects.

    ``load_state_dict`` takes the published files strictly, also the older ones (see ``weights.modernise``).
    """

    def __init__(self) -> None:
        super().__init__()
        self.key_encoder = KeyEncoder()
        self.value_encoder = ValueEncoder()
        self.key_proj = KeyProjection()
        self.decoder = Decoder()
        self.register_load_state_dict_pre_hook(_modernise)
        self.to(memory_format=torch.channels_last)
        self.requires_grad_(False)
        self.eval()

    @property
    def device(self) -> torch.device:
        return self.key_proj.key_proj.weight.device

    def encode_frame(self, image: Tensor) -> FrameEncoding:
        """image: 3xHxW float, normalised, H and W multiples of 16."""
        f16, f8, f4 = self.key_encoder(image[None].contiguous(memory_format=torch.channels_last))
        grid = (int(f16.shape[2]), int(f16.shape[3]))
        key, shrinkage, selection = self.key_proj(f16)
        return FrameEncoding(grid, key, shrinkage, selection, f16, f8, f4)

    def encode_value(self, image: Tensor, frame: FrameEncoding, masks: Tensor) -> Tensor:
        """image: 3xHxW as for ``encode_frame``, masks: OxHxW in [0, 1] -> Ox512xhxw."""
        return self.value_encoder(image[None], frame.f16, masks)

    def deep_update(self, value: Tensor, hidden: Tensor) -> Tensor:
        """value: Ox512xhxw, hidden: Ox64xhxw -> the new hidden state."""
        return self.value_encoder.hidden_reinforce(value, hidden)

    def decoder_terms(self, frame: FrameEncoding) -> tuple[Tensor, Tensor, Tensor]:
        """The decoder's share that depends on the image alone, computed once per frame."""
        with frame.lock:
            if frame.terms is None:
                assert frame.f8 is not None
                assert frame.f4 is not None
                d = self.decoder
                skips = kernel_of(d.up_16_8.skip_conv)(frame.f8), kernel_of(d.up_8_4.skip_conv)(frame.f4)
                frame.terms = (d.fuser.image_terms(frame.f16), *skips)
                frame.f8 = frame.f4 = None
            return frame.terms

    def segment(
        self, frame: FrameEncoding, readout: Tensor, hidden: Tensor, update_hidden: bool
    ) -> tuple[Tensor, Tensor | None]:
        """readout: Ox512xhxw, hidden: Ox64xhxw -> logits (O+1)xHxW with the background first, and the hidden state
        after the normal update if it is asked for."""
        logits, new = self.decoder(self.decoder_terms(frame), readout, hidden, update_hidden)
        return aggregate(torch.sigmoid(logits)), new


def _modernise(module: nn.Module, state: dict[str, Tensor], *unused: object) -> None:
    weights.modernise(state, module.state_dict())
