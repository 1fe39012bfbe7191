"""The same weights give the same numbers as the official code, on every reference array there is.

Set TAM_PARITY_REPORT to a file name to have the largest error of each array appended to it, one a line.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from tam_backend.propagators.xmem import XMem, XMemCore
from tam_backend.propagators.xmem.affinity import attend, gather, memory_terms, query_terms
from tam_backend.propagators.xmem.network import FrameEncoding
from tests.deterministic_weights import digest
from tests.parity import arrays, document, image, masks

Compare = Callable[[str, Any, npt.NDArray[Any], float, float], None]


@pytest.fixture(scope="module")
def compare() -> Iterator[Compare]:
    """compare(name, ours, theirs, rtol, atol): fails where they differ by more, and notes the largest error."""
    errors: dict[str, float] = {}

    def run(name: str, ours: Any, theirs: npt.NDArray[Any], rtol: float, atol: float) -> None:
        ours = np.asarray(ours)
        assert ours.shape == theirs.shape, f"{name}: {ours.shape} is not {theirs.shape}"
        errors[name] = max(errors.get(name, 0.0), float(np.abs(ours - theirs).max()))
        np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=atol, err_msg=name)

    yield run
    if "TAM_PARITY_REPORT" in os.environ:
        with Path(os.environ["TAM_PARITY_REPORT"]).open("a") as file:
            file.writelines(f"{name}\t{error:.2e}\n" for name, error in errors.items())


def test_weights_are_those_of_the_references(network: XMem) -> None:
    published = document("xmem_state_dict")
    state = network.state_dict()
    assert {k: (list(t.shape), str(t.dtype)) for k, t in state.items()} == {
        k: (v["shape"], "torch." + v["dtype"]) for k, v in published["keys"].items()
    }
    assert digest(state) == published["sha256_with_XMEM_profile"]


def _network_results(network: XMem) -> dict[str, Tensor]:
    """Every array of xmem_network.npz, computed by our network (without its leading axis of one)."""
    memory, query = network.encode_frame(image(0)), network.encode_frame(image(3))
    results: dict[str, Tensor] = {}
    for name, frame in (("frame0", memory), ("frame3", query)):
        height, width = frame.grid
        for part in ("key", "shrinkage", "selection"):
            results[f"{name}_{part}"] = getattr(frame, part).T.unflatten(1, (height, width))
    assert memory.f8 is not None
    assert memory.f4 is not None
    results |= {"frame0_f16": memory.f16[0], "frame0_f8": memory.f8[0], "frame0_f4": memory.f4[0]}
    for name, labels in (("2obj", [1, 2]), ("1obj", [1])):
        value = network.encode_value(image(0), memory, masks(0, labels, labels))
        results[f"value_{name}"] = value
        results[f"hidden_deep_{name}"] = network.deep_update(value, torch.zeros(len(labels), 64, *memory.grid))
    terms = memory_terms(memory.key, memory.shrinkage)
    similarity = query_terms(query.key, query.selection) @ terms.T
    results["similarity"] = similarity.T
    ones, zeros = torch.ones_like(query.key), torch.zeros(len(query.key), 1)
    # plain L2, where the reference leaves out what depends on the query alone
    results["similarity_no_selection"] = (torch.cat([ones, query.key, zeros], 1) @ terms.T).T
    for name, top_k in (("affinity_top30", 30), ("affinity_full", 60)):
        weights, columns = attend(similarity, top_k)
        results[name] = torch.zeros_like(similarity).scatter_(1, columns, weights).T
    results["usage_top30"] = results["affinity_top30"].sum(1)
    weights, columns = attend(similarity, 30)
    readout = torch.empty(2, 60, 512)
    for values, out in zip(results["value_2obj"].flatten(2).transpose(1, 2), readout, strict=True):
        gather(values.contiguous(), columns, weights, out)
    results["readout_top30"] = readout.transpose(1, 2).unflatten(2, query.grid)
    logits, hidden = network.segment(query, results["readout_top30"], results["hidden_deep_2obj"], True)
    assert hidden is not None
    results |= {"segment_hidden": hidden, "segment_logits_with_bg": logits, "segment_prob_with_bg": logits.softmax(0)}
    return results


@pytest.fixture(scope="module")
def network_results(network: XMem) -> dict[str, Tensor]:
    return _network_results(network)


def test_every_network_array_is_compared(network_results: dict[str, Tensor]) -> None:
    assert network_results.keys() == arrays("xmem_network").keys()


SCENARIOS = document("xmem_scenarios")["scenarios"]
CASES = [
    *(("network", name, True) for name in arrays("xmem_network")),
    *(("core", name, True) for name in SCENARIOS),
    # where no object joins later, the official memory is right, and ours is the same
    *(("core", name, False) for name in SCENARIOS if name not in ("addobj_lt_80x112", "addobj_partial_80x112")),
    ("masks", "track_anything_masks", True),
    ("masks", "track_anything_masks", False),
]


@pytest.mark.parametrize(("kind", "name", "official"), CASES, ids=["-".join(map(str, case)) for case in CASES])
def test_parity(
    kind: str, name: str, official: bool, network: XMem, network_results: dict[str, Tensor], compare: Compare
) -> None:
    if kind == "network":
        tolerance = (0, 2e-4) if "prob" in name else (1e-3, 5e-4)
        compare(name, network_results[name][None], arrays("xmem_network")[name], *tolerance)
    elif kind == "core":
        _scenario(network, name, official, compare)
    else:
        _track_anything(network, official, compare)


def _scenario(network: XMem, name: str, official: bool, compare: Compare) -> None:
    scenario, reference = SCENARIOS[name], arrays(f"xmem_core_{name}")
    crop = tuple(scenario["crop"])
    core = XMemCore(network, {**scenario["config"], "official": official})
    where = f"{name} {'official' if official else 'default'}"
    sizes: dict[str, list[int]] = {"work": [], "long": []}
    for index in range(scenario["frames"]):
        event = scenario["events"].get(str(index))
        mask, valid = None, None
        if event is not None:
            core.set_all_labels(event["all_labels"])
            mask, valid = masks(index, event["objects_in_mask"], event["all_labels"], crop), event["valid_labels"]
        result = core.step(image(index, crop), mask, valid, end=index == scenario["end_frame"]).numpy()
        if f"prob_{index:03d}" in reference:
            compare(f"{where} prob", result, reference[f"prob_{index:03d}"], 0, 1e-3)
        mean = result.mean((1, 2))
        compare(f"{where} prob_mean", mean, reference["prob_mean"][index, : len(mean)], 0, 1e-4)
        assert core.memory is not None
        sizes["work"].append(core.memory.work)
        sizes["long"].append(core.memory.long)
    assert sizes == {"work": scenario["trace"]["work"], "long": scenario["trace"]["long"]}
    ours = _state(core)
    for key in reference:
        if key.startswith("state_"):
            compare(f"{where} {key}", ours[key], reference[key], 1e-3, 5e-4)


def _state(core: XMemCore) -> dict[str, npt.NDArray[Any]]:
    memory = core.memory
    assert memory is not None
    usage = memory.table("use") / memory.table("life")
    state: dict[str, Tensor] = {"state_hidden": torch.from_numpy(_hidden(core))}
    sections = {"work": slice(memory.long, memory.long + memory.work), "long": slice(0, memory.long)}
    for name, section in sections.items():
        state[f"state_{name}_key"] = memory.table("key")[section].T
        state[f"state_{name}_shrinkage"] = memory.table("shrinkage")[section].T
        state[f"state_{name}_usage"] = usage[section].T
    result = {key: tensor[None].numpy() for key, tensor in state.items()}
    for i, group in enumerate(memory.groups):
        count = int(group.members.rows[: memory.long].sum())
        means = [values.rows[:count].mean(0) for values in group.values.values()]
        result[f"state_long_value_mean_group{i}"] = torch.stack(means).numpy()
    return result


def _hidden(core: XMemCore) -> npt.NDArray[Any]:
    state = core.state()
    return np.stack([state[f"hidden.{label}"] for label in core.labels])


def _track_anything(network: XMem, official: bool, compare: Compare) -> None:
    """The tracker of the released Track-Anything, with its settings."""
    config = {
        "max_mid_term_frames": 10,
        "min_mid_term_frames": 5,
        "max_long_term_elements": 1000,
        "num_prototypes": 128,
        "mem_every": 5,
        "official": official,
    }
    core = XMemCore(network, config)
    core.set_all_labels([1, 2])
    theirs = arrays("track_anything_masks")["masks"]
    for index, expected in enumerate(theirs):
        mask = masks(0, [1, 2], [1, 2]) if index == 0 else None
        ours = core.step(image(index), mask, [1, 2] if index == 0 else None).argmax(0).numpy()
        compare("track_anything share of other pixels", np.mean(ours != expected), np.zeros(()), 0, 0.005)


def test_a_frame_encoded_beforehand_gives_the_same_result(network: XMem) -> None:
    results = []
    for encode in (False, True):
        core = XMemCore(network)
        core.set_all_labels([1, 2])
        for index in range(3):
            encoding: FrameEncoding | None = core.encode(image(index)) if encode else None
            mask = masks(0, [1, 2], [1, 2]) if index == 0 else None
            probability = core.step(image(index), mask, encoding=encoding)
        results.append(probability)
    assert torch.equal(*results)
