from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tam_backend.cli import main
from tam_backend.engines import Engine
from tests.fakes import make_video
from tests.tracking.fakes import fake_engine

FRAMES, WIDTH, HEIGHT = 20, 32, 24


@dataclass(frozen=True)
class Result:
    """What a person gets of a call: exit code, stdout, stderr."""

    code: int
    out: str
    err: str


Tam = Callable[..., Result]


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 frames of 32x24 pixels, 10 frames a second."""
    return make_video(tmp_path_factory.mktemp("video") / "tiny.mp4", FRAMES, WIDTH, HEIGHT)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five pictures of 32x24 pixels."""
    root = tmp_path_factory.mktemp("pictures")
    for i in range(5):
        Image.fromarray(np.full((HEIGHT, WIDTH, 3), 40 * i, np.uint8)).save(root / f"{i}.png")
    return root


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    """The engine that ``tam track`` gets, whatever it asks for."""
    fake = fake_engine()
    monkeypatch.setattr("tam_backend.commands.track.load_engine", lambda name, settings: fake)
    return fake


@pytest.fixture
def tam(capfd: pytest.CaptureFixture[str]) -> Tam:
    """Run ``tam`` in this process."""

    def run(*arguments: object) -> Result:
        capfd.readouterr()
        try:
            code = main([str(a) for a in arguments])
        except SystemExit as e:  # argparse: help, version, options that it refuses
            code = e.code if isinstance(e.code, int) else 1
        captured = capfd.readouterr()
        return Result(code, captured.out, captured.err)

    return run


def read_ids(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.mode == "P"
        return np.array(image)


def masks_in(out: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(out.glob("*.png"))}


def write_indexed(path: Path, ids: np.ndarray) -> Path:
    image = Image.fromarray(ids.astype(np.uint8)).convert("L")
    indexed = Image.frombytes("P", image.size, image.tobytes())
    indexed.putpalette(bytes(range(256)) * 3)
    indexed.save(path)
    return path
