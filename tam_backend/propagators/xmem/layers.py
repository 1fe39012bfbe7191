"""Building blocks of the XMem network, for inference.

Module names and parameter shapes are those of the published checkpoints; what is computed from the parameters once
(batch norms folded into convolutions, weights cut in two or transformed) is held beside them and computed again when
they change.

Axes: an image feature is 1xCxHxW; an object feature is OxCxHxW, one row per object. Memory format: channels last.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F  # noqa: N812 (the field's name for it)
from torch import Tensor, nn

from tam_backend.propagators.xmem import winograd

T = TypeVar("T")


def derived(owner: nn.Module, sources: tuple[Tensor, ...], make: Callable[[], T]) -> T:
    """What ``make`` computes from ``sources``, held by ``owner`` for as long as no source changes or moves."""
    stamp = tuple((t.data_ptr(), t._version, t.dtype, t.device) for t in sources)
    held = owner.__dict__.get("_derived")
    if held is None or held[0] != stamp:
        held = owner.__dict__["_derived"] = (stamp, make())
    return held[1]


def _channels_last(t: Tensor) -> Tensor:
    return t.contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True, slots=True, eq=False)
class Kernel:
    """A 3x3 convolution with stride 1 and padding 1.

    weight: KxCx3x3, channels last; or 36xCxK, as ``winograd`` takes it, where that is quicker: on CPU, with enough
    channels.
    """

    weight: Tensor
    bias: Tensor | None

    #: Channels, of inputs and of outputs, from which on ``winograd`` is quicker.
    ENOUGH = 128

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor | None, exact: bool = False) -> Kernel:
        """weight: KxCx3x3. exact: never by ``winograd``, whose rounding errors are larger."""
        quick = weight.device.type == "cpu" and weight.dtype == torch.float32 and min(weight.shape[:2]) >= cls.ENOUGH
        if quick and not exact:
            return cls(winograd.transform(weight), bias)
        return cls(_channels_last(weight.clone()), bias)

    def __call__(
        self, *inputs: Tensor, add: Tensor | None = None, relu_inputs: bool = False, relu: bool = False
    ) -> Tensor:
        """The inputs' channels count side by side. add, relu_inputs, relu: as for ``winograd.convolve``."""
        if self.weight.dim() == 3:
            return winograd.convolve(inputs, self.weight, self.bias, add, relu_inputs, relu)
        x = torch.cat(inputs, 1) if len(inputs) > 1 else inputs[0]
        y = F.conv2d(x.relu() if relu_inputs else x, self.weight, self.bias, padding=1)
        if add is not None:
            y.add_(add)
        return y.relu_() if relu else y


def kernel_of(conv: nn.Conv2d) -> Kernel:
    bias = conv.bias
    assert bias is not None
    return derived(conv, (conv.weight, bias), lambda: Kernel.of(conv.weight, bias))


def conv_bn(
    conv: nn.Conv2d,
    bn: nn.BatchNorm2d,
    x: Tensor,
    add: Tensor | None = None,
    relu: bool = False,
    exact: bool = False,
) -> Tensor:
    """``bn(conv(x))`` with the running statistics folded into one convolution, plus ``add``, through a ReLU. exact: as
    for ``Kernel.of``."""
    assert bn.running_mean is not None
    assert bn.running_var is not None
    mean, var = bn.running_mean, bn.running_var
    plain = conv.kernel_size == (3, 3) and conv.stride == (1, 1)

    def fold() -> Kernel:
        scale = bn.weight * torch.rsqrt(var + bn.eps)
        weight, bias = conv.weight * scale[:, None, None, None], bn.bias - mean * scale
        return Kernel.of(weight, bias, exact) if plain else Kernel(_channels_last(weight), bias)

    kernel = derived(conv, (conv.weight, bn.weight, bn.bias, mean, var), fold)
    if plain:
        return kernel(x, add=add, relu=relu)
    y = F.conv2d(x, kernel.weight, kernel.bias, conv.stride, conv.padding)
    if add is not None:
        y.add_(add)
    return y.relu_() if relu else y


def conv3x3(inputs: int, outputs: int, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, 1, bias=bias)


class BasicBlock(nn.Module):
    """Residual block of ResNet-18 (He et al., CVPR 2016)."""

    expansion = 1

    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv3x3(inputs, planes, stride, bias=False), nn.BatchNorm2d(planes)
        self.conv2, self.bn2 = conv3x3(planes, planes, bias=False), nn.BatchNorm2d(planes)
        self.downsample = _projection(inputs, planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = conv_bn(self.conv1, self.bn1, x, relu=True)
        return conv_bn(self.conv2, self.bn2, y, add=_shortcut(self.downsample, x), relu=True)


class Bottleneck(nn.Module):
    """Residual block of ResNet-50, with the stride in the 3x3 convolution.

    Its convolutions are exact: keys come from here, and what is read from memory turns on their last digits.
    """

    expansion = 4

    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        outputs = planes * self.expansion
        self.conv1, self.bn1 = nn.Conv2d(inputs, planes, 1, bias=False), nn.BatchNorm2d(planes)
        self.conv2, self.bn2 = conv3x3(planes, planes, stride, bias=False), nn.BatchNorm2d(planes)
        self.conv3, self.bn3 = nn.Conv2d(planes, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.downsample = _projection(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = conv_bn(self.conv1, self.bn1, x, relu=True)
        y = conv_bn(self.conv2, self.bn2, y, relu=True, exact=True)
        return conv_bn(self.conv3, self.bn3, y, add=_shortcut(self.downsample, x), relu=True)


def _projection(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    """What brings the input of a block to the shape of its output, where they differ."""
    if inputs == outputs and stride == 1:
        return None
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


def _shortcut(projection: nn.Sequential | None, x: Tensor) -> Tensor:
    if projection is None:
        return x
    conv, bn = projection
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(bn, nn.BatchNorm2d)
    return conv_bn(conv, bn, x)


def residual_stage(
    block: type[BasicBlock] | type[Bottleneck], inputs: int, planes: int, count: int, stride: int
) -> nn.Sequential:
    """``count`` residual blocks, the first of them with the stride."""
    first = block(inputs, planes, stride)
    return nn.Sequential(first, *(block(planes * block.expansion, planes, 1) for _ in range(count - 1)))


def joined(first: nn.Conv2d, second: nn.Conv2d, owner: nn.Module) -> Kernel:
    """The sum of two convolutions as a single one over the inputs of both. Held by ``owner``."""
    (weight1, bias1), (weight2, bias2) = (first.weight, first.bias), (second.weight, second.bias)
    assert bias1 is not None
    assert bias2 is not None

    def join() -> Kernel:
        return Kernel.of(torch.cat([weight1, weight2], 1), bias1 + bias2)

    return derived(owner, (weight1, bias1, weight2, bias2), join)


class ResidualConv(nn.Module):
    """conv2(relu(conv1(relu(x)))) + x, where x goes through a convolution of its own if the channels change."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.downsample = conv3x3(inputs, outputs) if inputs != outputs else None
        self.conv1 = conv3x3(inputs, outputs)
        self.conv2 = conv3x3(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = kernel_of(self.conv1)(x, relu_inputs=True, relu=True)
        if self.downsample is None:
            return kernel_of(self.conv2)(y, add=x)
        return joined(self.conv2, self.downsample, self)(y, x)


class ChannelGate(nn.Module):
    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = channels // reduction
        self.mlp = nn.Sequential(nn.Flatten(), nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))

    def forward(self, x: Tensor) -> Tensor:
        gate = self.mlp(x.mean((2, 3))) + self.mlp(x.amax((2, 3)))
        return x * torch.sigmoid(gate)[:, :, None, None]


class SpatialGate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.spatial = nn.Sequential(OrderedDict(conv=nn.Conv2d(2, 1, 7, padding=3)))

    def forward(self, x: Tensor) -> Tensor:
        pooled = torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], 1)
        return x * torch.sigmoid(self.spatial(pooled))


class Attention(nn.Module):
    """Convolutional block attention (Woo et al., ECCV 2018): channels first, then places."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.ChannelGate = ChannelGate(channels)
        self.SpatialGate = SpatialGate()

    def forward(self, x: Tensor) -> Tensor:
        return self.SpatialGate(self.ChannelGate(x))


class Fusion(nn.Module):
    """Joins image features with the features of each object.

    The published block convolves their concatenation, once per object. A convolution is linear in its input channels,
    so the image's share is the same for all objects: ``image_terms`` computes it once per frame.
    The image features must not be negative (they come out of a ReLU), for then both convolutions see the same input.
    """

    def __init__(self, image_channels: int, object_channels: int, channels: int) -> None:
        super().__init__()
        self.image_channels = image_channels
        self.block1 = ResidualConv(image_channels + object_channels, channels)
        self.attention = Attention(channels)
        self.block2 = ResidualConv(channels, channels)

    def _halves(self) -> tuple[Kernel, Kernel, Kernel]:
        """The image's share of conv1 and downsample, stacked; the objects' share of conv1; conv2 with the objects'
        share of downsample."""
        conv1, conv2, down = self.block1.conv1, self.block1.conv2, self.block1.downsample
        assert down is not None
        bias1, bias2, bias3 = conv1.bias, conv2.bias, down.bias
        assert bias1 is not None
        assert bias2 is not None
        assert bias3 is not None

        def cut() -> tuple[Kernel, Kernel, Kernel]:
            at = self.image_channels
            image = Kernel.of(torch.cat([conv1.weight[:, :at], down.weight[:, :at]]), torch.cat([bias1, bias2 + bias3]))
            both = torch.cat([conv2.weight, down.weight[:, at:]], 1)
            return image, Kernel.of(conv1.weight[:, at:], None), Kernel.of(both, None)

        return derived(self, (conv1.weight, bias1, conv2.weight, bias2, down.weight, bias3), cut)

    def image_terms(self, image: Tensor) -> Tensor:
        """1 x image_channels x H x W, not negative -> 1 x 2*channels x H x W, what the image adds to both paths."""
        return self._halves()[0](image)

    def forward(self, image_terms: Tensor, *objects: Tensor) -> Tensor:
        """1 x 2*channels x H x W and O x C_i x H x W, the C_i being object_channels in all -> O x channels x H x W."""
        _, first, second = self._halves()
        image1, image2 = image_terms.chunk(2, 1)
        y = first(*objects, add=image1, relu_inputs=True, relu=True)
        y = second(y, *objects, add=image2)
        return self.block2(y + self.attention(y))


class UpsampleBlock(nn.Module):
    """Doubles the resolution of object features and adds the image features of that resolution."""

    def __init__(self, skip_channels: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.skip_conv = conv3x3(skip_channels, inputs)
        self.out_conv = ResidualConv(inputs, outputs)

    def forward(self, skip: Tensor, objects: Tensor) -> Tensor:
        """skip: 1 x inputs x 2H x 2W, already through ``skip_conv``; objects: O x inputs x H x W."""
        up = F.interpolate(objects, scale_factor=2, mode="bilinear", align_corners=False)
        return self.out_conv(up.add_(skip))


def gated_update(values: Tensor, hidden: Tensor) -> Tensor:
    """XMem's GRU variant. values: O x 3*C x H x W (forget, update, new); hidden: O x C x H x W."""
    forget, update, new = values.chunk(3, 1)
    update = torch.sigmoid(update)
    return torch.sigmoid(forget) * hidden * (1 - update) + update * torch.tanh(new)
