"""From frames and holes to what the network takes, and from what it gives to frames."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tam_backend.errors import BadInput
from tam_backend.inpainting.e2fgvi.network import MULTIPLES
from tam_backend.prompts import Mask
from tam_backend.video.base import Frame

#: The network is run at every fifth frame, on the frames up to five away from it.
STRIDE = 5
#: Every tenth frame may be a reference. The official script takes all of them, so its memory grows with the video;
#: here it is those nearest to the window, at most so many.
REFERENCE_STEP, REFERENCES = 10, 6
#: A side is mirrored once at most.
SMALLEST = tuple(multiple // 2 for multiple in MULTIPLES)


def local_frames(middle: int, frames: range) -> range:
    """The frames that a window shows, without those before or after ``frames``."""
    return range(max(middle - STRIDE, frames.start), min(middle + STRIDE + 1, frames.stop))


def reference_frames(middle: int, frames: range, most: int = REFERENCES) -> list[int]:
    """Frames from farther away, in order: of every tenth one those nearest to the middle, the earlier one of two."""
    local = local_frames(middle, frames)
    candidates = [f for f in frames[::REFERENCE_STEP] if f not in local]
    return sorted(sorted(candidates, key=lambda f: (abs(f - middle), f))[:most])


def padded_size(height: int, width: int) -> tuple[int, int]:
    """The next larger size that the network takes. Raises BadInput for frames that are too small for one mirroring."""
    if height < SMALLEST[0] or width < SMALLEST[1]:
        raise BadInput(
            f"E2FGVI takes frames of at least {SMALLEST[1]}x{SMALLEST[0]} pixels, these are {width}x{height}; "
            "--engine embedded takes any"
        )
    return -(-height // MULTIPLES[0]) * MULTIPLES[0], -(-width // MULTIPLES[1]) * MULTIPLES[1]


def prepare(frames: Sequence[Frame], holes: Sequence[Mask]) -> Tensor:
    """Tx3xHxW float32 in [-1, 1], grey where there are holes, mirrored to a size that the network takes.

    The holes are mirrored with the frames: the network never gets a mask, it sees the grey.
    """
    height, width = frames[0].shape[:2]
    bottom, right = (a - b for a, b in zip(padded_size(height, width), (height, width), strict=True))
    pictures = np.stack(frames).astype(np.float32) / np.float32(255) * 2 - 1
    pictures *= ~np.stack(holes)[..., None]
    pictures = np.pad(pictures, ((0, 0), (0, bottom), (0, right), (0, 0)), mode="symmetric")
    return torch.from_numpy(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2)))


def to_colours(output: Tensor, height: int, width: int) -> npt.NDArray[np.float32]:
    """hxwx3 float32, whole numbers from 0 to 255, of a 3xHxW output in [-1, 1]; what was mirrored is cut off."""
    picture = output[:, :height, :width].permute(1, 2, 0).float().cpu().numpy()
    return np.asarray(np.trunc((picture + 1) / 2 * 255), np.float32)


def compose(frame: Frame, hole: npt.NDArray[np.bool_], output: Tensor) -> Frame:
    """A frame with its hole filled from one output; everything else stays as it is."""
    colours = to_colours(output, *frame.shape[:2])
    return np.where(hole[..., None], colours, frame).astype(np.uint8)
