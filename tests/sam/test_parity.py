"""ViT-B with the same weights gives the same masks as the official code.

Set TAM_PARITY_REPORT to a file name to have the largest error of each array appended to it, one a line.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from segment_anything.build_sam import build_sam_vit_b
from segment_anything.modeling import Sam

from tam_backend.segmenters.sam import Candidates, Embedding, Predictor, load_sam
from tam_backend.segmenters.sam.split_linear import SplitLinear
from tests.deterministic_weights import SAM, digest, fill
from tests.parity import arrays, document

REFERENCE = arrays("sam_vit_b")

#: Prompts of each case: points, box, whether the best mask of pos_multi is a prompt, whether there are candidates.
CASES = {
    "pos_multi": ("pos", False, False, True),
    "pos_single": ("pos", False, False, False),
    "posneg_multi": ("posneg", False, False, True),
    "box_single": (None, True, False, False),
    "box_pos_multi": ("pos", True, False, True),
    "posneg_mask_multi": ("posneg", False, True, True),
    "mask_only_multi": (None, False, True, True),
}


@pytest.fixture(scope="module")
def sam(tmp_path_factory: pytest.TempPathFactory) -> Sam:
    """ViT-B with deterministic weights, by way of a checkpoint file as a user has one."""
    written = build_sam_vit_b()
    fill(written, SAM)
    file = tmp_path_factory.mktemp("checkpoint") / "sam_vit_b.pth"
    torch.save(written.state_dict(), file)
    del written
    try:
        return load_sam(file)
    finally:
        file.unlink()


@pytest.fixture(scope="module")
def weights(sam: Sam) -> tuple[dict[str, list[int]], str]:
    """Names and shapes, and a digest, of the weights as they came from the file: a predictor may change their form."""
    state = sam.state_dict()
    return {k: list(t.shape) for k, t in state.items()}, digest(state)


@pytest.fixture(scope="module")
def predictor(sam: Sam, weights: object) -> Predictor:
    return Predictor(sam)


@pytest.fixture(scope="module")
def embedding(predictor: Predictor) -> Embedding:
    return predictor.encode(REFERENCE["image"])


@pytest.fixture(scope="module")
def report() -> Iterator[dict[str, float]]:
    errors: dict[str, float] = {}
    yield errors
    if "TAM_PARITY_REPORT" in os.environ:
        with Path(os.environ["TAM_PARITY_REPORT"]).open("a") as file:
            file.writelines(f"sam_vit_b {name}\t{error:.2e}\n" for name, error in errors.items())


@pytest.fixture(scope="module")
def best(predictor: Predictor, embedding: Embedding) -> npt.NDArray[np.float32]:
    """The mask prompt of the cases that have one."""
    answer = predictor.decode(embedding, REFERENCE["prompt_pos"], [1], several=True)
    return answer.low_res[int(answer.iou.argmax())]


def test_weights_are_those_of_the_references(weights: tuple[dict[str, list[int]], str]) -> None:
    published = document("sam_vit_b")
    assert weights == (published["keys"], published["sha256_with_SAM_profile"])


def test_every_reference_is_compared() -> None:
    made = {f"{case}_{part}" for case in CASES for part in ("iou", "masks_packed", "lowres_sub4")}
    made = made - {"pos_multi_lowres_sub4"} | {"pos_multi_lowres", "embedding_sub", "embedding_channel_mean"}
    assert made == {name for name in REFERENCE if name != "image" and not name.startswith("prompt_")}


def test_embedding(predictor: Predictor, embedding: Embedding, report: dict[str, float]) -> None:
    """Stored in 16 bits: the tolerance is half a step of the code, the largest value being below 5; twice that where
    this processor has linear layers computed by products of bfloat16."""
    split = any(isinstance(module, SplitLinear) for module in predictor._sam.image_encoder.modules())
    ours = embedding.unpack(torch.device("cpu"))
    for name, array in (("sub", ours[:, ::8, ::4, ::4]), ("channel_mean", ours.mean((2, 3)))):
        theirs = REFERENCE[f"embedding_{name}"]
        report[f"embedding_{name}"] = float(np.abs(array.numpy() - theirs).max())
        np.testing.assert_allclose(array.numpy(), theirs, rtol=0, atol=2e-4 if split else 1e-4)


@pytest.mark.parametrize("case", CASES)
def test_masks(
    case: str,
    predictor: Predictor,
    embedding: Embedding,
    best: npt.NDArray[np.float32],
    report: dict[str, float],
) -> None:
    points, box, mask, several = CASES[case]
    prompts: dict[str, Any] = {"several": several}
    if points is not None:
        prompts["points"] = REFERENCE[f"prompt_{points}"]
        prompts["labels"] = REFERENCE["prompt_posneg_labels"] if points == "posneg" else [1]
    if box:
        prompts["box"] = REFERENCE["prompt_box"]
    if mask:
        prompts["low_res"] = best
    answer: Candidates = predictor.decode(embedding, **prompts)
    step = 1 if case == "pos_multi" else 4
    low_res = REFERENCE[f"{case}_lowres" + ("" if step == 1 else "_sub4")]
    iou = REFERENCE[f"{case}_iou"]
    report[f"{case} low-res logits"] = float(np.abs(answer.low_res[:, ::step, ::step] - low_res).max())
    report[f"{case} iou"] = float(np.abs(answer.iou - iou).max())
    np.testing.assert_allclose(answer.low_res[:, ::step, ::step], low_res, rtol=0, atol=1e-3)
    np.testing.assert_allclose(answer.iou, iou, rtol=0, atol=1e-4)
    logits = predictor.enlarge(answer.low_res, (240, 320))
    masks = np.unpackbits(REFERENCE[f"{case}_masks_packed"]).reshape(logits.shape).astype(bool)
    different = masks != (logits > 0)
    report[f"{case} different pixels"] = float(different.sum())
    assert np.abs(logits[different]).max(initial=0) < 1e-3
