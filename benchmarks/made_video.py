"""A made video of any length: a textured square moves over a textured ground that moves the other way."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from tam_backend.video.write import VideoWriter

MARGIN = 96


def write_made_video(path: Path, frames: int, height: int, width: int, seed: int = 0, left: float = 1 / 3) -> None:
    """H.264, 25 frames a second. left: where the square begins, as a share of the width."""
    random = np.random.default_rng(seed)
    ground = _texture(random, height + 2 * MARGIN, width + 2 * MARGIN, (90, 120, 80))
    side = height // 3
    piece = _texture(random, side, side, (190, 90, 70))
    with VideoWriter(path, 25, (width, height)) as writer:
        for index in range(frames):
            swing = _swing(index)
            image = ground[MARGIN + swing // 2 :, MARGIN + swing :][:height, :width].copy()
            image[side : 2 * side, int(width * left) - swing :][:, :side] = piece
            writer.write(image)


def square(index: int, height: int, width: int, left: float = 1 / 3) -> tuple[int, int, int]:
    """Left and top edge and the side of the square on a frame, in pixels."""
    side = height // 3
    return int(width * left) - _swing(index), side, side


def _swing(index: int) -> int:
    return int(MARGIN * np.sin(index / 40))


def _texture(
    random: np.random.Generator, height: int, width: int, colour: tuple[int, int, int]
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    noise = cv2.GaussianBlur(random.normal(size=(height, width)).astype(np.float32), (0, 0), 3)
    image = np.asarray(colour, np.float32) + 35 * (noise / noise.std())[..., None]
    return np.clip(image, 0, 255).astype(np.uint8)
