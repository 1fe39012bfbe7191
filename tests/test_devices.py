from __future__ import annotations

import pytest
import torch

from tam_backend.devices import choose_device, out_of_memory
from tam_backend.errors import BadInput


def _machine(monkeypatch: pytest.MonkeyPatch, cuda: int = 0, mps: bool = False) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(("cuda", "mps", "best"), [(0, False, "cpu"), (0, True, "mps"), (1, True, "cuda")])
def test_auto_takes_the_best_there_is(monkeypatch: pytest.MonkeyPatch, cuda: int, mps: bool, best: str) -> None:
    _machine(monkeypatch, cuda, mps)
    assert choose_device().type == best


def test_a_device_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    _machine(monkeypatch, cuda=2)
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("cuda:1") == torch.device("cuda:1")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cuda", "the device 'cuda' was asked for, but PyTorch sees none here. It sees: cpu"),
        ("mps", "the device 'mps' was asked for"),
        ("gpu", "there is no device 'gpu'; known devices: auto, cuda, mps, cpu"),
        ("cpu:1", "there is no device 'cpu:1'"),
        ("cuda:x", "there is no device 'cuda:x'"),
    ],
)
def test_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch, name: str, message: str) -> None:
    _machine(monkeypatch)
    with pytest.raises(BadInput, match=message):
        choose_device(name)


def test_a_gpu_beyond_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    _machine(monkeypatch, cuda=2)
    with pytest.raises(BadInput, match="'cuda:2' was asked for, but there are 2, counted from 0"):
        choose_device("cuda:2")


def test_out_of_memory_is_recognised() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60)
    assert out_of_memory(caught.value)
    assert not out_of_memory(RuntimeError("out of range"))
    assert not out_of_memory(KeyError("out of memory"))
