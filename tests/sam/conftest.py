from __future__ import annotations

import pytest
from segment_anything.modeling import Sam

from tests.deterministic_weights import SAM, fill
from tests.tiny_sam import build_tiny_sam


@pytest.fixture(scope="session")
def tiny() -> Sam:
    sam = build_tiny_sam()
    fill(sam, SAM)
    return sam.eval()
