"""References computed with the official code, and the video they belong to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

ROOT = Path(__file__).parent / "data" / "parity"


@cache
def arrays(name: str) -> Mapping[str, npt.NDArray[Any]]:
    with np.load(ROOT / f"{name}.npz") as file:
        return dict(file)


@cache
def document(name: str) -> dict[str, Any]:
    return json.loads((ROOT / f"{name}.json").read_text())


def image(index: int, crop: tuple[int, int] = (96, 160)) -> Tensor:
    """A frame of the video, normalised: 3xHxW float32."""
    frame = arrays("video")["frames"][index, : crop[0], : crop[1]].astype(np.float32) / 255
    mean, deviation = np.array((0.485, 0.456, 0.406), np.float32), np.array((0.229, 0.224, 0.225), np.float32)
    return torch.from_numpy(((frame - mean) / deviation).transpose(2, 0, 1).copy())


def masks(index: int, drawn: list[int], labels: list[int], crop: tuple[int, int] = (96, 160)) -> Tensor:
    """One plane per label: the object's mask where it is drawn, else zeros."""
    ids = arrays("video")["masks"][index, : crop[0], : crop[1]]
    return torch.from_numpy(np.stack([(ids == label) & (label in drawn) for label in labels]).astype(np.float32))
