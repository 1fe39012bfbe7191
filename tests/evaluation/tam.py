"""``python -m tests.evaluation.tam ARGS``: ``tam`` with the fake engine, for tests that kill it.

Every step of a propagation takes TAM_TEST_SECONDS.
"""

from __future__ import annotations

import os
import sys
import time

import tam_backend.commands.evaluate
from tam_backend.cli import main
from tests.tracking.fakes import fake_engine


def slow_engine(name: str):
    engine = fake_engine()
    engine.propagator.before_step = lambda frame: time.sleep(float(os.environ["TAM_TEST_SECONDS"]))
    return engine


if __name__ == "__main__":
    tam_backend.commands.evaluate.load_engine = slow_engine
    sys.exit(main())
