"""Linear layers for processors that multiply bfloat16 far faster than float32 (Intel AMX), at nearly its accuracy.

A float32 number is the sum of two of bfloat16, high and low, but for 2^-17 of it. So a product of matrices is high x
high + high x low + low x high, but for terms of that size, if the sums are in float32. Such a product is in the
documented interface of Intel's MKL (``cblas_gemm_bf16bf16f32``), which PyTorch's own library for x86 contains, while
PyTorch itself would round each product to bfloat16. Where the processor or that function is missing, layers stay as
they are.
"""

from __future__ import annotations

import ctypes
import functools
import threading
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

#: Layers with fewer inputs or outputs gain nothing.
LEAST_FEATURES = 256
#: Rows at once at most, so that the parts of their inputs stay in a core's cache.
ROWS = 1024

#: Arguments of MKL: rows one after the other, a matrix as it is, and transposed.
_ROW_MAJOR, _PLAIN, _TRANSPOSED = 101, 111, 112

#: (MxK bfloat16, NxK bfloat16, MxN float32, contiguous): adds the product of the first and the transposed second.
AddProduct = Callable[[Tensor, Tensor, Tensor], None]


@functools.cache
def add_product() -> AddProduct | None:
    """The function of MKL; None where PyTorch comes without it."""
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    try:
        gemm = ctypes.CDLL(str(library)).cblas_gemm_bf16bf16f32
    except (OSError, AttributeError):
        return None
    number, scale, data = ctypes.c_int, ctypes.c_float, ctypes.c_void_p
    gemm.argtypes = [*[number] * 6, scale, data, number, data, number, scale, data, number]
    gemm.restype = None

    def add(left: Tensor, right: Tensor, out: Tensor) -> None:
        (m, k), n = left.shape, right.shape[0]
        factors = left.data_ptr(), k, right.data_ptr(), k
        gemm(_ROW_MAJOR, _PLAIN, _TRANSPOSED, m, n, k, 1.0, *factors, 1.0, out.data_ptr(), n)

    return add


@functools.cache
def is_quick() -> bool:
    """Whether this processor has AMX for bfloat16."""
    try:
        return "amx_bf16" in Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return False


class SplitLinear(nn.Module):
    """What ``nn.Linear`` computes, on CPU, for inference. Takes as much memory."""

    def __init__(self, layer: nn.Linear, add: AddProduct) -> None:
        super().__init__()
        self._add = add
        self.high, self.low = _Room().split(layer.weight.detach())  # in memory of their own: they stay
        bias = layer.bias
        self.bias = bias.detach() if bias is not None else torch.zeros(layer.out_features)

    def forward(self, x: Tensor) -> Tensor:
        """...xK float32 -> ...xN float32."""
        rows = x.reshape(-1, x.shape[-1])
        out = self.bias.repeat(len(rows), 1)
        for start in range(0, len(rows), ROWS):
            high, low = _room.split(rows[start : start + ROWS])
            part = out[start : start + ROWS]
            for left, right in ((low, self.high), (high, self.low), (high, self.high)):
                self._add(left, right, part)
        return out.view(*x.shape[:-1], -1)


def split_layers(network: nn.Module) -> None:
    """Put a ``SplitLinear`` in the place of each large linear layer of a network, where that is quicker."""
    add = add_product() if is_quick() else None
    if add is None:
        return
    for module in list(network.modules()):
        for name, layer in module.named_children():
            if isinstance(layer, nn.Linear) and min(layer.in_features, layer.out_features) >= LEAST_FEATURES:
                setattr(module, name, SplitLinear(layer, add))


class _Room(threading.local):
    """Each thread's memory for the parts of what it multiplies: to touch new memory takes longer than to split."""

    def __init__(self) -> None:
        self._parts = torch.empty(2, 0, dtype=torch.bfloat16)
        self._rest = torch.empty(0)

    def split(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """High and low part of float32 values, bfloat16, contiguous; until the next call."""
        count = values.numel()
        if self._rest.numel() < count:
            self._parts, self._rest = torch.empty(2, count, dtype=torch.bfloat16), torch.empty(count)
        high, low = (part[:count].view(values.shape) for part in self._parts)
        rest = self._rest[:count].view(values.shape)
        high.copy_(values)
        rest.copy_(high)  # a difference of two types takes longer than this
        low.copy_(torch.sub(values, rest, out=rest))
        return high, low


_room = _Room()
