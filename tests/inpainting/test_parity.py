"""The same weights give the same numbers as the official code of E2FGVI-HQ, on all three cases there are.

Set TAM_PARITY_REPORT to a file name to have the largest error of each array appended to it, one a line.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from tam_backend.inpainting.e2fgvi.network import E2FGVI
from tam_backend.inpainting.e2fgvi.windows import compose, prepare
from tests.deterministic_weights import digest
from tests.parity import arrays, document

#: Case -> its local frames; the others are references.
LOCAL = {"a": 8, "b": 5, "c": 3}


class Compare:
    def __init__(self) -> None:
        self.errors: dict[str, float] = {}

    def __call__(self, name: str, ours: Tensor, atol: float) -> None:
        theirs = arrays("e2fgvi_hq")[name]
        assert ours.shape == theirs.shape, f"{name}: {ours.shape} is not {theirs.shape}"
        error = self.errors[name] = float(np.abs(ours.numpy() - theirs).max())
        assert error <= atol, f"{name}: {error} is more than {atol}"


@pytest.fixture(scope="module")
def compare() -> Iterator[Compare]:
    run = Compare()
    yield run
    if "TAM_PARITY_REPORT" in os.environ:
        with Path(os.environ["TAM_PARITY_REPORT"]).open("a") as file:
            file.writelines(f"{name}\t{error:.2e}\n" for name, error in run.errors.items())


def pictures(case: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    frames = arrays("e2fgvi_hq")[f"{case}_frames"]
    holes = np.unpackbits(arrays("e2fgvi_hq")[f"{case}_masks"], axis=-1, count=frames.shape[2])
    return frames, holes.astype(np.bool_)


def test_weights_are_those_of_the_references(network: E2FGVI) -> None:
    published = document("e2fgvi_hq_state_dict")
    state = network.state_dict()
    assert {k: list(t.shape) for k, t in state.items()} == published["shapes"]
    assert digest(state) == published["sha256"]


@pytest.mark.parametrize("case", LOCAL)
def test_whole_network(network: E2FGVI, case: str, compare: Compare) -> None:
    local = LOCAL[case]
    frames, holes = pictures(case)
    x = prepare(list(frames), list(holes))
    forward, backward = network.flows(x[:local])
    compare(f"{case}_flow_fwd", forward, 2e-4)
    compare(f"{case}_flow_bwd", backward, 2e-4)
    features = network.features(x, local)
    mixed = network.tokens_to_features(features)
    output = network.decode(mixed)
    compare(f"{case}_out_sub3", output[:, :, 1::3, 1::3], 1e-4)
    if case == "a":
        encoded = torch.cat([network.encoder(frame[None]) for frame in x])
        compare("a_enc_sub", encoded[:, ::16, 1::3, 1::3], 1e-4)
        compare("a_prop_sub", features[:local, ::16, 1::3, 1::3], 2e-4)
        compare("a_tokens_sub", network.ss(features).unflatten(1, (10, 18))[..., ::32], 2e-4)
        compare("a_comp_sub", (mixed - features)[:, ::16, 1::3, 1::3], 6e-4)
    if case == "b":
        theirs = arrays("e2fgvi_hq")["b_composed"]
        for i in range(local):
            ours = compose(frames[i], holes[i], output[i])
            assert np.abs(ours.astype(int) - theirs[i]).max() <= 1
            assert np.array_equal(ours[~holes[i]], frames[i][~holes[i]])
