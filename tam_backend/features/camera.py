"""The motion of the camera, told apart from the motion of what moves in front of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

#: Flow is only trusted to about this many pixels; the noise scale never falls below it.
NOISE_FLOOR = 0.15
#: The fit looks at about this many points of the flow field, whatever its size.
FIT_POINTS = 3000


@dataclass(frozen=True, slots=True, eq=False)
class CameraMotion:
    """The eight-parameter flow of a plane seen by a moving camera, and how far the background scatters around it.

    coefficients: 2x6 float64 over the monomials 1, x, y, x*x, x*y, y*y in normalised coordinates; the factors of
    x*x and x*y of the horizontal part are those of x*y and y*y of the vertical part (Longuet-Higgins 1984; Bergen
    et al., "Hierarchical model-based motion estimation", ECCV 1992). noise: pixels, robust standard deviation.
    """

    coefficients: npt.NDArray[np.float64]
    noise: float

    @property
    def nbytes(self) -> int:
        return self.coefficients.nbytes + 8

    def flow(self, height: int, width: int) -> Array:
        """HxWx2 float32, the flow of the background alone, in pixels of the flow's size."""
        x, y = (axis.astype(np.float32) for axis in _axes(height, width))
        out = np.empty((height, width, 2), np.float32)
        for part, c in enumerate(self.coefficients.astype(np.float32)):
            row = c[0] + c[1] * x + c[3] * x * x
            column = c[2] * y + c[5] * y * y
            np.multiply((c[4] * y)[:, None], x, out=out[..., part])
            out[..., part] += row
            out[..., part] += column[:, None]
        return out

    def displacement(self, x: float, y: float, height: int, width: int) -> tuple[float, float]:
        """Where the background at (x, y) of an HxW flow goes: horizontal and vertical way in pixels."""
        half = max(height, width) / 2
        u, v = (x + 0.5 - width / 2) / half, (y + 0.5 - height / 2) / half
        horizontal, vertical = self.coefficients @ np.array([1.0, u, v, u * u, u * v, v * v])
        return float(horizontal), float(vertical)

    def speed(self, flow: Array) -> Array:
        """HxW float32: how fast the pixels of HxWx2 flow move relative to the camera, in units of ``noise``."""
        rest = self.flow(*flow.shape[:2])
        np.subtract(flow, rest, out=rest)
        rest *= rest
        speed = rest[..., 0] + rest[..., 1]
        np.sqrt(speed, out=speed)  # not cv2.magnitude: its last digit depends on where in memory the numbers are
        speed *= np.float32(1 / self.noise)
        return speed

    @staticmethod
    def fit(flow: npt.NDArray[np.floating[Any]], rounds: int = 12) -> CameraMotion:
        """Fit to HxWx2 flow by iteratively reweighted least squares with a Geman-McClure weight.

        The scale of the weight starts at the spread of the whole field and shrinks to that of the inliers (graduated
        non-convexity), so that an object that fills a large part of the frame does not pull the model to itself.
        """
        height, width = flow.shape[:2]
        stride = max(1, round((height * width / FIT_POINTS) ** 0.5))
        sample = flow[stride // 2 :: stride, stride // 2 :: stride].astype(np.float64)
        x, y = _axes(height, width)
        gx, gy = (g.ravel() for g in np.meshgrid(x[stride // 2 :: stride], y[stride // 2 :: stride]))
        one, zero, count = np.ones_like(gx), np.zeros_like(gx), len(gx)
        # Unknowns: a0 a1 a2 of u, b0 b1 b2 of v, and the two that both parts share. One column for each u, then each v.
        design = np.hstack(
            [
                np.stack([one, gx, gy, zero, zero, zero, gx * gx, gx * gy]),
                np.stack([zero, zero, zero, one, gx, gy, gx * gy, gy * gy]),
            ]
        )
        seen = np.concatenate([sample[..., 0].ravel(), sample[..., 1].ravel()])

        def lengths(rest: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
            return np.asarray(np.sqrt(rest[:count] ** 2 + rest[count:] ** 2))

        error = lengths(seen - np.repeat([np.median(seen[:count]), np.median(seen[count:])], count))
        scale = max(2.0 * float(np.quantile(error, 0.8)), NOISE_FLOOR)
        theta = np.zeros(8)
        for _ in range(rounds):
            weight = 1.0 / (1.0 + (error / scale) ** 2) ** 2
            weighted = design * np.concatenate([weight, weight])
            normal = weighted @ design.T
            normal[np.diag_indices(8)] += 1e-6 * count
            theta = np.linalg.solve(normal, weighted @ seen)
            error = lengths(seen - theta @ design)
            scale = max(0.7 * scale, 2.5 * _spread(error), NOISE_FLOOR)
        a, (p, q) = theta, theta[6:]
        coefficients = np.array([[a[0], a[1], a[2], p, q, 0.0], [a[3], a[4], a[5], 0.0, p, q]])
        return CameraMotion(coefficients, max(_spread(error), NOISE_FLOOR))


def _spread(error: npt.NDArray[np.float64]) -> float:
    """Robust standard deviation per axis from lengths of two-dimensional errors (Rayleigh median 1.1774 sigma)."""
    middle = len(error) // 2
    return float(np.partition(error, middle)[middle]) / 1.1774


def _axes(height: int, width: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """x and y of pixel centres: zero in the middle of the frame, the longer side spans [-1, 1]."""
    half = max(height, width) / 2
    x = (np.arange(width, dtype=np.float64) + 0.5 - width / 2) / half
    y = (np.arange(height, dtype=np.float64) + 0.5 - height / 2) / half
    return x, y
