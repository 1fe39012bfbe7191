"""Published XMem weights: older forms made new."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

FIRST_CONV = "value_encoder.conv1.weight"


def modernise(state: dict[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Bring an older state dict into today's form, in place. expected: the network's own.

    Single-object files have a value encoder without the channel for the other objects' masks: that channel gets zero
    weights. Files from before PyTorch 0.4.1 lack the counters ``num_batches_tracked``, which inference never reads.
    """
    first = state.get(FIRST_CONV)
    if first is not None and first.dim() == 4 and first.shape[1] == 4:
        state[FIRST_CONV] = torch.cat([first, first.new_zeros(first.shape[0], 1, *first.shape[2:])], 1)
    for key in expected:
        if key.endswith(".num_batches_tracked"):
            state.setdefault(key, torch.zeros((), dtype=torch.long))
