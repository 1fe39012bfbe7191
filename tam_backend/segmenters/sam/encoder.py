"""The image encoder of SAM (Kirillov et al., "Segment Anything", ICCV 2023), computed leanly.

Modules and weights are those of the ``segment-anything`` package, results the same up to rounding. What is different:
the attention of the global blocks, whose matrix has 4096 x 4096 entries per head, is computed head by head with the
fused kernel, instead of several passes over all heads at once (0.8 GB each at ViT-B). On CPU all is computed in pieces
(see ``encoder_cpu``).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from segment_anything.modeling.image_encoder import Attention, Block, ImageEncoderViT
from torch import Tensor

from tam_backend.segmenters.sam import encoder_cpu
from tam_backend.segmenters.sam.encoder_cpu import relative


def encode(encoder: ImageEncoderViT, image: Tensor) -> Tensor:
    """1x3xSxS float, normalised and padded, S the encoder's image size -> 1xCxhxw, h and w being S over 16."""
    return (encoder_cpu.encode if image.device.type == "cpu" else encode_on_gpu)(encoder, image)


def encode_on_gpu(encoder: ImageEncoderViT, image: Tensor) -> Tensor:
    """``encode`` by few large operations, at any precision. It runs anywhere."""
    x = encoder.patch_embed(image)
    if encoder.pos_embed is not None:
        x = x + encoder.pos_embed
    for block in encoder.blocks:
        x = _block(block, x)
    return encoder.neck(x.permute(0, 3, 1, 2))


def _block(block: Block, x: Tensor) -> Tensor:
    """1xhxwxC -> the same."""
    attended = _windowed(block.attn, block.norm1(x), block.window_size)
    x = attended.add_(x)
    return x.add_(block.mlp(block.norm2(x)))


def _windowed(attention: Attention, x: Tensor, window: int) -> Tensor:
    """Attention within windows of this size (0: over everything). Windows at the edge are filled up with zeros, which
    take part: the network was trained so."""
    if window == 0:
        return _attention(attention, x)
    height, width, channels = x.shape[1:]
    below, right = -height % window, -width % window
    x = F.pad(x, (0, 0, 0, right, 0, below))
    rows, columns = (height + below) // window, (width + right) // window
    x = x.view(rows, window, columns, window, channels).transpose(1, 2).reshape(-1, window, window, channels)
    x = _attention(attention, x).view(rows, columns, window, window, channels).transpose(1, 2)
    return x.reshape(1, height + below, width + right, channels)[:, :height, :width].contiguous()


def _attention(attention: Attention, x: Tensor) -> Tensor:
    """Attention of all places of each image of a batch to each other, with relative positions. BxhxwxC -> the same."""
    batch, height, width, channels = x.shape
    heads, places = attention.num_heads, height * width
    qkv = attention.qkv(x).view(batch, places, 3, heads, -1).permute(2, 3, 0, 1, 4)
    rel_h, rel_w = relative(attention.rel_pos_h, height), relative(attention.rel_pos_w, width)
    out = qkv.new_empty(batch, places, heads, channels // heads)
    bias = qkv.new_empty(batch, height, width, height, width)  # touched for the first time once, not for every head
    for head in range(heads):
        q, k, v = qkv[:, head]
        grid = q.view(batch, height, width, -1)
        bias_h = torch.einsum("bhwc,hkc->bhwk", grid, rel_h).contiguous()
        bias_w = torch.einsum("bhwc,wkc->bhwk", grid, rel_w).contiguous()
        torch.add(bias_h[..., :, None], bias_w[..., None, :], out=bias)
        out[:, :, head] = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.view(batch, places, places))
    return attention.proj(out.view(batch, height, width, channels))
