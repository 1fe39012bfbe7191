"""A small data set with everything that formats trip over: holes, parts, single pixels, overlaps, empty frames, frames
that do not begin at 0, and a track that is missing in one video."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np

from tam_backend.export.dataset import Dataset, MaskedFrame, Track, Video

HEIGHT, WIDTH = 36, 48
TRACKS = (Track(1, "Person 1", "Person"), Track(2, "Person 2", "Person"), Track(3, "Ball", "Ball"))


def ring(x: int, y: int, radius: int, hole: int) -> np.ndarray:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    distance = (columns - x) ** 2 + (rows - y) ** 2
    return (distance <= radius**2) & (distance > hole**2)


def masks_of(video: int, frame: int) -> dict[int, np.ndarray]:
    """Track -> mask; those of a frame do not overlap."""
    if frame % 5 == 4:
        return {}
    masks = {1: ring(10 + frame, 12, 7, 2)}  # a hole
    if video == 0:
        parts = ring(12 + frame, 30, 3, -1)
        parts[28:33, 40:46] = True  # two parts
        masks[2] = parts
    if frame % 2:
        single = np.zeros((HEIGHT, WIDTH), bool)
        single[HEIGHT - 1, WIDTH - 1] = True  # one pixel in the corner
        masks[3] = single
    return masks


def picture(frame: int) -> np.ndarray:
    image = np.full((HEIGHT, WIDTH, 3), 60 + 5 * frame, np.uint8)
    image[:, ::8] = 200
    return image


def video(place: int, name: str, frames: range, overlap: bool = False) -> Video:
    def read() -> Iterator[MaskedFrame]:
        for frame in frames:
            masks = masks_of(place, frame)
            if overlap and masks:
                masks = masks | {3: ring(10 + frame, 12, 5, -1)}
            yield MaskedFrame(frame, masks)

    @contextlib.contextmanager
    def pictures():
        yield picture

    return Video(name, HEIGHT, WIDTH, frames, TRACKS, read, pictures, 12.0)


def scene(overlap: bool = False) -> Dataset:
    videos = video(0, "street", range(7, 15), overlap), video(1, "court-2", range(12), overlap)
    return Dataset(videos, TRACKS, "a made scene")
