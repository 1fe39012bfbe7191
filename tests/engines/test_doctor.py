"""``tam doctor``: what it sees, what it advises, and its exit code."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tam_backend.cli import main
from tam_backend.commands import doctor_checks
from tam_backend.commands.doctor_checks import available_memory
from tam_backend.commands.doctor_trial import try_engine
from tam_backend.engines import load_engine
from tam_backend.segmenters.sam import predictor
from tests.engines.conftest import SAM_FILE, XMEM_FILE
from tests.fakes import FakeLabelStudio, fake_engine

Doctor = Callable[..., tuple[int, list[dict[str, str]]]]

pytestmark = pytest.mark.usefixtures("loaded_once")


@pytest.fixture
def doctor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Doctor:
    """Run it with settings; gives its exit code and findings."""
    monkeypatch.setenv("TAM_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("TAM_CHECKPOINT_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("TAM_DEVICE", "cpu")
    monkeypatch.setenv("TAM_XMEM_SHORT_SIDE", "64")
    for name in ("TAM_ENGINE", "TAM_LABEL_STUDIO_URL", "TAM_LABEL_STUDIO_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(doctor_checks, "available_memory", lambda: 10**11)
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=10**12))

    def run(*arguments: str, **environment: object) -> tuple[int, list[dict[str, str]]]:
        for name, value in environment.items():
            monkeypatch.setenv(name, str(value))
        capsys.readouterr()
        code = main(["doctor", "--json", *arguments])
        answer = json.loads(capsys.readouterr().out)
        assert answer["ok"] == (code == 0) == (not [f for f in answer["findings"] if f["level"] == "problem"])
        return code, answer["findings"]

    return run


def about(findings: list[dict[str, str]], topic: str) -> list[tuple[str, str, str]]:
    return [(f["level"], f["text"], f["advice"]) for f in findings if f["topic"] == topic]


def test_all_is_well_without_any_checkpoint(doctor: Doctor, tmp_path: Path) -> None:
    code, findings = doctor()
    assert code == 0
    [(level, text, _)] = about(findings, "programs")
    assert level == "ok"
    assert f"torch {torch.__version__.partition('+')[0]}" in text
    [(level, text, advice)] = about(findings, "checkpoints")
    assert (level, advice) == ("note", "tam checkpoints download sam_vit_b xmem_s012")
    assert str(tmp_path / "none") in text
    [(level, text, _)] = about(findings, "engine embedded")
    assert level == "ok"
    assert text.startswith("10 frames: loaded in ")
    assert about(findings, "engine sam-xmem") == []
    assert about(findings, "engine") == [("ok", "TAM_ENGINE=auto: the server uses embedded", "")]
    assert [f["level"] for f in findings if f["topic"] in ("memory", "Label Studio")][:1] == ["note"]
    assert not (tmp_path / "data").exists(), "it changes nothing"


def test_in_words(doctor: Doctor, capsys: pytest.CaptureFixture[str]) -> None:
    doctor()
    assert main(["doctor", "--quick"]) == 0
    out = capsys.readouterr().out
    assert "\n        -> tam checkpoints download sam_vit_b xmem_s012\n" in out
    assert out.endswith("\nAll is well.\n")
    assert "engine embedded" not in out


def test_checkpoints_are_verified_and_their_engine_tried(doctor: Doctor, folder: Path) -> None:
    """Its weights are of chance, so the doctor must see that its masks are wrong."""
    code, findings = doctor(TAM_CHECKPOINT_DIR=folder)
    sam, xmem = about(findings, "checkpoints")
    assert sam[1].startswith(f"sam_vit_b: {SAM_FILE} is good by sha256, sha256 ")
    assert xmem[1].startswith(f"xmem_s012: {XMEM_FILE} is good by structure, sha256 ")
    assert code == 1
    [(level, text, advice)] = about(findings, "engine sam-xmem")
    assert (level, advice) == ("problem", "are the checkpoints the trained ones? Get them anew")
    assert text.startswith("the masks are wrong. 10 frames: loaded in ")
    assert about(findings, "engine") == [("ok", "TAM_ENGINE=auto: the server uses sam-xmem", "")]
    code, findings = doctor(TAM_ENGINE="embedded")
    assert code == 0, "nobody uses it"
    assert about(findings, "engine sam-xmem")[0][0] == "note"


def test_a_damaged_checkpoint(doctor: Doctor, folder: Path) -> None:
    (folder / SAM_FILE).unlink()
    (folder / SAM_FILE).write_bytes(b"x" * 1000)
    code, findings = doctor(TAM_CHECKPOINT_DIR=folder)
    assert code == 1
    level, text, advice = about(findings, "checkpoints")[0]
    assert level == "problem"
    assert text.startswith(f"sam_vit_b: {SAM_FILE} has 1000 bytes, the published file has ")
    assert advice == "delete it, and: tam checkpoints download sam_vit_b"
    assert about(findings, "engine") == [("ok", "TAM_ENGINE=auto: the server uses embedded", "")]


def test_an_engine_that_was_asked_for_and_is_not_there(doctor: Doctor) -> None:
    code, findings = doctor("--quick", TAM_ENGINE="sam-xmem")
    assert code == 1
    assert about(findings, "checkpoints")[0][0] == "problem"
    code, findings = doctor(TAM_ENGINE="sam-xmem")
    assert about(findings, "engine")[0][0] == "problem"


def test_a_device_that_is_full(doctor: Doctor, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(predictor, "encode", full)
    code, findings = doctor(TAM_CHECKPOINT_DIR=folder)
    assert code == 1
    [(level, text, _)] = about(findings, "engine sam-xmem")
    assert level == "problem"
    assert "not enough memory on cpu for SAM" in text
    assert about(findings, "engine") == [("ok", "TAM_ENGINE=auto: the server uses sam-xmem", "")]


def test_a_device_that_is_not_there(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    code, findings = doctor("--quick", TAM_DEVICE="cuda")
    assert code == 1
    [(level, text, advice)] = about(findings, "device")
    assert level == "problem"
    assert text.startswith("the device 'cuda' was asked for, but PyTorch sees none here")
    assert advice == "set TAM_DEVICE to what there is, or to auto"


def test_a_wrong_setting(doctor: Doctor) -> None:
    code, findings = doctor(TAM_CLIP_LENGTH="many")
    assert code == 1
    assert about(findings, "settings")[0][1].startswith("TAM_CLIP_LENGTH is 'many'; it must be")


def test_without_pytorch(doctor: Doctor, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tam_backend.sam_xmem.PACKAGES", ("no_such_package",))
    code, findings = doctor(TAM_CHECKPOINT_DIR=folder)
    assert code == 0
    sam, xmem = about(findings, "checkpoints")
    assert (sam[0], xmem[0]) == ("ok", "note"), "a hash can be judged, a structure not"
    level, text, advice = about(findings, "device")[0]
    assert (level, text) == ("note", "no no_such_package installed: only the embedded engine, on cpu")
    assert advice.startswith("make install-torch")


def test_label_studio(doctor: Doctor, label_studio: FakeLabelStudio) -> None:
    known = {"TAM_LABEL_STUDIO_URL": label_studio.url, "TAM_LABEL_STUDIO_TOKEN": label_studio.TOKEN}
    code, findings = doctor("--quick", **known)
    said = f"{label_studio.url} answers, and the token is that of owner@example.test"
    assert (code, about(findings, "Label Studio")) == (0, [("ok", said, "")])
    code, findings = doctor("--quick", TAM_LABEL_STUDIO_TOKEN="f" * 40)
    [(level, text, advice)] = about(findings, "Label Studio")
    assert (code, level) == (1, "problem")
    assert "refuses the token (401)" in text
    assert advice.startswith("make a token")
    assert "f" * 40 not in text
    code, findings = doctor("--quick", TAM_LABEL_STUDIO_TOKEN="")
    assert about(findings, "Label Studio") == [
        ("note", f"{label_studio.url} answers; no token is set", "set TAM_LABEL_STUDIO_TOKEN")
    ]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    code, findings = doctor("--quick", TAM_LABEL_STUDIO_URL=url)
    [(level, _, advice)] = about(findings, "Label Studio")
    assert (code, level) == (1, "problem")
    assert advice == f"is it running, and is {url} right as seen from this machine?"


@pytest.mark.parametrize(("free", "level"), [(10**9, "problem"), (10**10, "note"), (10**12, "ok")])
def test_disk(doctor: Doctor, monkeypatch: pytest.MonkeyPatch, free: int, level: str) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=free))
    code, findings = doctor("--quick")
    assert about(findings, "disk")[0][0] == level
    assert code == (level == "problem")


@pytest.mark.parametrize(
    ("free", "level"), [(5 * 10**8, "problem"), (2 * 10**9, "note"), (10**11, "ok"), (None, "note")]
)
def test_memory(doctor: Doctor, monkeypatch: pytest.MonkeyPatch, free: int | None, level: str) -> None:
    monkeypatch.setattr(doctor_checks, "available_memory", lambda: free)
    _, findings = doctor("--quick")
    assert about(findings, "memory")[0][0] == level


def test_a_folder_that_cannot_be_written(doctor: Doctor, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, findings = doctor("--quick", TAM_DATA_DIR=tmp_path / "file" / "data")
    assert code == 1
    assert about(findings, "disk")[0][0] == "problem"


def test_memory_of_a_machine_and_of_a_container(tmp_path: Path) -> None:
    assert available_memory(tmp_path) is None
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9000 kB\nMemAvailable: 5000 kB\n")
    assert available_memory(tmp_path) == 5000 * 1024
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("max\n")
    assert available_memory(tmp_path) == 5000 * 1024
    (group / "memory.max").write_text("3000000\n")
    (group / "memory.current").write_text("1000000\n")
    assert available_memory(tmp_path) == 2_000_000


def test_a_check_that_breaks_is_a_finding(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(settings: Any) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(doctor_checks, "room", broken)
    code, findings = doctor("--quick")
    assert code == 1
    assert about(findings, "room") == [
        ("problem", "looking at it failed: ZeroDivisionError: division by zero", "please report this")
    ]


def test_the_trial_tells_right_masks_from_wrong_ones() -> None:
    assert try_engine(load_engine("embedded")).worst > 0.9
    assert try_engine(fake_engine()).worst < 0.5
