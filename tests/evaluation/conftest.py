from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tam_backend.engines import Engine
from tam_backend.evaluation.datasets import Sequence, load_sequence
from tam_backend.evaluation.layouts import find_sequences
from tam_backend.evaluation.protocols.base import Options, Work
from tests.tracking.fakes import DictStore, fake_engine


@pytest.fixture
def engine() -> Engine:
    """Moves every mask one pixel to the right per frame; clicks make discs of radius 5, boxes fill themselves."""
    return fake_engine()


@pytest.fixture
def make_work(engine: Engine) -> Callable[..., Work]:
    """A sequence of a data set on disk, ready for a protocol."""

    def make(root: Path, options: Options | None = None, engine: Engine = engine) -> Work:
        (paths,) = find_sequences(root).sequences
        options = options or Options()
        sequence: Sequence = load_sequence(paths, merge=options.merge)
        written: dict[int, object] = {}
        return Work(engine, sequence, sequence.open(), DictStore(), options, lambda share: None, written.__setitem__)

    return make
