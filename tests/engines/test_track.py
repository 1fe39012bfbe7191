"""``tam track --engine sam-xmem``: file, verification, loading, click, propagation, outputs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from segment_anything.build_sam import build_sam_vit_b

from tam_backend.cli import main
from tam_backend.segmenters.sam import Predictor
from tests.deterministic_weights import SAM, fill
from tests.engines.conftest import SAM_FILE, XMEM_FILE, publish
from tests.fakes import make_video

FRAMES, WIDTH, HEIGHT = 9, 96, 64


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return make_video(tmp_path / "video.mp4", FRAMES, WIDTH, HEIGHT)


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAM_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("TAM_DEVICE", "cpu")
    monkeypatch.setenv("TAM_XMEM_SHORT_SIDE", "64")
    monkeypatch.setenv("TAM_CHECKPOINT_DIR", str(tmp_path / "checkpoints"))


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Grows by the frames that SAM encodes."""
    seen: list[tuple[int, ...]] = []
    encode = Predictor.encode

    def count(self: Predictor, frame: np.ndarray) -> object:
        seen.append(frame.shape)
        return encode(self, frame)

    monkeypatch.setattr(Predictor, "encode", count)
    return seen


def masks(out: Path) -> list[np.ndarray]:
    return [np.array(Image.open(path)) for path in sorted(out.glob("*.png"))]


@pytest.mark.usefixtures("folder", "environment")
def test_from_files_to_outputs(
    video: Path, tmp_path: Path, encoded: list[tuple[int, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["track", str(video), "--engine", "sam-xmem", "--out", str(out), "--quiet", "--overlay"]
    assert main([*command, "--click", "2,30,20"]) == 0
    first = masks(out)
    assert [m.shape for m in first] == [(HEIGHT, WIDTH)] * FRAMES
    assert set(np.unique(first)) <= {0, 1}
    assert first[2][20, 30] == 1
    assert (out / "overlay.mp4").stat().st_size > 0
    [prediction] = json.loads((out / "predictions.json").read_text())["predictions"]
    assert prediction["model_version"].endswith("-sam-xmem")
    assert {region["meta"]["engine"] for region in prediction["result"]} == {"sam-xmem"}
    assert main([*command, "--click", "2,30,20", "--click", "2,70,50,-"]) == 0
    again = masks(out)
    assert (again[2][20, 30], again[2][50, 70]) == (1, 0)
    assert len(encoded) == 1, "the second call finds the embedding on disk"
    capsys.readouterr()
    assert main([*command[:3], "embedded", *command[4:], "--click", "2,30,20"]) == 0
    assert f"{out} has masks of the engine sam-xmem-3-" in capsys.readouterr().err


@pytest.mark.usefixtures("environment")
def test_a_checkpoint_that_is_not_the_published_one_is_refused(
    written: Path, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(written, tmp_path / "checkpoints")  # a tiny SAM under the name of ViT-B
    out = tmp_path / "out"
    assert main(["track", str(video), "--engine", "sam-xmem", "--click", "2,30,20", "--out", str(out)]) == 1
    assert f"tam track: error: {SAM_FILE} has " in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.usefixtures("environment")
def test_at_full_size(written: Path, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ViT-B and XMem as they are published, but for their weights."""
    torch.set_num_threads(2)
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    (folder / XMEM_FILE).hardlink_to(written / XMEM_FILE)
    sam = build_sam_vit_b()
    fill(sam, SAM)
    torch.save(sam.state_dict(), folder / SAM_FILE)
    del sam
    publish(monkeypatch, "sam_vit_b", folder / SAM_FILE)
    out = tmp_path / "out"
    arguments = ["--click", "4,30,20", "--start", "2", "--end", "6", "--out", str(out), "--quiet"]
    assert main(["track", str(video), "--engine", "sam-xmem", *arguments]) == 0
    assert sorted(p.name for p in out.glob("*.png")) == [f"{i:05d}.png" for i in range(2, 7)]
    assert masks(out)[2][20, 30] == 1
    (folder / SAM_FILE).unlink()
