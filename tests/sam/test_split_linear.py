"""Linear layers by products of bfloat16: near float32, and only where that is quick."""

from __future__ import annotations

import platform

import numpy as np
import pytest
import torch
from torch import nn

from tam_backend.segmenters.sam import Predictor, split_linear
from tam_backend.segmenters.sam.split_linear import ROWS, SplitLinear, add_product, split_layers
from tests.deterministic_weights import SAM, fill
from tests.tiny_sam import build_tiny_sam


def add_in_float32(left, right, out):
    """What the function of MKL computes; a product of two numbers of bfloat16 is one of float32."""
    out.addmm_(left.float(), right.float().T)


@pytest.fixture
def quick(monkeypatch):
    """As on a processor with AMX, whatever this one has."""
    monkeypatch.setattr(split_linear, "is_quick", lambda: True)
    if add_product() is None:
        monkeypatch.setattr(split_linear, "add_product", lambda: add_in_float32)


def error_and_bound(layer, add, x):
    """Largest error over what 2^-16 of the sizes of all terms would be."""
    weight, bias = layer.weight.double(), 0 if layer.bias is None else layer.bias.double()
    truth = x.double() @ weight.T + bias
    sizes = x.double().abs() @ weight.abs().T
    return float(((SplitLinear(layer, add)(x) - truth).abs() / (2**-16 * sizes)).max())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [1, 7, ROWS, ROWS + 3])
def test_it_is_nearly_as_exact_as_float32(bias, rows):
    torch.manual_seed(rows)
    layer = nn.Linear(320, 256, bias=bias).requires_grad_(False)
    x = torch.randn(rows, 320) * torch.logspace(-3, 3, 320)
    assert error_and_bound(layer, add_in_float32, x) < 1
    high_alone = SplitLinear(layer, add_in_float32)
    high_alone.low.zero_()
    assert float((high_alone(x) - layer(x)).abs().max()) > 20 * float(
        (SplitLinear(layer, add_in_float32)(x) - layer(x)).abs().max()
    )


@pytest.mark.skipif(platform.machine() != "x86_64", reason="MKL is in PyTorch for x86 only")
def test_the_function_of_pytorchs_library_is_there_and_does_it():
    add = add_product()
    assert add is not None
    torch.manual_seed(0)
    layer = nn.Linear(768, 512).requires_grad_(False)
    assert error_and_bound(layer, add, torch.randn(40, 768)) < 1
    left, right, out = torch.randn(5, 12).bfloat16(), torch.randn(7, 12).bfloat16(), torch.randn(5, 7)
    expected = out + left.float() @ right.float().T
    add(left, right, out)
    torch.testing.assert_close(out, expected)


def test_any_number_of_dimensions_and_any_strides():
    layer = nn.Linear(6, 4).requires_grad_(False)
    x = torch.randn(6, 2, 3, 5).permute(1, 2, 3, 0)
    torch.testing.assert_close(SplitLinear(layer, add_in_float32)(x), layer(x), atol=1e-4, rtol=1e-4)


def test_large_layers_are_replaced_where_it_is_quick(quick):
    network = nn.Sequential(nn.Linear(256, 256), nn.Sequential(nn.Linear(256, 512), nn.Linear(512, 255)))
    split_layers(network)
    assert isinstance(network[0], SplitLinear)
    assert isinstance(network[1][0], SplitLinear)
    assert isinstance(network[1][1], nn.Linear), "too few outputs"


@pytest.mark.parametrize("lacking", ["is_quick", "add_product"])
def test_elsewhere_all_stays(quick, monkeypatch, lacking):
    monkeypatch.setattr(split_linear, lacking, lambda: None)
    network = nn.Sequential(nn.Linear(256, 256))
    split_layers(network)
    assert isinstance(network[0], nn.Linear)


def test_an_encoder_with_split_layers_says_the_same(quick, monkeypatch, tiny):
    picture = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    plain = Predictor(tiny).encode(picture).unpack(torch.device("cpu"))
    monkeypatch.setattr(split_linear, "LEAST_FEATURES", 1)
    sam = build_tiny_sam()
    fill(sam, SAM)
    predictor = Predictor(sam)
    layers = [m for m in sam.image_encoder.modules() if isinstance(m, SplitLinear)]
    assert len(layers) == 4 * len(sam.image_encoder.blocks)
    torch.testing.assert_close(predictor.encode(picture).unpack(torch.device("cpu")), plain, atol=1e-3, rtol=0)
