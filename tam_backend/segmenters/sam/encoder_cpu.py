"""The image encoder of SAM on CPU, in float32, for one image.

Modules and weights are those of the ``segment-anything`` package, results the same up to rounding. All that can be is
computed in pieces that stay near a core: attention in rows of the image (512 x 4096 at a time, where the package
goes several times over 12 x 4096 x 4096) or in windows, everything else in groups of places. What windows beyond the
edge are filled up with is the same everywhere, so it is computed for none of those places.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from segment_anything.modeling.image_encoder import Attention, Block, ImageEncoderViT
from torch import Tensor

from tam_backend.workers import WORKERS

#: Places of the image that are computed at once, where they do not depend on each other: at most so many, because what
#: is computed from them shall stay near, and fewer if there are threads without work else.
PLACES = 1024
#: Rows of the image of which the attention of one head is computed at once, at most. With one, a core's cache would
#: hold it all, but the many small operations take half as long again.
ROWS = 8


def encode(encoder: ImageEncoderViT, image: Tensor) -> Tensor:
    """1x3xSxS float32, normalised and padded -> 1xCxhxw, h and w being S over 16."""
    x = encoder.patch_embed(image)
    if encoder.pos_embed is not None:
        x = x + encoder.pos_embed
    x = x[0].contiguous()
    for block in encoder.blocks:
        _block(block, x)
    return encoder.neck(x.permute(2, 0, 1)[None])


def _block(block: Block, x: Tensor) -> None:
    """hxwxC, in place."""
    places, channels = x.flatten(0, 1), x.shape[2]
    qkv = x.new_empty(len(places), 3 * channels)
    attended = torch.empty_like(x)

    def before(parts: Iterable[slice]) -> None:
        for part in parts:
            qkv[part] = block.attn.qkv(block.norm1(places[part]))

    def after(parts: Iterable[slice]) -> None:
        for part in parts:
            here = places[part]
            here.add_(block.attn.proj(attended.flatten(0, 1)[part]))
            here.add_(block.mlp(block.norm2(here)))

    step = min(PLACES, -(-len(places) // torch.get_num_threads()))
    parts = [slice(start, start + step) for start in range(0, len(places), step)]
    WORKERS.run(before, parts)
    attend = _by_windows if block.window_size else _by_rows
    attend(block.attn, qkv.view(*x.shape[:2], -1), attended, block.window_size)
    WORKERS.run(after, parts)


def _by_rows(attention: Attention, qkv: Tensor, out: Tensor, _: int) -> None:
    """Attention of all places to all. qkv: h x w x 3C -> out: h x w x C."""
    height, width, heads = *qkv.shape[:2], attention.num_heads
    q, k, v = qkv.view(height * width, 3, heads, -1).permute(1, 2, 0, 3).contiguous()
    k = k.transpose(1, 2).contiguous()  # a quarter quicker to multiply with
    rel_h = relative(attention.rel_pos_h, height).transpose(1, 2)
    rel_w = relative(attention.rel_pos_w, width).transpose(1, 2)
    results = out.view(height, width, heads, -1)
    rows = max(1, min(ROWS, heads * height // torch.get_num_threads()))

    def work(pieces: Iterable[tuple[int, int]]) -> None:
        room = q.new_empty(rows * width, height * width)
        for head, row in pieces:
            here = q[head, row * width : (row + rows) * width]
            weights = room[: len(here)]
            torch.mm(here * attention.scale, k[head], out=weights)
            grid, queries = weights.view(-1, width, height, width), here.view(-1, width, here.shape[1])
            grid.add_(torch.bmm(queries, rel_h[row : row + rows])[..., None])
            grid.add_(torch.bmm(queries.transpose(0, 1), rel_w).transpose(0, 1)[:, :, None])
            torch.softmax(weights, 1, out=weights)
            results[row : row + rows, :, head] = (weights @ v[head]).view(queries.shape)

    WORKERS.run(work, [(head, row) for head in range(heads) for row in range(0, height, rows)])


def _by_windows(attention: Attention, qkv: Tensor, out: Tensor, window: int) -> None:
    """Attention within windows of this size. Those at the edge are filled up with places that hold zeros, of which the
    queries, keys and values are the biases: the network was trained so. qkv: h x w x 3C -> out: h x w x C."""
    height, width, heads = *qkv.shape[:2], attention.num_heads
    places = window * window
    rel_h, rel_w = relative(attention.rel_pos_h, window), relative(attention.rel_pos_w, window)
    bias = attention.qkv.bias

    def work(pieces: Iterable[tuple[int, int]]) -> None:
        room = qkv.new_empty(window, window, qkv.shape[2])
        for top, left in pieces:
            there = qkv[top : top + window, left : left + window]
            rows, columns = there.shape[:2]
            room.copy_(bias if bias is not None else room.new_zeros(1))
            room[:rows, :columns] = there
            q, k, v = room.view(places, 3, heads, -1).permute(1, 2, 0, 3).contiguous()
            similarity = torch.bmm(q * attention.scale, k.transpose(1, 2))
            grid = q.view(heads, window, window, -1)
            by_row = torch.matmul(grid, rel_h.transpose(1, 2))
            by_column = torch.matmul(grid.transpose(1, 2), rel_w.transpose(1, 2)).transpose(1, 2)
            similarity.view(heads, *[window] * 4).add_(by_row[..., None]).add_(by_column[..., None, :])
            torch.softmax(similarity, 2, out=similarity)
            attended = torch.bmm(similarity, v).view(heads, window, window, -1)[:, :rows, :columns]
            out[top : top + rows, left : left + columns].view(rows, columns, heads, -1).copy_(
                attended.permute(1, 2, 0, 3)
            )

    WORKERS.run(work, [(top, left) for top in range(0, height, window) for left in range(0, width, window)])


def relative(table: Tensor, size: int) -> Tensor:
    """(2 size - 1) x c, one row per distance -> size x size x c, the row for query place and key place."""
    places = torch.arange(size, device=table.device)
    return table[places[:, None] - places[None, :] + size - 1]
