"""A small real video whose true masks are known: a red disc and a blue square cross a textured, unmoving ground."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from tam_backend.video.write import VideoWriter

Mask = npt.NDArray[np.bool_]

WIDTH, HEIGHT, FRAMES, FPS = 320, 240, 24, 12
OBJECTS = ("Disc", "Square")


def centre(name: str, frame: int) -> tuple[float, float]:
    """Centre of an object on a frame, in percent of the picture."""
    x, y = (60 + 7 * frame, 150) if name == "Disc" else (250 - 4 * frame, 40 + 1.5 * frame)
    return 100 * x / WIDTH, 100 * y / HEIGHT


def true_mask(name: str, frame: int) -> Mask:
    """HxW bool: where an object is visible on a frame."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    x, y = centre(name, frame)
    dx, dy = columns + 0.5 - x * WIDTH / 100, rows + 0.5 - y * HEIGHT / 100
    if name == "Disc":
        return np.asarray(dx**2 + dy**2 < 30**2)
    return (abs(dx) < 24) & (abs(dy) < 24) & ~true_mask("Disc", frame)


def write_video(path: Path) -> None:
    """Write the scene as an mp4 file."""
    random = np.random.default_rng(7)
    ground = np.kron(random.integers(90, 150, (HEIGHT // 8, WIDTH // 8, 1)), np.ones((8, 8, 3))).astype(np.uint8)
    textures = {}
    for name, colour in (("Disc", (200, 60, 50)), ("Square", (50, 80, 200))):
        noise = np.kron(random.integers(-30, 30, (HEIGHT // 4, WIDTH // 4, 1)), np.ones((4, 4, 3)))
        textures[name] = np.clip(noise + colour, 0, 255).astype(np.uint8)
    with VideoWriter(path, FPS, (WIDTH, HEIGHT)) as video:
        for frame in range(FRAMES):
            picture = ground.copy()
            for name in OBJECTS:
                (x0, y0), (x, y) = centre(name, 0), centre(name, frame)
                shift = round((y - y0) * HEIGHT / 100), round((x - x0) * WIDTH / 100)
                mask = true_mask(name, frame)
                picture[mask] = np.roll(textures[name], shift, (0, 1))[mask]
            video.write(picture)
