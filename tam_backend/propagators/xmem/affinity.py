"""Anisotropic similarity between memory and query, top-k attention over it, and the readout, as fast as torch goes.

Rows are elements, columns are channels: keys are N x 64. The paper's anisotropic L2 similarity, with shrinkage s and
selection e, over sqrt(64), is

    S(k, q) = -s/8 * sum_c e_c (k_c - q_c)^2 = [-s k^2 / 8 | s k / 4 | -s / 8] . [e | e q | sum_c e_c q_c^2],

one inner product of what depends on the memory element alone with what depends on the query alone. The first is stored
with the element, so that reading is a single matrix product.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor


def memory_terms(key: Tensor, shrinkage: Tensor) -> Tensor:
    """N x C, N x 1 -> N x (2C + 1), all float32."""
    scale = shrinkage / math.sqrt(key.shape[1])
    return torch.cat([-key.square() * scale, 2 * key * scale, -scale], 1)


def query_terms(key: Tensor, selection: Tensor) -> Tensor:
    """Q x C, Q x C -> Q x (2C + 1)."""
    weighted = key * selection
    return torch.cat([selection, weighted, (weighted * key).sum(1, keepdim=True)], 1)


def attend(similarity: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """Softmax over the ``top_k`` largest of each row, or over all where there are fewer.

    Q x N -> weights Q x k float32 and the columns they belong to, Q x k int64. The maximum is subtracted first, so
    that no similarity is too low: the largest of a row always has a weight of at least 1/k.
    """
    values, columns = similarity.topk(min(top_k, similarity.shape[1]), dim=1)
    return values.softmax(1), columns


def gather(values: Tensor, columns: Tensor, weights: Tensor, out: Tensor) -> None:
    """Weighted sums of rows: values N x C, columns and weights Q x k -> out, Q x C."""
    weights = weights.to(values.dtype)
    if values.device.type == "mps":  # which has no embedding_bag with weights
        out.copy_(product_of_rows(values, columns, weights))
    else:
        out.copy_(F.embedding_bag(columns, values, per_sample_weights=weights, mode="sum"))


def product_of_rows(values: Tensor, columns: Tensor, weights: Tensor) -> Tensor:
    """``gather`` without the fused kernel: k times the memory traffic."""
    return torch.bmm(weights[:, None], values[columns])[:, 0]


class SimilarityBlocks:
    """The similarity matrix in blocks of rows that fit into one reused buffer.

    The whole matrix is large (170 MB at 854x480 with full memory) and touching fresh memory is dear.
    """

    #: Floats of the buffer: 64 MB.
    FLOATS = 16 * 1024 * 1024

    def __init__(self) -> None:
        self._buffer: Tensor | None = None

    def __call__(self, query: Tensor, memory: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """query: Q x T, memory: N x T, terms of both. Yields rows of the query with their similarities, rows x N.

        A block is overwritten by the next one.
        """
        queries, elements = len(query), len(memory)
        rows = min(queries, max(1, self.FLOATS // elements))
        if self._buffer is None or self._buffer.numel() < rows * elements or self._buffer.device != query.device:
            size = min(self.FLOATS, 2 * rows * elements)
            self._buffer = query.new_empty(max(size, rows * elements))
        for start in range(0, queries, rows):
            part = slice(start, min(start + rows, queries))
            block = self._buffer[: (part.stop - start) * elements].view(-1, elements)
            yield part, torch.mm(query[part], memory.T, out=block)
