"""``python -m tests.cli.tam ARGS``: the program ``tam`` with the fake engine, for tests that stop it from outside.

TAM_TEST_SECONDS is what one frame takes.
"""

from __future__ import annotations

import os
import sys
import time

import tam_backend.commands.track
from tam_backend.cli import main
from tests.tracking.fakes import fake_engine


def slow_engine(name: str):
    engine = fake_engine()
    engine.propagator.before_step = lambda frame: time.sleep(float(os.environ["TAM_TEST_SECONDS"]))
    return engine


if __name__ == "__main__":
    tam_backend.commands.track.load_engine = slow_engine
    sys.exit(main())
