"""``python -m tests.cli.tam ARGS``: the program ``tam`` with the fake engine, for tests that stop it from outside.

Every step makes the file TAM_TEST_STEP and then takes TAM_TEST_SECONDS.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import tam_backend.commands.track
from tam_backend.cli import main
from tam_backend.settings import Settings
from tests.tracking.fakes import fake_engine


def slow_engine(name: str, settings: Settings):
    def step(frame: int) -> None:
        Path(os.environ["TAM_TEST_STEP"]).touch()
        time.sleep(float(os.environ["TAM_TEST_SECONDS"]))

    engine = fake_engine()
    engine.propagator.before_step = step
    return engine


if __name__ == "__main__":
    tam_backend.commands.track.load_engine = slow_engine
    sys.exit(main())
