"""A made video of any length: a textured square moves over a textured ground that moves the other way."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from tam_backend.video.write import VideoWriter

MARGIN = 96


def write_made_video(path: Path, frames: int, height: int, width: int) -> None:
    """H.264, 25 frames a second."""
    random = np.random.default_rng(0)
    ground = _texture(random, height + 2 * MARGIN, width + 2 * MARGIN, (90, 120, 80))
    side = height // 3
    piece = _texture(random, side, side, (190, 90, 70))
    with VideoWriter(path, 25, (width, height)) as writer:
        for index in range(frames):
            swing = int(MARGIN * np.sin(index / 40))
            image = ground[MARGIN + swing // 2 :, MARGIN + swing :][:height, :width].copy()
            image[side : 2 * side, width // 3 - swing :][:, :side] = piece
            writer.write(image)


def _texture(
    random: np.random.Generator, height: int, width: int, colour: tuple[int, int, int]
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    noise = cv2.GaussianBlur(random.normal(size=(height, width)).astype(np.float32), (0, 0), 3)
    image = np.asarray(colour, np.float32) + 35 * (noise / noise.std())[..., None]
    return np.clip(image, 0, 255).astype(np.uint8)
