"""Smooth values where there are none, and the flow of what is behind a hole."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from tam_backend.features import CameraMotion

Array = npt.NDArray[np.float32]

#: Motion against the camera, in units of the background's noise but at least so many pixels, from which a pixel tells
#: little about the flow of the background beside it.
STRAY_NOISE, STRAY_PIXELS = 4.0, 0.75


def smooth_fill(values: Array, weight: Array) -> Array:
    """HxWxC float32 that equals ``values`` where the HxW ``weight`` is 1, and goes smoothly over where it is less.

    Push-pull (Gortler et al., "The Lumigraph", SIGGRAPH 1996): averages over larger and larger squares, of what is
    known in them, are put where the smaller ones know nothing.
    """
    values = values if values.ndim == 3 else values[..., None]
    weighted = values * weight[..., None]
    levels = [(weighted, weight)]
    while min(weight.shape) > 2:
        weight = np.asarray(cv2.pyrDown(weight), np.float32)
        weighted = np.asarray(cv2.pyrDown(weighted), np.float32).reshape(*weight.shape, -1)
        levels.append((weighted, weight))
    total = float(weight.sum())
    filled: Array = np.broadcast_to(weighted.sum((0, 1)) / max(total, 1e-12), weighted.shape).astype(np.float32)
    for weighted, weight in reversed(levels):
        height, width = weight.shape
        if filled.shape[:2] != (height, width):
            filled = np.asarray(cv2.pyrUp(filled, dstsize=(width, height)), np.float32).reshape(height, width, -1)
        share = np.minimum(weight * np.float32(4), 1)[..., None] if weighted is not levels[0][0] else weight[..., None]
        scale = share / np.maximum(weight, 1e-6)[..., None]
        filled = weighted * scale + filled * (1 - share)
    return filled


def complete_flow(flow: Array, camera: CameraMotion, trust: Array) -> Array:
    """Flow of the background everywhere. flow: hxwx2; trust: hxw in [0, 1], 0 in the hole.

    The motion of the camera, plus what the flow around the hole has besides; things that move on their own say little.
    """
    own = camera.flow(*flow.shape[:2])
    rest = flow - own
    scale = max(STRAY_NOISE * camera.noise, STRAY_PIXELS)
    weight = trust / (1 + (rest[..., 0] ** 2 + rest[..., 1] ** 2) / np.float32(scale**2)) ** 2
    return own + smooth_fill(rest, np.asarray(weight, np.float32))
