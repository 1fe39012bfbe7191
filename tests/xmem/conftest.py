from __future__ import annotations

import pytest

from tam_backend.propagators.xmem import XMem
from tests.deterministic_weights import XMEM, fill
from tests.torch_threads import one_thread  # noqa: F401 (a fixture for all tests here)


@pytest.fixture(scope="session")
def network() -> XMem:
    """The published network with deterministic weights."""
    network = XMem()
    fill(network, XMEM)
    return network
