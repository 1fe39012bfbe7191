"""Reading checkpoint files without trusting them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tam_backend.errors import TamError

if TYPE_CHECKING:
    from torch import Tensor


class CheckpointError(TamError):
    """A checkpoint is not there, is not what it should be, or cannot be fetched."""


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a PyTorch checkpoint by name, on CPU. Nothing in the file is executed.

    Raises CheckpointError if there is no such file, or if it is not a plain dictionary of tensors.
    """
    import torch

    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint at {path}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols that checkpoints do not use
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, MemoryError):
        raise
    except Exception as e:  # the unpickler fails in any way there is on bytes that are not a checkpoint
        reason = str(e).strip().partition("\n")[0][:200]
        raise CheckpointError(f"{path.name} is not a checkpoint of plain tensors, or it is damaged: {reason}") from e
    if not isinstance(state, Mapping) or not all(isinstance(t, torch.Tensor) for t in state.values()):
        raise CheckpointError(f"{path.name} does not hold a plain dictionary of tensors, as the published file does")
    return {str(name): tensor for name, tensor in state.items()}


def check_tensors(state: Mapping[str, Tensor], expected: Mapping[str, Any], name: str) -> None:
    """Raise CheckpointError unless ``state`` fits ``expected`` exactly: names, shapes, kinds of numbers, finite values.

    expected: the state dict of the network (its values are not read, so it may be on the meta device). Half precision
    counts as floating point like any other: it is converted when it is loaded.
    """
    import torch

    missing, extra = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    for what, keys in (("lacks", missing), ("has unknown", extra)):
        if keys:
            raise CheckpointError(f"{name} is not for this network: it {what} {len(keys)} entries, such as {keys[0]!r}")
    for key, want in expected.items():
        got = state[key]
        if got.shape != want.shape or got.is_floating_point() != want.is_floating_point():
            raise CheckpointError(
                f"{name}: {key} is {got.dtype} {tuple(got.shape)}, it must be {want.dtype} {tuple(want.shape)}"
            )
        # A sum is finite only where all values are, and it is ten times as quick; one that overflows says nothing.
        if got.is_floating_point() and not torch.isfinite(got.sum()) and not torch.isfinite(got).all():
            raise CheckpointError(f"{name}: {key} holds values that are not finite; the file is damaged")
