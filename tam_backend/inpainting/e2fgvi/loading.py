"""The network with the weights of a file."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from tam_backend.inpainting.e2fgvi.network import E2FGVI
from tam_backend.weights import CheckpointError, check_tensors, read_tensors


def check_e2fgvi(path: Path) -> dict[str, Tensor]:
    """The tensors of a file. Raises CheckpointError if they are not those of E2FGVI-HQ, all of them and no others."""
    with torch.device("meta"):
        expected = E2FGVI().state_dict()
    state = read_tensors(path)
    if "sc.bias" in state and "sc.bias_conv.weight" not in state:
        raise CheckpointError(
            f"{path.name} holds the weights of E2FGVI, which knows one size only; E2FGVI-HQ is needed: "
            "E2FGVI-HQ-CVPR22.pth"
        )
    check_tensors(state, expected, path.name)
    for name, tensor in state.items():
        if name.endswith("valid_ind_rolled") and not bool(((tensor >= 0) & (tensor < 180)).all()):
            raise CheckpointError(f"{path.name}: {name} names cells that no window has; the file is damaged")
    return state


def load_e2fgvi(path: Path, device: torch.device | None = None) -> E2FGVI:
    """The network with the weights of ``E2FGVI-HQ-CVPR22.pth``.

    Raises CheckpointError if there is no such file or if it is not a checkpoint of this network.
    """
    state = {n: t.float() if t.is_floating_point() else t for n, t in check_e2fgvi(path).items()}
    with torch.device("meta"):  # weights of chance, to be replaced at once, take seconds to make
        network = E2FGVI()
    network.load_state_dict(state, assign=True)
    network.requires_grad_(False)
    return network if device is None else network.to(device)
