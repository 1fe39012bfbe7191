"""One step: what is known of one frame, carried to the frame beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from tam_backend.inpainting.embedded.completion import smooth_fill
from tam_backend.prompts import Mask
from tam_backend.video.base import Frame

Array = npt.NDArray[np.float32]
Window = tuple[slice, slice]

#: Pixels around the hole on which brightness is compared, and the largest difference (grey levels) that is light and
#: not another thing.
RING, LIGHT = 8, 24.0
#: Brightness is compared on pictures reduced by this factor.
COARSE = 4


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A frame, or what is known of it. colour: HxWx3 uint8 RGB. confidence: HxW float32 in [0, 1], 0: not known."""

    colour: Frame
    confidence: Array


def bring(picture: Picture, way: Array, at: Window) -> tuple[Array, Array]:
    """What a picture shows of a window: colours, hxwx3 float32, and confidence, hxw float32, 0 where it shows nothing.

    way: hxwx2 float32, a pixel x of the window is at ``x + way[x]`` of the picture.
    """
    height, width = picture.confidence.shape
    x = np.arange(at[1].start, at[1].start + way.shape[1], dtype=np.float32) + way[..., 0]
    y = np.arange(at[0].start, at[0].start + way.shape[0], dtype=np.float32)[:, None] + way[..., 1]
    left, right = int(np.clip(x.min() - 2, 0, width - 1)), int(np.clip(x.max() + 3, 1, width))
    top, bottom = int(np.clip(y.min() - 2, 0, height - 1)), int(np.clip(y.max() + 3, 1, height))
    x -= left
    y -= top
    confidence = picture.confidence[top:bottom, left:right]
    # Weighted colours: what is not known does not bleed into what is.
    weighted = cv2.merge([*cv2.split(picture.colour[top:bottom, left:right] * confidence[..., None]), confidence])
    moved = np.asarray(cv2.remap(weighted, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT), np.float32)
    known = (confidence > 0).astype(np.float32)
    # Half of a pixel must be known: with less the known would grow from step to step, with more it would shrink.
    shown = cv2.remap(known, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT) >= 0.5
    return moved[..., :3] / np.maximum(moved[..., 3:], np.float32(1e-6)), np.where(shown, moved[..., 3], np.float32(0))


def relight(colours: Array, confidence: Array, frame: npt.NDArray[Any], hole: Mask) -> Array:
    """Colours that were brought into a window, as bright as the frame is around the hole.

    colours, confidence: as ``bring`` returns them; frame, hole: the window's.
    """
    ring = ~hole & (confidence > 0)
    if not ring.any():
        return colours
    difference = np.clip(frame.astype(np.float32) - colours, -LIGHT, LIGHT) * ring[..., None]
    height, width = hole.shape
    size = (max(1, width // COARSE), max(1, height // COARSE))
    weight = np.asarray(cv2.resize(ring.astype(np.float32), size, interpolation=cv2.INTER_AREA), np.float32)
    mean = np.asarray(cv2.resize(difference, size, interpolation=cv2.INTER_AREA), np.float32).reshape(*weight.shape, -1)
    mean /= np.maximum(weight, np.float32(1e-6))[..., None]
    light = smooth_fill(mean, weight)
    large = np.asarray(cv2.resize(light, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
    return colours + large.reshape(colours.shape)
