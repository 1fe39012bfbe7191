"""Which engine it is, what it is made of, and what is said where it cannot be had."""

from __future__ import annotations

import hashlib
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tam_backend import sam_xmem
from tam_backend.devices import DeviceError
from tam_backend.engines import Engine, EngineUnavailable, engine_changed, load_engine
from tam_backend.errors import BadInput, TamError
from tam_backend.sam_xmem import choose_checkpoints
from tam_backend.settings import Settings
from tam_backend.weights import CheckpointError
from tests.checkpoints.server import FileServer
from tests.engines.conftest import SAM_FILE, XMEM_FILE, publish
from tests.fakes import fake_engine

Make = Callable[..., Settings]

pytestmark = pytest.mark.usefixtures("loaded_once")


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


@pytest.mark.parametrize("name", ["auto", "sam-xmem"])
def test_the_engine_is_made_of_the_files_that_are_there(
    name: str, settings: Make, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = load_engine(name, settings())
    assert (engine.name, engine.segmenter.name, engine.propagator.name) == ("sam-xmem", "sam", "xmem")
    files = (sha256(folder / SAM_FILE)[:8], sha256(folder / XMEM_FILE)[:8])
    assert engine.version == f"3-{files[0]}-{files[1]}-64-fp32-probes3-0.65"
    assert engine.detail == f"{SAM_FILE}, {XMEM_FILE}, cpu, fp32, frames reduced to 64 for XMem"
    assert warnings_of(caplog) == []


def test_other_weights_and_sizes_are_another_version(
    settings: Make, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = {
        load_engine("sam-xmem", settings()).version,
        load_engine("sam-xmem", settings(xmem_short_side=48)).version,
    }
    state = torch.load(folder / SAM_FILE)
    state["mask_decoder.iou_token.weight"] += 1
    (folder / SAM_FILE).unlink()
    torch.save(state, folder / SAM_FILE)
    publish(monkeypatch, "sam_vit_b", folder / SAM_FILE)
    versions.add(load_engine("sam-xmem", settings()).version)
    assert len(versions) == 3


def refusals(settings: Make, caplog: pytest.LogCaptureFixture, kind: type[TamError], **others: object) -> str:
    """What sam-xmem refuses with; auto takes embedded then and says the same, in one line."""
    with pytest.raises(kind) as refused:
        load_engine("sam-xmem", settings(**others))
    caplog.clear()
    assert load_engine("auto", settings(**others)).name == "embedded"
    [line] = [w for w in warnings_of(caplog) if not w.startswith("downloading")]
    assert line.startswith("THE ENGINE IS embedded, not sam-xmem: ")
    assert str(refused.value) in line
    assert "\n" not in line
    return str(refused.value)


@pytest.mark.parametrize(("file", "name"), [(SAM_FILE, "sam_vit_b"), (XMEM_FILE, "xmem_s012")])
def test_without_a_checkpoint(
    settings: Make, folder: Path, caplog: pytest.LogCaptureFixture, file: str, name: str
) -> None:
    (folder / file).unlink()
    said = refusals(settings, caplog, CheckpointError)
    assert said == f"{file} is not in {folder}. Get it with: tam checkpoints download {name}"


def test_without_a_checkpoint_nobody_pays_for_pytorch(tmp_path: Path) -> None:
    code = (
        "import sys, tam_backend.engines as e; assert e.load_engine('auto').name == 'embedded';"
        "assert 'torch' not in sys.modules"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env=environment)


def test_with_a_damaged_checkpoint(settings: Make, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = bytearray((folder / SAM_FILE).read_bytes())
    content[-1] ^= 1
    (folder / SAM_FILE).unlink()
    (folder / SAM_FILE).write_bytes(content)
    assert "has the sha256" in refusals(settings, caplog, CheckpointError)


def test_without_pytorch(settings: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sam_xmem, "PACKAGES", ("torch", "no_such_package"))
    said = refusals(settings, caplog, EngineUnavailable)
    assert said.startswith("sam-xmem needs no_such_package, not installed here. Install with: make install-torch")


def test_a_device_too_small_for_the_weights(
    settings: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("tam_backend.propagators.xmem.load_xmem", full)
    assert f"to load {SAM_FILE}. Choose a smaller SAM" in refusals(settings, caplog, DeviceError)


def test_a_device_that_does_not_work(
    settings: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object) -> None:
        raise RuntimeError("CUDA error: no kernel image is available\nCompile with ...")

    monkeypatch.setattr("tam_backend.propagators.xmem.load_xmem", broken)
    with pytest.raises(RuntimeError):
        load_engine("auto", settings())  # not on cpu: that is a mistake of ours
    monkeypatch.setattr("tam_backend.devices.choose_device", lambda name: torch.device("cuda"))
    said = refusals(settings, caplog, DeviceError)
    assert said == "cuda cannot be used: CUDA error: no kernel image is available. TAM_DEVICE=cpu goes without it"


@pytest.mark.parametrize("name", ["auto", "sam-xmem"])
def test_a_device_that_is_not_there_is_an_error_whatever_the_engine(
    name: str, settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BadInput, match="the device 'cuda' was asked for, but PyTorch sees none here"):
        load_engine(name, settings(device="cuda"))


def test_embedded_looks_for_no_checkpoint(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert load_engine("embedded", Settings(checkpoint_dir=tmp_path, device="cuda")).name == "embedded"
    assert warnings_of(caplog) == []


def test_missing_checkpoints_are_downloaded_where_that_is_allowed(
    settings: Make, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = FileServer((folder / SAM_FILE).read_bytes())
    try:
        (folder / SAM_FILE).unlink()
        allowed = settings(checkpoint_url=server.url, checkpoint_download=True)
        assert load_engine("auto", allowed).name == "sam-xmem"
        assert [path for path, _ in server.requests] == [f"/{SAM_FILE}"]
        assert warnings_of(caplog)[0].startswith(f"downloading {SAM_FILE}, ")
        server.content = b"an error page" * 1000
        (folder / SAM_FILE).unlink()
        said = refusals(settings, caplog, CheckpointError, checkpoint_url=server.url, checkpoint_download=True)
    finally:
        server.close()
    assert said.startswith(f"{SAM_FILE} is not there and could not be downloaded: ")
    assert not (folder / SAM_FILE).exists()


def test_a_start_without_a_network_does_not_hang(settings: Make, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    patience = sam_xmem.AT_START
    assert patience.attempts * max(patience.connect, patience.silence) <= 30
    monkeypatch.setattr("tam_backend.sam_xmem.AT_START", replace(patience, connect=0.2, silence=0.2))
    monkeypatch.setattr("tam_backend.download.PAUSE", 0.0)
    (folder / SAM_FILE).unlink()
    with socket.socket() as silent:  # takes no connection, and refuses none
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(silent.getsockname())
        started = time.monotonic()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        engine = load_engine("auto", settings(checkpoint_url=url, checkpoint_download=True))
        for filler in fillers:
            filler.close()
    assert engine.name == "embedded"
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("there", "size", "gpu", "chosen"),
    [
        ((), "auto", False, ("sam_vit_b", "xmem_s012")),
        ((), "auto", True, ("sam_vit_b", "xmem_s012")),
        (("sam_vit_h", "sam_vit_l", "xmem"), "auto", True, ("sam_vit_h", "xmem")),
        (("sam_vit_h", "sam_vit_l", "xmem"), "auto", False, ("sam_vit_l", "xmem")),
        (("sam_vit_h", "xmem", "xmem_s012"), "vit_b", True, ("sam_vit_b", "xmem_s012")),
    ],
)
def test_which_checkpoints_are_taken(
    tmp_path: Path, there: tuple[str, ...], size: str, gpu: bool, chosen: tuple[str, str]
) -> None:
    for name in there:
        (tmp_path / sam_xmem.CHECKPOINTS[name].file).touch()
    sam, xmem = choose_checkpoints(Settings(checkpoint_dir=tmp_path, sam=size), gpu)
    assert (sam.name, xmem.name) == chosen


def test_settings_reach_the_engine(settings: Make, tmp_path: Path) -> None:
    engine = load_engine("sam-xmem", settings(xmem_short_side=240, embedding_memory_mb=3, embedding_disk_mb=0))
    assert engine.propagator.size.fit(480, 854) == (240, 427)
    assert engine.segmenter.embeddings._memory.max_bytes == 3_000_000
    assert not (tmp_path / "data" / "embeddings").exists()


def test_a_change_of_the_engine_is_told_at_the_next_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert not engine_changed(fake_engine(), tmp_path)
    assert not engine_changed(fake_engine(), tmp_path)
    assert warnings_of(caplog) == []
    other = Engine("fake", "2", fake_engine().segmenter, fake_engine().propagator)
    assert engine_changed(other, tmp_path)
    assert engine_changed(load_engine("embedded"), tmp_path)
    assert not engine_changed(load_engine("embedded"), tmp_path)
    first, second = warnings_of(caplog)
    assert "it is fake 2, and was fake 1 at the last start (its checkpoints or settings are others)" in first
    assert "it is embedded 7-probes3-0.65, and was fake 2 at the last start (TAM_ENGINE=fake goes back)" in second
