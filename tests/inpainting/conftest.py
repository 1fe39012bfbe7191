from __future__ import annotations

import pytest
import torch

from tam_backend.inpainting.e2fgvi.network import E2FGVI
from tests.deterministic_weights import E2FGVI as PROFILE
from tests.deterministic_weights import fill
from tests.torch_threads import one_thread  # noqa: F401 (a fixture for all tests here)


@pytest.fixture(scope="session")
def network() -> E2FGVI:
    """The published network with deterministic weights."""
    with torch.device("meta"):
        network = E2FGVI()
    network = network.to_empty(device="cpu").requires_grad_(False)
    fill(network, PROFILE)
    return network
