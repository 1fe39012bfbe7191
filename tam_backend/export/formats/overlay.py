"""A video for each video, with the masks drawn in."""

from __future__ import annotations

from pathlib import Path

from tam_backend.export.dataset import Dataset
from tam_backend.export.render import write_overlay


def write(dataset: Dataset, out: Path) -> list[str]:
    """dataset: with pictures. Returns notes for people."""
    for video in dataset.videos:
        write_overlay(video, out / f"{video.name}.mp4")
    return []
