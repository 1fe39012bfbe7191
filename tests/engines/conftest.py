"""Checkpoints as files, with weights that mean nothing: the whole way from a file to masks, in seconds."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import tam_backend.propagators.xmem as propagators_xmem
import tam_backend.segmenters.sam as segmenters_sam
from tam_backend.checkpoints import CHECKPOINTS
from tam_backend.propagators.xmem import XMem
from tam_backend.segmenters.sam import loading
from tam_backend.settings import Settings
from tests.deterministic_weights import SAM, XMEM, fill
from tests.tiny_sam import CHANNELS, build_tiny_sam
from tests.torch_threads import one_thread  # noqa: F401 (a fixture for all tests here)

SAM_FILE, XMEM_FILE = CHECKPOINTS["sam_vit_b"].file, CHECKPOINTS["xmem_s012"].file


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the checkpoints of a tiny SAM and of XMem at its full size, under the published names."""
    folder = tmp_path_factory.mktemp("checkpoints")
    sam, network = build_tiny_sam(), XMem()
    fill(sam, SAM)
    fill(network, XMEM)
    torch.save(sam.state_dict(), folder / SAM_FILE)
    torch.save(network.state_dict(), folder / XMEM_FILE)
    yield folder
    shutil.rmtree(folder)


def publish(monkeypatch: pytest.MonkeyPatch, name: str, path: Path) -> None:
    """Make this file the published one."""
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    known = replace(CHECKPOINTS[name], size=path.stat().st_size, sha256=sha256)
    monkeypatch.setitem(CHECKPOINTS, name, known)


@pytest.fixture
def folder(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint folder of this test's own. The tiny SAM counts as the published ViT-B."""
    own = tmp_path / "checkpoints"
    own.mkdir()
    for path in written.iterdir():
        (own / path.name).hardlink_to(path)
    publish(monkeypatch, "sam_vit_b", own / SAM_FILE)
    monkeypatch.setitem(loading.SIZES, CHANNELS, build_tiny_sam)
    return own


@pytest.fixture
def settings(folder: Path, tmp_path: Path) -> Callable[..., Settings]:
    """Settings that find the checkpoints, with others in their place."""

    def make(**others: Any) -> Settings:
        values = {"data_dir": tmp_path / "data", "checkpoint_dir": folder, "device": "cpu", "xmem_short_side": 64}
        return Settings(**values | others)

    return make


@pytest.fixture
def loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is hashed each time, but looked into and loaded once in all: networks are not changed by being used."""
    for module, name in (
        (segmenters_sam, "load_sam"),
        (propagators_xmem, "load_xmem"),
        (propagators_xmem, "check_xmem"),
    ):
        monkeypatch.setattr(module, name, _once(getattr(module, name)))


_LOADED: dict[tuple[str, int, int], Any] = {}


def _once(load: Callable[..., Any]) -> Callable[..., Any]:
    def run(path: Path, *device: torch.device) -> Any:
        stat = path.stat()
        key = (load.__name__, stat.st_ino, stat.st_mtime_ns)
        if key not in _LOADED:
            _LOADED[key] = load(path, *device)
        return _LOADED[key]

    return run
