from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tam_backend.propagators.xmem import XMem
from tests.deterministic_weights import XMEM, fill


@pytest.fixture(scope="session")
def network() -> XMem:
    """The published network with deterministic weights."""
    network = XMem()
    fill(network, XMEM)
    return network


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Images here are tiny: a second thread gains nothing, and on a busy machine it loses a lot by spinning."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
