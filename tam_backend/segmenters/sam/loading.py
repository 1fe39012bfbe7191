"""SAM with the weights of a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from segment_anything.build_sam import build_sam_vit_b, build_sam_vit_h, build_sam_vit_l
from segment_anything.modeling import Sam

from tam_backend.segmenters.sam.predictor import DEVIATION, MEAN
from tam_backend.weights import CheckpointError, check_tensors, read_tensors

#: Channels of the image encoder -> what builds a SAM of that size.
SIZES: dict[int, Callable[[], Sam]] = {768: build_sam_vit_b, 1024: build_sam_vit_l, 1280: build_sam_vit_h}


def load_sam(path: Path, device: torch.device | None = None) -> Sam:
    """SAM with the weights of ``sam_vit_b_01ec64.pth``, ``sam_vit_l_0b3195.pth`` or ``sam_vit_h_4b8939.pth``; which of
    the three sizes it is, the weights say.

    Raises CheckpointError if there is no such file or if it is not a checkpoint of SAM.
    """
    state = read_tensors(path)
    patches = state.get("image_encoder.patch_embed.proj.weight")
    build = SIZES.get(len(patches)) if patches is not None and patches.dim() else None
    if build is None:
        raise CheckpointError(f"{path.name} is not a checkpoint of SAM's ViT-B, ViT-L or ViT-H")
    with torch.device("meta"):
        sam = build()
    check_tensors(state, sam.state_dict(), path.name)
    sam.load_state_dict({name: t.float() if t.is_floating_point() else t for name, t in state.items()}, assign=True)
    for name, values in (("pixel_mean", MEAN), ("pixel_std", DEVIATION)):  # which are in no file
        setattr(sam, name, torch.tensor(values).view(-1, 1, 1))
    sam = sam.eval().requires_grad_(False)
    return sam if device is None else sam.to(device)
