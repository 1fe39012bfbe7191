"""Memory and time of ``tam inpaint`` by the length of the video.

    python benchmarks/inpainting_memory.py [WIDTHxHEIGHT] [LENGTH...]      (854x480, 200 and 1000 frames)

Each line is a process of its own: a made video whose camera moves, out of which a disc is taken. Prints the peak of
that process, and seconds a frame, decoding and encoding included. Sides must be even.
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

SIZE, LENGTHS = "854x480", (200, 1000)


def make(folder: Path, size: tuple[int, int], length: int) -> None:
    """film.mp4 and masks/."""
    width, height = size
    noise = np.random.default_rng(1).integers(0, 255, (height, width + 400, 3), np.uint8)
    scene = np.clip((cv2.GaussianBlur(noise, (0, 0), 4).astype(np.float32) - 127) * 5 + 127, 0, 255).astype(np.uint8)
    (folder / "masks").mkdir()
    with VideoWriter(folder / "film.mp4", 25, size) as video:
        for i in range(length):
            left = round(200 + 190 * np.sin(i / 60))
            mask = cv2.circle(
                np.zeros((height, width), np.uint8), (round(width * (0.5 + 0.35 * np.sin(i / 25))), height // 2),
                height // 8, 1, -1,
            )  # fmt: skip
            video.write(np.where(mask[..., None] > 0, np.uint8(240), scene[:, left : left + width]))
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
        given = sys.argv[1:]
        wanted = given.pop(0) if given and "x" in given[0] else SIZE
        across, down = map(int, wanted.split("x"))
        for count in map(int, given or LENGTHS):
            with tempfile.TemporaryDirectory() as made:
                make(Path(made), (across, down), count)
                subprocess.run([sys.executable, __file__, "--in", made, str(count)], check=True)
