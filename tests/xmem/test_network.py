from __future__ import annotations

import socket
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tam_backend.propagators.xmem import XMem, load_xmem
from tam_backend.weights import CheckpointError
from tests.parity import image


@pytest.fixture(scope="module")
def published(network: XMem) -> dict[str, Tensor]:
    return dict(network.state_dict())


def test_making_the_network_downloads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("the network was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    XMem()


def test_the_published_form_loads_strictly_from_a_file(published: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(published, tmp_path / "XMem.pth")
    network = XMem()
    network.load_state_dict(torch.load(tmp_path / "XMem.pth", weights_only=True))
    assert all(torch.equal(t, published[k]) for k, t in network.state_dict().items())


def test_files_without_batch_counters_load(published: dict[str, Tensor]) -> None:
    old = {k: t for k, t in published.items() if not k.endswith("num_batches_tracked")}
    assert len(old) < len(published)
    network = XMem()
    network.load_state_dict(old)
    assert torch.equal(network.key_proj.e_proj.weight, published["key_proj.e_proj.weight"])


def test_single_object_files_load_and_ignore_the_other_objects(published: dict[str, Tensor]) -> None:
    name = "value_encoder.conv1.weight"
    network = XMem()
    network.load_state_dict({**published, name: published[name][:, :4]})
    assert torch.equal(network.value_encoder.conv1.weight[:, :4], published[name][:, :4])
    frame = network.encode_frame(image(0))
    mask = torch.zeros(2, 96, 160)
    mask[0, 20:60, 20:60] = 1
    alone = network.encode_value(image(0), frame, mask)[0]
    mask[1, 60:90, 100:150] = 1
    assert torch.allclose(network.encode_value(image(0), frame, mask)[0], alone, atol=1e-5)


def test_weights_changed_after_use_count(published: dict[str, Tensor]) -> None:
    network = XMem()
    before = network.encode_frame(image(0))
    network.load_state_dict(published)
    after = network.encode_frame(image(0))
    assert not torch.allclose(before.key, after.key, atol=1e-2)
    fresh = XMem()
    fresh.load_state_dict(published)
    assert torch.equal(after.key, fresh.encode_frame(image(0)).key)


def test_load_xmem_takes_a_file_of_any_form(published: dict[str, Tensor], tmp_path: Path) -> None:
    name = "value_encoder.conv1.weight"
    old = {k: t for k, t in published.items() if not k.endswith("num_batches_tracked")}
    for number, state in enumerate((published, old, {**published, name: published[name][:, :4]})):
        file = tmp_path / f"{number}.pth"
        torch.save(state, file)
        assert torch.equal(load_xmem(file).key_proj.e_proj.weight, published["key_proj.e_proj.weight"])
        file.unlink()


def test_load_xmem_refuses_other_files(published: dict[str, Tensor], tmp_path: Path) -> None:
    key = "key_proj.key_proj.bias"
    damaged = published[key].clone()
    damaged[3] = float("nan")
    without = {k: t for k, t in published.items() if k != key}
    for number, (state, message) in enumerate(
        [
            (without, f"0.pth is not for this network: it lacks 1 entries, such as '{key}'"),
            ({**published, "head.bias": damaged}, "it has unknown 1 entries, such as 'head.bias'"),
            (
                {**published, key: damaged[:5]},
                r"key_proj.bias is torch.float32 \(5,\), it must be torch.float32 \(64,\)",
            ),
            ({**published, key: damaged.nan_to_num().long()}, "key_proj.bias is torch.int64"),
            ({**published, key: damaged}, "key_proj.key_proj.bias holds values that are not finite"),
            ({"model": published}, "does not hold a plain dictionary of tensors"),
            ([1, 2], "does not hold a plain dictionary of tensors"),
        ]
    ):
        file = tmp_path / f"{number}.pth"
        torch.save(state, file)
        with pytest.raises(CheckpointError, match=message):
            load_xmem(file)
        file.unlink()
