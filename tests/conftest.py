from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes import FakeLabelStudio


@pytest.fixture
def label_studio(tmp_path: Path) -> Iterator[FakeLabelStudio]:
    """A fake Label Studio that serves the files of ``<tmp_path>/media``."""
    root = tmp_path / "media"
    root.mkdir()
    fake = FakeLabelStudio(root)
    yield fake
    fake.close()
