"""Memory and time of ``tam inpaint`` by the length of the video: python benchmarks/inpainting_memory.py [LENGTH...].

Each line is a process of its own: a made video at 854x480 whose camera moves, out of which a disc is taken. Prints the
peak of that process, and seconds a frame, decoding and encoding included.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from tam_backend.cli import main
from tam_backend.video.write import VideoWriter

HEIGHT, WIDTH, LENGTHS = 480, 854, (200, 1000)


def make(folder: Path, length: int) -> None:
    """film.mp4 and masks/."""
    noise = np.random.default_rng(1).integers(0, 255, (HEIGHT, WIDTH + 400, 3), np.uint8)
    scene = np.clip((cv2.GaussianBlur(noise, (0, 0), 4).astype(np.float32) - 127) * 5 + 127, 0, 255).astype(np.uint8)
    (folder / "masks").mkdir()
    with VideoWriter(folder / "film.mp4", 25, (WIDTH, HEIGHT)) as video:
        for i in range(length):
            left = round(200 + 190 * np.sin(i / 60))
            mask = cv2.circle(np.zeros((HEIGHT, WIDTH), np.uint8), (427 + round(300 * np.sin(i / 25)), 240), 60, 1, -1)
            video.write(np.where(mask[..., None] > 0, np.uint8(240), scene[:, left : left + WIDTH]))
            Image.fromarray(mask * 255).save(folder / "masks" / f"{i:05d}.png")


def measure(folder: Path, length: int) -> None:
    began = time.perf_counter()
    given = ["inpaint", str(folder / "film.mp4"), str(folder / "masks"), "--out", str(folder / "out.mp4"), "--quiet"]
    assert main(given) == 0
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{length:5} frames: peak {peak:5.0f} MiB, {seconds / length:.3f} s a frame", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--in"]:
        measure(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        for count in map(int, sys.argv[1:] or LENGTHS):
            with tempfile.TemporaryDirectory() as made:
                make(Path(made), count)
                subprocess.run([sys.executable, __file__, "--in", made, str(count)], check=True)
