"""Published XMem weights: older forms made new, and a strict check of what a file holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tam_backend.errors import BadInput

FIRST_CONV = "value_encoder.conv1.weight"


def modernise(state: dict[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Bring an older state dict into today's form, in place.

    Single-object files have a value encoder without the channel for the other objects' masks: that channel gets zero
    weights. Files from before PyTorch 0.4.1 lack the counters ``num_batches_tracked``, which inference never reads.
    """
    first = state.get(FIRST_CONV)
    if first is not None and first.dim() == 4 and first.shape[1] == 4:
        state[FIRST_CONV] = torch.cat([first, first.new_zeros(first.shape[0], 1, *first.shape[2:])], 1)
    for key in expected:
        if key.endswith(".num_batches_tracked"):
            state.setdefault(key, torch.zeros((), dtype=torch.long))


def check_structure(state: Any, expected: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The state dict in today's form. Raises BadInput if it is not one of this network: keys, shapes, dtypes, values.

    expected: the state dict of the network (its values are not read, so it may be on the meta device).
    """
    if not isinstance(state, Mapping) or not all(isinstance(t, Tensor) for t in state.values()):
        raise BadInput(f"{name} does not hold a plain dictionary of tensors, as the published file does")
    state = dict(state)
    modernise(state, expected)
    missing, extra = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    for what, keys in (("lacks", missing), ("has unknown", extra)):
        if keys:
            raise BadInput(f"{name} is not this network: it {what} {len(keys)} entries, such as {keys[0]!r}")
    for key, want in expected.items():
        got = state[key]
        if got.shape != want.shape or got.is_floating_point() != want.is_floating_point():
            raise BadInput(
                f"{name}: {key} is {got.dtype} {tuple(got.shape)}, it must be {want.dtype} {tuple(want.shape)}"
            )
        if not torch.isfinite(got).all():
            raise BadInput(f"{name}: {key} holds values that are not finite; the file is damaged")
    return state
