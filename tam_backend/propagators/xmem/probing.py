"""Probes of XMem: cells of memory frames whose masks are trusted, projected through the affinities of a memory read.

An affinity says how much each element of memory gives to each cell of a frame: the same top-k softmax as in the read.
It is computed again, for the probes alone, where a frame asks, so that no other frame pays or is changed. A probe's
column of it, over the cells of the frame, says where the probe is now. Prototypes of long-term memory are mixtures
without a place of their own: they are part of the softmax, but no probes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from tam_backend.propagators.probes import Projected, spread
from tam_backend.propagators.xmem.affinity import attend, query_terms
from tam_backend.propagators.xmem.frames import Size
from tam_backend.propagators.xmem.memory import Memory
from tam_backend.propagators.xmem.network import STRIDE, FrameEncoding

Plane = npt.NDArray[np.float32]
Cells = npt.NDArray[np.int64]

#: Number of the frames in permanent memory.
PERMANENT = -1
#: Cells with at least this much of the object, on average, are inside; with at most this much, outside.
INSIDE, OUTSIDE = 0.98, 0.02
#: How many cells from the object background is still near.
NEAR = 3
#: Probes of each kind from one frame, and the number of latest working frames that give some beside the first one.
PROBES, LATEST = 8, 3
#: A probe that gives less than this in all (1: a whole cell) is not on the frame.
GIVES = 0.05
#: Half the side of the square around the strongest cell in which affinity counts as close.
CLOSE = 1


class ProbeBook:
    """Which cells of the frames in memory can be trusted.

    planes: number of a frame -> hxw float32 in [0, 1], how much of the object is in each cell.
    """

    def __init__(self, planes: Mapping[int, Plane] | None = None) -> None:
        self.planes = dict(planes or {})

    @staticmethod
    def of(state: Mapping[str, npt.NDArray[Any]]) -> ProbeBook:
        """From what ``state`` gave."""
        prefix = "probes."
        named = {n.removeprefix(prefix): a for n, a in state.items() if n.startswith(prefix)}
        return ProbeBook({int(n): np.array(a, np.float32) for n, a in named.items()})

    def state(self) -> dict[str, npt.NDArray[Any]]:
        return {f"probes.{number}": plane.copy() for number, plane in self.planes.items()}

    def add(self, number: int, plane: Plane) -> None:
        """Trust a frame. The first working frame, permanent ones and the latest are kept."""
        self.planes[number] = plane
        ordinary = sorted(n for n in self.planes if n > 0)
        for old in ordinary[:-LATEST]:
            del self.planes[old]

    def probes(self, memory: Memory) -> tuple[Cells, npt.NDArray[np.bool_], Cells]:
        """Elements of memory, whether each is on the object, and the number of the frame it belongs to."""
        numbers = memory.table("frame")[:, 0].cpu().numpy()
        working = np.arange(len(numbers)) >= memory.permanent + memory.long
        elements, positive, frames = [], [], []
        for number, plane in sorted(self.planes.items()):
            if number == PERMANENT:
                rows: Cells = np.arange(min(memory.permanent, memory.cells), dtype=np.int64)
            else:
                rows = np.flatnonzero(working & (numbers == number))
            if len(rows) != memory.cells:
                continue  # forgotten, or part of prototypes by now
            for side, cells in ((True, _inside(plane)), (False, _outside(plane))):
                elements.append(rows[cells])
                positive.append(np.full(len(cells), side))
                frames.append(np.full(len(cells), number))
        if not elements:
            return np.zeros(0, np.int64), np.zeros(0, bool), np.zeros(0, np.int64)
        return np.concatenate(elements), np.concatenate(positive), np.concatenate(frames)


def _inside(plane: Plane) -> Cells:
    full = (plane >= INSIDE).astype(np.uint8)
    deep = cv2.erode(full, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=1)
    return _choose(deep if deep.any() else full)


def _outside(plane: Plane) -> Cells:
    near = cv2.dilate((plane > OUTSIDE).astype(np.uint8), np.ones((2 * NEAR + 1, 2 * NEAR + 1), np.uint8))
    return _choose((near > 0) & (plane <= OUTSIDE))


def _choose(cells: npt.NDArray[Any]) -> Cells:
    rows, columns = np.nonzero(cells)
    chosen = spread(np.stack([columns, rows], axis=1).astype(np.float32), PROBES)
    return np.asarray(rows[chosen] * cells.shape[1] + columns[chosen], np.int64)


@torch.no_grad()
def affinity(memory: Memory, frame: FrameEncoding, label: int, elements: Cells) -> npt.NDArray[np.float32]:
    """QxP: what each cell of the frame takes from each of these elements when the object is read. Changes nothing."""
    group = next(g for g in memory.groups if label in g.values)
    terms = memory.table("terms")
    out = torch.zeros(memory.cells, len(elements) + 1, device=terms.device)
    column_of = torch.full((len(memory),), len(elements), dtype=torch.int64, device=terms.device)
    column_of[torch.from_numpy(elements).to(terms.device)] = torch.arange(len(elements), device=terms.device)
    for part, similarity in memory.blocks(query_terms(frame.key, frame.selection), terms):
        seen = similarity if group.complete else similarity.index_select(1, group.slots)
        weights, columns = attend(seen, memory.config.top_k)
        slots = columns if group.complete else group.slots[columns]
        out[part].scatter_add_(1, column_of[slots], weights)  # the last column takes what nobody asked for
    return np.asarray(out[:, :-1].cpu().numpy())


def place(column: npt.NDArray[np.float32], grid: Size) -> tuple[float, float, float]:
    """Where a probe is: row and column in cells (the middle of the first is 0.5), and its concentration."""
    cells = column.reshape(grid)
    total = float(cells.sum())
    row, col = (int(i) for i in np.unravel_index(int(cells.argmax()), grid))
    top, left = max(0, row - CLOSE), max(0, col - CLOSE)
    close = cells[top : row + CLOSE + 1, left : col + CLOSE + 1]
    mass = float(close.sum())
    if total < GIVES or mass <= 0:
        return row + 0.5, col + 0.5, 0.0
    rows, columns = np.mgrid[top : top + close.shape[0], left : left + close.shape[1]] + 0.5
    return float((rows * close).sum()) / mass, float((columns * close).sum()) / mass, min(1.0, mass / total)


def project(
    book: ProbeBook,
    memory: Memory,
    frame: FrameEncoding,
    label: int,
    size: Size,
    shown: Size,
    source: Mapping[int, int],
) -> list[Projected]:
    """The probes on a frame. size: height and width of the network's input, shown: of the video; source: number of a
    frame in memory -> frame of the video."""
    elements, positive, frames = book.probes(memory)
    if not len(elements):
        return []
    columns = affinity(memory, frame, label, elements)
    (height, width), (margin_y, margin_x) = size, (-side % STRIDE // 2 for side in size)
    out = []
    for i, (side, number) in enumerate(zip(positive, frames, strict=True)):
        row, column, concentration = place(columns[:, i], frame.grid)
        x, y = (column * STRIDE - margin_x) / width * shown[1], (row * STRIDE - margin_y) / height * shown[0]
        x, y = min(max(x, 0.0), shown[1] - 0.5), min(max(y, 0.0), shown[0] - 0.5)
        out.append(Projected(x, y, bool(side), concentration, source[int(number)]))
    return out


def cell_shares(plane: Tensor) -> Plane:
    """1xHxW in [0, 1] -> hxw, the mean over each cell; what lies beyond the frame is not the object."""
    margins = [(-side % STRIDE // 2, -side % STRIDE - -side % STRIDE // 2) for side in plane.shape[1:]]
    (top, bottom), (left, right) = margins
    padded = F.pad(plane[None].float(), (left, right, top, bottom))
    return np.asarray(F.avg_pool2d(padded, STRIDE)[0, 0].cpu().numpy())
