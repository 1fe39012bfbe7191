"""The XMem network with the weights of a file."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from tam_backend.propagators.xmem.network import XMem
from tam_backend.propagators.xmem.weights import modernise
from tam_backend.weights import check_tensors, read_tensors


def check_xmem(path: Path) -> dict[str, Tensor]:
    """The tensors of a file in today's form. Raises CheckpointError if they are not those of this network."""
    with torch.device("meta"):
        expected = XMem().state_dict()
    state = read_tensors(path)
    modernise(state, expected)
    check_tensors(state, expected, path.name)
    return state


def load_xmem(path: Path, device: torch.device | None = None) -> XMem:
    """The network with the weights of ``XMem.pth``, ``XMem-s012.pth`` or an older form of them.

    Raises CheckpointError if there is no such file or if it is not a checkpoint of this network.
    """
    state = {n: t.float() if t.is_floating_point() else t for n, t in check_xmem(path).items()}
    with torch.device("meta"):  # weights of chance, to be replaced at once, take two seconds to make
        network = XMem()
    network.load_state_dict(state, assign=True)
    network = network.to(memory_format=torch.channels_last)
    return network if device is None else network.to(device)
