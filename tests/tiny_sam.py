"""A SAM with all its parts, but small: images of 256 pixels, four blocks of 32 channels."""

from __future__ import annotations

from functools import partial

import torch
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

CHANNELS = 32


def build_tiny_sam() -> Sam:
    """With weights of chance, as the package's own builders make them."""
    return Sam(
        ImageEncoderViT(
            img_size=256,
            embed_dim=CHANNELS,
            depth=4,
            num_heads=2,
            out_chans=32,
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=5,
            global_attn_indexes=(1, 3),
        ),
        PromptEncoder(embed_dim=32, image_embedding_size=(16, 16), input_image_size=(256, 256), mask_in_chans=16),
        MaskDecoder(
            transformer_dim=32,
            transformer=TwoWayTransformer(depth=2, embedding_dim=32, num_heads=4, mlp_dim=64),
            iou_head_hidden_dim=32,
        ),
    )
