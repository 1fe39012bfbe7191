"""The lean way through SAM against the package's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from segment_anything import SamPredictor
from segment_anything.modeling import Sam

from tam_backend.segmenters.sam import Embedding, Predictor, load_sam
from tam_backend.segmenters.sam.encoder import encode, encode_on_gpu
from tam_backend.segmenters.sam.loading import SIZES
from tam_backend.weights import CheckpointError
from tests.torch_threads import one_thread  # noqa: F401 (a fixture for all tests here)

SIZES_OF_FRAMES = [(240, 320), (320, 240), (256, 256), (1080, 1920), (37, 211), (300, 3), (64, 64)]


def frame(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("way", [encode, encode_on_gpu])
def test_the_encoder_computes_what_the_package_computes(
    tiny: Sam, way: Callable[[torch.nn.Module, torch.Tensor], torch.Tensor], threads: int
) -> None:
    torch.set_num_threads(threads)
    image = torch.randn(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(way(tiny.image_encoder, image), tiny.image_encoder(image), atol=1e-5)


@pytest.mark.parametrize("size", SIZES_OF_FRAMES)
def test_a_frame_and_its_masks_are_those_of_the_package(tiny: Sam, size: tuple[int, int]) -> None:
    predictor, package = Predictor(tiny), SamPredictor(tiny)
    image = frame(size)
    package.set_image(image)
    embedding = predictor.encode(image)
    theirs = package.get_image_embedding()
    ours = embedding.unpack(torch.device("cpu"))
    assert torch.allclose(ours, theirs, atol=2e-4)
    points, labels = np.array([[size[1] / 2, size[0] / 3], [1, 2]]), np.array([1, 0])
    logits, iou, low_res = package.predict(points, labels, return_logits=True)
    answer = predictor.decode(embedding, points, labels, several=True)
    np.testing.assert_allclose(answer.low_res, low_res, atol=2e-3)
    np.testing.assert_allclose(answer.iou, iou, atol=1e-4)
    np.testing.assert_allclose(predictor.enlarge(low_res, size), logits, atol=1e-5)


def test_an_embedding_is_held_in_half_the_bytes(tiny: Sam) -> None:
    features = torch.randn(1, 32, 16, 16) * torch.logspace(-3, 3, 32)[:, None, None]
    features[0, 5] = 0
    embedding = Embedding.pack(features, (10, 10))
    assert embedding.nbytes == 32 * 16 * 16 * 2 + 32 * 4
    error = (embedding.unpack(torch.device("cpu")) - features).abs().amax((2, 3))
    assert (error <= features.abs().amax((2, 3)) * 2e-5).all()


def test_the_sizes_are_those_of_the_published_files() -> None:
    published = {768: 375042383, 1024: 1249524607, 1280: 2564550879}
    for channels, build in SIZES.items():
        with torch.device("meta"):
            numbers = sum(t.numel() for t in build().state_dict().values())
        assert 4 * numbers == pytest.approx(published[channels], rel=1e-3)


def test_files_that_are_not_sam(tiny: Sam, tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"other\.pth is not a checkpoint of SAM's ViT-B, ViT-L or ViT-H"):
        load_sam(tmp_path / "other.pth")
    torch.save({"image_encoder.patch_embed.proj.weight": torch.zeros(768, 3, 16, 16)}, tmp_path / "part.pth")
    with pytest.raises(CheckpointError, match=r"part\.pth is not for this network: it lacks 313 entries"):
        load_sam(tmp_path / "part.pth")
