"""What plays the part of affinities in the embedded engine: places of memory followed by flow, checked by appearance.

A probe is a small patch of a frame whose mask is trusted, inside the object or close outside it. From frame to frame it
goes along with the flow, and is given up where flow there and back disagree (a chain that is checked forward and
backward at each link: Sundaram, Brox and Keutzer, ECCV 2010). Where a frame asks, the patch is compared with all
places of a window around the end of its chain; its *affinity* is the softmax over them of the negative squared distance
of appearance, as in a memory read, and of the squared distance to the end of the chain. It is concentrated if most of
it lies close to the best place. A patch without texture is where its chain ends, one with texture where it fits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from tam_backend.features.filters import signed_distance, window
from tam_backend.features.geometry import Geometry
from tam_backend.prompts import Mask
from tam_backend.propagators.probes import Points, Projected, spread

Array = npt.NDArray[np.float32]
Image = npt.NDArray[np.uint8]

#: Side of a patch, and the largest distance to the end of the chain that is searched; pixels of the working size.
PATCH, WINDOW = 11, 10
#: Mean squared difference of two patches (Lab units) that makes an affinity e times smaller. Noise of compressed video
#: and light that changes a little give about so much.
SOFTNESS = 40.0
#: Patches that differ by more than this are not the same thing.
DIFFERENT = 1000.0
#: What counts as close to the best place, and how far the end of a chain is off (standard deviation), pixels.
CLOSE, DRIFT = 5.0, 3.0
#: A chain is given up below this agreement of flow there and back, all links multiplied.
LINK = 0.1
#: Forward-backward error (squared pixels of the flow's size) at which a link is half believed, and its growth with the
#: squared motion.
ERROR, ERROR_SHARE = 1.0, 0.02
#: Probes of each kind, and the number below which new ones are taken from a frame that is trusted.
PROBES, RENEW = 24, 18
#: Positive probes keep this share of the object's radius away from its edge; negative ones lie between these
#: distances outside when they are taken, and are of no use beyond the last; pixels of the working size.
DEEP = 0.25
NEAR, FAR, LEFT = 6, 40, 70
_DISC = np.hypot(*np.ogrid[-LEFT : LEFT + 1, -LEFT : LEFT + 1]) < LEFT


@dataclass(slots=True, eq=False)
class Correspondence:
    """The probes of one object. All arrays have N rows.

    at: Nx2 float32, (x, y) at the working size where the chain is now. link: N float32, agreement of flow along it.
    positive: N bool. source: N int64, the frame it was taken from. patch: NxPATCHxPATCHx3 uint8 Lab.
    """

    at: Points
    link: Array
    positive: npt.NDArray[np.bool_]
    source: npt.NDArray[np.int64]
    patch: Image

    @staticmethod
    def none() -> Correspondence:
        patch = np.zeros((0, PATCH, PATCH, 3), np.uint8)
        empty = np.zeros(0, np.float32)
        return Correspondence(np.zeros((0, 2), np.float32), empty, np.zeros(0, bool), np.zeros(0, np.int64), patch)

    @staticmethod
    def of(state: Mapping[str, npt.NDArray[Any]]) -> Correspondence:
        """From what ``state`` gave."""
        names = ("at", "link", "positive", "source", "patch")
        return Correspondence(*(np.array(state[f"probes.{name}"]) for name in names))

    def state(self) -> dict[str, npt.NDArray[Any]]:
        arrays = {"at": self.at, "link": self.link, "positive": self.positive}
        arrays |= {"source": self.source, "patch": self.patch}
        return {f"probes.{name}": array.copy() for name, array in arrays.items()}

    def plant(self, frame: int, mask: Mask, lab: Image) -> None:
        """Take new probes from a frame, of the kinds that have become few. mask: HxW bool, lab: HxWx3, working size.

        Background that the object has left behind is let go of.
        """
        if not mask.any():
            return
        kept = self.positive.copy()
        kept[~kept] = [_near(mask, *place) for place in self.at[~kept].astype(int)]
        self._keep(kept)
        few = [kind for kind in (True, False) if np.count_nonzero(self.positive == kind) < RENEW]
        if not few:
            return  # on most frames; distances take a while
        part = window(mask, FAR + 2)  # beyond it nothing matters
        top, left = part[0].start, part[1].start
        depth = signed_distance(mask[part])
        for positive in few:
            taken = self.at[self.positive == positive]
            if positive:
                radius = np.sqrt(np.count_nonzero(mask) / np.pi)
                region = depth >= min(max(3.0, DEEP * radius), 0.7 * float(depth.max()))
            else:
                region = (depth < -NEAR) & (depth > -FAR)
            rows, columns = np.nonzero(region[-top % 3 :: 3, -left % 3 :: 3])  # a finer choice would spread no better
            points = np.stack([left + -left % 3 + 3 * columns, top + -top % 3 + 3 * rows], axis=1).astype(np.float32)
            points = points[_complete(points, mask.shape)]
            points = points[spread(points, PROBES - len(taken), taken)]
            self._add(frame, points, positive, lab)

    def _add(self, frame: int, points: Points, positive: bool, lab: Image) -> None:
        half = PATCH // 2
        patches = [lab[y - half : y + half + 1, x - half : x + half + 1] for x, y in points.astype(int)]
        if not patches:
            return
        count = len(patches)
        self.at = np.concatenate([self.at, points])
        self.link = np.concatenate([self.link, np.ones(count, np.float32)])
        self.positive = np.concatenate([self.positive, np.full(count, positive)])
        self.source = np.concatenate([self.source, np.full(count, frame, np.int64)])
        self.patch = np.concatenate([self.patch, np.stack(patches)])

    def follow(self, there: Array, back: Array, geometry: Geometry) -> None:
        """Go along to the next frame. there, back: hxwx2, flow to it and from it, at the flow's size."""
        scale = np.array(
            [geometry.flow_width / geometry.work_width, geometry.flow_height / geometry.work_height], np.float32
        )
        at = self.at * scale
        way = _at(there, at)
        arrived = at + way
        error = ((way + _at(back, arrived)) ** 2).sum(axis=1)
        self.link = self.link * np.exp2(-error / (ERROR + ERROR_SHARE * (way**2).sum(axis=1)))
        self.at = arrived / scale
        self._keep(_complete(self.at, geometry.work_shape) & (self.link >= LINK))

    def forget(self) -> None:
        """Give up all chains: there is no flow across a cut."""
        self._keep(np.zeros(len(self.at), bool))

    def _keep(self, which: npt.NDArray[np.bool_]) -> None:
        self.at, self.link, self.positive = self.at[which], self.link[which], self.positive[which]
        self.source, self.patch = self.source[which], self.patch[which]

    def project(self, lab: Image, geometry: Geometry) -> list[Projected]:
        """The probes on the frame that the chains have reached; lab: HxWx3 uint8 of it, at the working size.

        Concentration is 0 where nothing there looks like the patch.
        """
        reach = WINDOW + PATCH // 2
        padded = np.asarray(cv2.copyMakeBorder(lab, reach, reach, reach, reach, cv2.BORDER_REPLICATE), np.uint8)
        scale_x, scale_y = geometry.width / geometry.work_width, geometry.height / geometry.work_height
        out = []
        for (x, y), positive, source, patch in zip(self.at, self.positive, self.source, self.patch, strict=True):
            column, row = int(x), int(y)
            place, share = _match(padded[row : row + 2 * reach + 1, column : column + 2 * reach + 1], patch)
            px, py = (column + place[0] + 0.5) * scale_x, (row + place[1] + 0.5) * scale_y
            px, py = min(max(px, 0.0), geometry.width - 0.5), min(max(py, 0.0), geometry.height - 0.5)
            out.append(Projected(float(px), float(py), bool(positive), share, int(source)))
        return out


def _near(mask: Mask, x: int, y: int) -> bool:
    """Whether the mask is less than LEFT pixels away from a place."""
    top, left = max(0, y - LEFT), max(0, x - LEFT)
    around = mask[top : y + LEFT + 1, left : x + LEFT + 1]
    if not around.size:
        return False
    row, column = top - y + LEFT, left - x + LEFT
    return bool((around & _DISC[row : row + around.shape[0], column : column + around.shape[1]]).any())


def _complete(points: Points, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Around which of Nx2 places a whole patch is on the frame, whose rows and columns are ``shape``."""
    margin = PATCH // 2
    inside = (points >= margin).all(axis=1)
    return np.asarray(inside & (points[:, 0] < shape[1] - margin) & (points[:, 1] < shape[0] - margin))


def _match(image: Image, patch: Image) -> tuple[tuple[int, int], float]:
    """Where in the image the patch is found, (x, y) from its middle, and the share of affinity close to there."""
    # At this size 25 times as quick as cv2.matchTemplate, and without the rounding of its Fourier transform.
    places = sliding_window_view(image.astype(np.float32), patch.shape)
    apart = places.reshape(-1, patch.size) - patch.astype(np.float32).ravel()
    difference = np.einsum("ij,ij->i", apart, apart).reshape(places.shape[:2]) / np.float32(patch[..., 0].size)
    rows, columns = np.ogrid[-WINDOW : WINDOW + 1, -WINDOW : WINDOW + 1]
    energy = difference / SOFTNESS + (rows**2 + columns**2) / np.float32(2 * DRIFT**2)
    best = int(energy.argmin())
    row, column = np.unravel_index(best, energy.shape)
    affinity = np.exp(energy.flat[best] - energy)
    close = (rows + WINDOW - row) ** 2 + (columns + WINDOW - column) ** 2 <= CLOSE**2
    share = float(affinity[close].sum() / affinity.sum()) if difference.flat[best] <= DIFFERENT else 0.0
    return (int(column) - WINDOW, int(row) - WINDOW), share


def _at(flow: Array, points: Points) -> Points:
    """Bilinear Nx2 values of hxwx2 flow at Nx2 places."""
    if not len(points):
        return np.zeros((0, 2), np.float32)
    x, y = np.ascontiguousarray(points[:, 0]), np.ascontiguousarray(points[:, 1])
    return np.asarray(cv2.remap(flow, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.float32)[:, 0]
