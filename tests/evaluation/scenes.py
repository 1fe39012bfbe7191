"""Small data sets on disk whose every mask is known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

HEIGHT, WIDTH = 24, 40


def square(left: int, top: int, side: int = 8, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    mask = np.zeros((height, width), bool)
    mask[max(0, top) : top + side, max(0, left) : left + side] = True
    return mask


def ids_of(objects: Mapping[int, np.ndarray]) -> np.ndarray:
    """HxW uint8; a later object covers an earlier one."""
    ids = np.zeros((HEIGHT, WIDTH), np.uint8)
    for object_id, mask in objects.items():
        ids[mask] = object_id
    return ids


def write_ids(path: Path, ids: np.ndarray, mode: str = "P") -> None:
    """mode: P (indexed), L (grey) or RGB."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(ids)
    if mode == "P":
        image = Image.frombytes("P", image.size, image.tobytes())
        image.putpalette(bytes(range(256)) * 3)
    image.convert(mode).save(path)


def write_frame(path: Path, seed: int, height: int = HEIGHT, width: int = WIDTH) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    cv2.imwrite(str(path), pixels)


def write_sequence(
    frames: Path, masks: Path, ids: Iterable[np.ndarray | None], *, seed: int = 0, step: int = 1, mode: str = "P"
) -> None:
    """One frame for each entry of ids, with a mask where it is not None. step: between the numbers in the names."""
    for i, of_frame in enumerate(ids):
        write_frame(frames / f"{i * step:05d}.jpg", 1000 * seed + i)
        if of_frame is not None:
            write_ids(masks / f"{i * step:05d}.png", of_frame, mode)


def write_davis(root: Path, sequences: Mapping[str, list[np.ndarray]], split: str = "val") -> Path:
    for number, (name, ids) in enumerate(sequences.items()):
        write_sequence(root / "JPEGImages/480p" / name, root / "Annotations/480p" / name, ids, seed=number)
    (root / "ImageSets/2017").mkdir(parents=True)
    (root / f"ImageSets/2017/{split}.txt").write_text("\n".join(sequences) + "\n")
    return root


def moving_square(length: int = 8, left: int = 4, speed: int = 1) -> list[np.ndarray]:
    """One object that moves to the right."""
    return [ids_of({1: square(left + speed * i, 8)}) for i in range(length)]
