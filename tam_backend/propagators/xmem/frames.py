"""From frames of a video to what the network takes, and back."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from tam_backend.errors import BadInput
from tam_backend.prompts import Mask
from tam_backend.propagators.base import SoftMask
from tam_backend.propagators.xmem.network import STRIDE, FrameEncoding
from tam_backend.video.base import Frame

#: Mean and deviation of ImageNet's pixels, on which the network's trunks were trained.
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class InputSize:
    """How large a frame the network sees. Frames are reduced, never enlarged; the shape is kept.

    short_side: pixels; the network was trained at 480. max_area: pixels; a strip of 16:1 with a short side of 480 would
    have 3.7 million, nine times those of 854x480, and memory and time with them.
    """

    short_side: int = 480
    max_area: int = 640_000

    def __post_init__(self) -> None:
        for name, low in (("short_side", 16), ("max_area", 16 * 16)):
            if getattr(self, name) < low:
                raise BadInput(f"{name} is {getattr(self, name)}, it must be at least {low}")

    def fit(self, height: int, width: int) -> Size:
        """Height and width of a frame as the network sees it."""
        short, long = sorted((height, width))
        scale = min(1.0, self.short_side / short, math.sqrt(self.max_area / (height * width)))
        short = max(1, round(short * scale))
        long = min(round(long * scale), self.max_area // max(short, STRIDE))  # the network pads to its stride
        return (short, long) if height <= width else (long, short)


@dataclass(frozen=True, slots=True, eq=False)
class EncodedFrame:
    """image: 3xHxW float32, normalised, at the network's size; encoding: what the network knows of it."""

    image: Tensor
    encoding: FrameEncoding

    @property
    def nbytes(self) -> int:
        return self.image.numel() * self.image.element_size() + self.encoding.nbytes


def to_input(frame: Frame, size: Size, device: torch.device) -> Tensor:
    """HxWx3 uint8 RGB -> 3 x size, float32, normalised."""
    if frame.shape[:2] != size:
        frame = np.asarray(cv2.resize(frame, (size[1], size[0]), interpolation=cv2.INTER_AREA), np.uint8)
    pixels = torch.from_numpy(np.ascontiguousarray(frame)).to(device).permute(2, 0, 1)
    mean, deviation = (torch.tensor(v, device=device)[:, None, None] for v in (MEAN, DEVIATION))
    return pixels.float().div_(255).sub_(mean).div_(deviation)


def to_plane(mask: Mask | npt.NDArray[np.float32], size: Size, device: torch.device) -> Tensor:
    """HxW bool or float in [0, 1] -> 1 x size, the share of each pixel that the mask covers."""
    plane = mask.astype(np.float32)
    if mask.shape != size:
        plane = np.asarray(cv2.resize(plane, (size[1], size[0]), interpolation=cv2.INTER_AREA), np.float32)
    return torch.from_numpy(plane).to(device)[None]


def to_soft(probability: Tensor, size: Size) -> SoftMask:
    """hxw float in [0, 1] -> uint8 of this size, round(255 x probability). Resized before it is rounded."""
    if probability.shape != size:
        probability = F.interpolate(probability[None, None], size, mode="bilinear", align_corners=False)[0, 0]
    return np.asarray(probability.mul(255).round().to(torch.uint8).cpu().numpy())
