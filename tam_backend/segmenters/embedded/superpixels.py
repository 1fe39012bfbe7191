"""Small regions of even colour, and geodesic distances over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra

Array = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int32]

#: Side of a superpixel in pixels, on average.
CELL = 5
#: What a step between two superpixels costs: per pixel of way, per unit of Lab, per e-fold of relative speed.
COST_WAY, COST_COLOUR, COST_MOTION = 0.15, 0.08, 0.5


def superpixels(lab: npt.NDArray[np.uint8], cell: int = CELL) -> Labels:
    """HxW int32 labels 0..n-1: a watershed from a grid of seeds, each moved to the flattest pixel nearby."""
    height, width = lab.shape[:2]
    smooth = np.asarray(cv2.GaussianBlur(lab, (3, 3), 0), np.uint8)
    gradient = np.max(np.abs(cv2.Sobel(smooth, cv2.CV_32F, 1, 0)) + np.abs(cv2.Sobel(smooth, cv2.CV_32F, 0, 1)), axis=2)
    rows, columns = max(1, round(height / cell)), max(1, round(width / cell))
    y, x = np.meshgrid(
        ((np.arange(rows) + 0.5) * height / rows).astype(int),
        ((np.arange(columns) + 0.5) * width / columns).astype(int),
        indexing="ij",
    )
    best_y, best_x, best = y.copy(), x.copy(), gradient[y, x]
    for dy, dx in ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)):
        ny, nx = np.clip(y + dy, 0, height - 1), np.clip(x + dx, 0, width - 1)
        flatter = gradient[ny, nx] < best
        best_y[flatter], best_x[flatter], best[flatter] = ny[flatter], nx[flatter], gradient[ny, nx][flatter]
    seeds = np.zeros((height, width), np.int32)
    seeds[best_y, best_x] = np.arange(1, rows * columns + 1, dtype=np.int32).reshape(rows, columns)
    labels = np.asarray(cv2.watershed(smooth, seeds.copy()), np.int32)
    labels = np.where(seeds > 0, seeds, labels)  # a seed on the border would lose its label
    # The watershed leaves lines (-1), and always the border of the image, between regions: fill them from beside.
    while np.any(labels <= 0):
        padded = np.pad(labels, 1, constant_values=-1)
        sides = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
        labels = np.where(labels > 0, labels, np.max(sides, axis=0))
    return np.unique(labels, return_inverse=True)[1].reshape(height, width).astype(np.int32)


@dataclass(frozen=True, slots=True, eq=False)
class RegionGraph:
    """Superpixels of one frame and what a step between two neighbours costs."""

    labels: Labels
    steps: csr_array

    @property
    def nbytes(self) -> int:
        return int(self.labels.nbytes + self.steps.data.nbytes + self.steps.indices.nbytes + self.steps.indptr.nbytes)

    @staticmethod
    def build(lab: npt.NDArray[np.uint8], speed: Array | None) -> RegionGraph:
        """lab: HxWx3 uint8. speed: HxW, motion relative to the camera in units of noise, where there is one."""
        labels = superpixels(lab)
        count = int(labels.max()) + 1
        flat = labels.ravel()
        size = np.bincount(flat, minlength=count)

        def mean(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
            return np.asarray(np.bincount(flat, values.ravel(), minlength=count) / size)

        y, x = np.mgrid[: lab.shape[0], : lab.shape[1]].astype(np.float64)
        smooth = np.asarray(cv2.GaussianBlur(lab, (5, 5), 0), np.float64)
        place = np.stack([mean(y), mean(x)], axis=1)
        colour = np.stack([mean(smooth[..., c]) for c in range(3)], axis=1)
        pairs = []
        for a, b in ((labels[:, :-1], labels[:, 1:]), (labels[:-1], labels[1:])):
            differ = a != b
            pairs.append(np.minimum(a, b)[differ].astype(np.int64) * count + np.maximum(a, b)[differ])
        pair = np.unique(np.concatenate(pairs))
        i, j = pair // count, pair % count
        cost = COST_WAY * np.linalg.norm(place[i] - place[j], axis=1)
        cost += COST_COLOUR * np.linalg.norm(colour[i] - colour[j], axis=1)
        if speed is not None:
            motion = mean(np.log1p(speed.astype(np.float64)))
            cost += COST_MOTION * np.abs(motion[i] - motion[j])
        return RegionGraph(labels, csr_array((cost, (i, j)), shape=(count, count)))

    def distance(self, points: Sequence[tuple[int, int]]) -> Array:
        """HxW: cost of the cheapest way to the nearest of the points (x, y)."""
        sources = sorted({int(self.labels[y, x]) for x, y in points})
        cost = dijkstra(self.steps, directed=False, indices=sources, min_only=True)
        return np.asarray(cost[self.labels], np.float32)
