from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from tam_backend.weights import CheckpointError, check_tensors, read_tensors


class Harmful:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_a_plain_checkpoint_is_read(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "file.pth")
    assert read_tensors(tmp_path / "file.pth")["a"].tolist() == [1, 1]


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    for number, legacy in enumerate((False, True)):
        file = tmp_path / f"{number}.pth"
        torch.save({"a": Harmful(tmp_path / "made")}, file, _use_new_zipfile_serialization=not legacy)
        with pytest.raises(CheckpointError, match="is not a checkpoint of plain tensors, or it is damaged"):
            read_tensors(file)
    assert not (tmp_path / "made").exists()


def test_files_that_are_no_checkpoints(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1000)}, tmp_path / "whole.pth")
    whole = (tmp_path / "whole.pth").read_bytes()
    with zipfile.ZipFile(tmp_path / "archive.pth", "w") as archive:
        archive.writestr("readme", "nothing")
    contents = {
        "empty.pth": b"",
        "page.pth": b"<!doctype html><html><body>Not found</body></html>",
        "cut.pth": whole[: len(whole) // 2],
        "pickle.pth": pickle.dumps({"a": 1}),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    for name in (*contents, "archive.pth"):
        with pytest.raises(CheckpointError, match=name):
            read_tensors(tmp_path / name)
    with pytest.raises(CheckpointError, match="there is no checkpoint at"):
        read_tensors(tmp_path / "absent.pth")


@pytest.mark.parametrize("values", [torch.full((10,), 60000.0, dtype=torch.float16), torch.tensor([3e38, 3e38, -3e38])])
def test_large_values_are_finite_even_where_their_sum_is_not(values: torch.Tensor) -> None:
    assert not torch.isfinite(values.cumsum(0)).all()
    check_tensors({"a": values}, {"a": torch.zeros(len(values))}, "file")
    for wrong in (float("nan"), float("inf"), float("-inf")):
        damaged = values.clone()
        damaged[1] = wrong
        with pytest.raises(CheckpointError, match="a holds values that are not finite"):
            check_tensors({"a": damaged}, {"a": torch.zeros(len(values))}, "file")
