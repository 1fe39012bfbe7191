from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tam_backend.checkpoints import CHECKPOINTS, Checkpoint, fetch, find_checkpoint, verify
from tam_backend.cli import main
from tam_backend.errors import BadInput
from tam_backend.propagators.xmem import XMem
from tam_backend.weights import CheckpointError
from tests.checkpoints.conftest import CONTENT
from tests.checkpoints.server import FileServer

SHA256 = hashlib.sha256(CONTENT).hexdigest()
MD5 = hashlib.md5(CONTENT).hexdigest()


def never(path: Path) -> None:
    raise AssertionError("the structure was looked at")


@pytest.fixture
def checkpoint(server: FileServer) -> Checkpoint:
    return Checkpoint(
        "name", "file.pth", f"{server.url}/publisher/file.pth", "tests", "none", len(CONTENT), SHA256, MD5
    )


def test_the_registry_is_what_was_published() -> None:
    for name, checkpoint in CHECKPOINTS.items():
        assert checkpoint.name == name
        assert checkpoint.url.startswith("https://")
        assert checkpoint.url.endswith("/" + checkpoint.file) or checkpoint.url.startswith("https://drive.")
        assert len(checkpoint.sha256) in (0, 64)
        assert len(checkpoint.md5) in (0, 32)
        # a file is judged by a hash or by its structure
        assert bool(checkpoint.sha256 or checkpoint.md5) != bool(checkpoint.structure)
    assert find_checkpoint("XMem.pth") is find_checkpoint("xmem")
    with pytest.raises(BadInput, match="there is no checkpoint 'sam'; known checkpoints: sam_vit_b, "):
        find_checkpoint("sam")


def test_fetch_downloads_and_verifies(server: FileServer, checkpoint: Checkpoint, tmp_path: Path) -> None:
    verified = fetch(checkpoint, tmp_path / "new", never)
    assert verified.path == tmp_path / "new" / "file.pth"
    assert verified.path.read_bytes() == CONTENT
    assert (verified.sha256, verified.by) == (SHA256, ("sha256", "md5"))
    assert [path for path, _ in server.requests] == ["/publisher/file.pth"]


def test_fetch_from_a_mirror(server: FileServer, checkpoint: Checkpoint, tmp_path: Path) -> None:
    elsewhere = replace(checkpoint, url="https://publisher.invalid/file.pth")
    fetch(elsewhere, tmp_path, never, mirror=f"{server.url}/mirror/")
    assert [path for path, _ in server.requests] == ["/mirror/file.pth"]


def test_a_file_put_there_by_hand_is_accepted(server: FileServer, checkpoint: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "file.pth").write_bytes(CONTENT)
    assert fetch(checkpoint, tmp_path, never).sha256 == SHA256
    assert server.requests == []


def test_a_wrong_file_put_there_by_hand_is_named_and_stays(
    server: FileServer, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    path = tmp_path / "file.pth"
    for content, message in (
        (CONTENT[:-1], f"file.pth has {len(CONTENT) - 1} bytes, the published file has {len(CONTENT)}"),
        (CONTENT[:-1] + b"x", f"file.pth has the sha256 .*, the published file has {SHA256}"),
    ):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=f"{message}. Delete .* to have it downloaded anew"):
            fetch(checkpoint, tmp_path, never)
        assert path.read_bytes() == content
    assert server.requests == []


def test_a_wrong_download_leaves_nothing(server: FileServer, checkpoint: Checkpoint, tmp_path: Path) -> None:
    server.content = CONTENT[:-1] + b"x"
    with pytest.raises(CheckpointError, match=r"has been deleted: .*has the sha256 .*, the published file has"):
        fetch(checkpoint, tmp_path, never)
    assert list(tmp_path.iterdir()) == []


def test_md5_counts_where_it_is_all_that_is_known(checkpoint: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "file.pth").write_bytes(CONTENT)
    assert verify(replace(checkpoint, sha256=""), tmp_path, never).by == ("md5",)
    with pytest.raises(CheckpointError, match=f"has the md5 {MD5}, the published file has {'0' * 32}"):
        verify(replace(checkpoint, sha256="", md5="0" * 32), tmp_path, never)


def test_the_structure_counts_where_no_hash_is_known(checkpoint: Checkpoint, tmp_path: Path) -> None:
    def refuse(path: Path) -> None:
        raise CheckpointError("it lacks a leg")

    unknown = replace(checkpoint, size=None, sha256="", md5="")
    (tmp_path / "file.pth").write_bytes(CONTENT)
    seen: list[Path] = []
    assert verify(unknown, tmp_path, seen.append).by == ("structure",)
    assert seen == [tmp_path / "file.pth"]
    with pytest.raises(CheckpointError, match="it lacks a leg"):
        verify(unknown, tmp_path, refuse)
    (tmp_path / "file.pth").unlink()
    with pytest.raises(CheckpointError, match="has been deleted: it lacks a leg"):
        fetch(unknown, tmp_path, refuse)
    assert list(tmp_path.iterdir()) == []


def test_a_pin_beside_the_file_counts_as_well(checkpoint: Checkpoint, tmp_path: Path) -> None:
    unknown = replace(checkpoint, size=None, sha256="", md5="")
    pin = tmp_path / "file.pth.sha256"
    (tmp_path / "file.pth").write_bytes(CONTENT)
    pin.write_text(f"{SHA256.upper()}  file.pth\n")
    assert verify(unknown, tmp_path, lambda path: None).by == ("structure", "pin")
    pin.write_text(f"{'0' * 64}  file.pth\n")
    with pytest.raises(CheckpointError, match=f"has the sha256 {SHA256}, but file.pth.sha256 says 0000"):
        verify(unknown, tmp_path, lambda path: None)
    pin.write_text("no hash")
    with pytest.raises(CheckpointError, match=r"file\.pth\.sha256 does not begin with a sha256"):
        verify(unknown, tmp_path, lambda path: None)
    (tmp_path / "file.pth").unlink()
    pin.write_text("0" * 64)
    with pytest.raises(CheckpointError, match="has been deleted"):
        fetch(unknown, tmp_path, lambda path: None)
    assert [p.name for p in tmp_path.iterdir()] == [pin.name]


def test_a_missing_file_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="get it with: tam checkpoints download sam_vit_b"):
        verify(find_checkpoint("sam_vit_b"), tmp_path, never)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TAM_CHECKPOINT_DIR", str(tmp_path))
    return tmp_path


def test_tam_checkpoints_list(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "XMem.pth").write_bytes(b"x" * 2_000_000)
    assert main(["checkpoints", "list"]) == 0
    out = capsys.readouterr().out
    assert str(folder) in out
    assert "xmem: here, 2 MB" in out
    assert "sam_vit_b: not here" in out
    for checkpoint in CHECKPOINTS.values():
        assert checkpoint.file in out
        assert checkpoint.url in out
        assert checkpoint.licence in out


def test_tam_checkpoints_download_and_verify(
    server: FileServer, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """XMem-s012 is the one of which no hash is known: a file of the right structure will do."""
    torch.save(XMem().state_dict(), folder / "made.pth")
    server.content = (folder / "made.pth").read_bytes()
    (folder / "made.pth").unlink()
    server.cuts = [100_000_000]
    monkeypatch.setenv("TAM_CHECKPOINT_URL", server.url)
    assert main(["checkpoints", "download", "XMem-s012.pth"]) == 0
    sha256 = hashlib.sha256(server.content).hexdigest()
    assert f"xmem_s012: good, by structure\n  {folder}/XMem-s012.pth\n  sha256 {sha256}" in capsys.readouterr().out
    assert server.requests == [("/XMem-s012.pth", None), ("/XMem-s012.pth", "bytes=100000000-")]
    assert main(["checkpoints", "verify"]) == 0
    assert sha256 in capsys.readouterr().out


def test_tam_checkpoints_refuses_wrong_files(
    server: FileServer, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TAM_CHECKPOINT_URL", server.url)
    assert main(["checkpoints", "download", "xmem_s012"]) == 1
    error = capsys.readouterr().err
    assert "tam checkpoints: error: what came from" in error
    assert "is not a checkpoint of plain tensors" in error
    assert list(folder.iterdir()) == []
    (folder / "sam_vit_b_01ec64.pth").write_bytes(CONTENT)
    assert main(["checkpoints", "verify"]) == 1
    assert "sam_vit_b: WRONG. sam_vit_b_01ec64.pth has 3000000 bytes" in capsys.readouterr().out
    assert main(["checkpoints", "verify", "xmem"]) == 1
    assert main(["checkpoints", "verify", "xmen"]) == 2


def test_tam_checkpoints_verify_of_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["checkpoints", "verify"]) == 0
    assert "there are no checkpoints in" in capsys.readouterr().out
