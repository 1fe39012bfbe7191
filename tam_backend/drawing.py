"""Masks on frames, for people to look at: colours of objects, and frames with the masks drawn over them."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from tam_backend.video.base import Frame

IdMap = npt.NDArray[np.uint8]
Palette = npt.NDArray[np.uint8]

#: How much of a mask's fill is colour; the rest is the picture below.
FILL = 0.4


def make_palette() -> Palette:
    """256x3 uint8 RGB: the colours of the PASCAL VOC and DAVIS annotations, where neighbouring ids differ most.

    The lowest three bits of an id become the highest bits of red, green and blue, the next three the bits below those,
    and so on (``VOClabelcolormap`` of the PASCAL VOC development kit). Colour 0 is black.
    """
    ids = np.arange(256)
    palette = np.zeros((256, 3), np.uint8)
    for level in range(3):
        for channel in range(3):
            bit = (ids >> (3 * level + channel)) & 1
            palette[:, channel] |= (bit << (7 - level)).astype(np.uint8)
    return palette


PALETTE = make_palette()


def draw_objects(frame: Frame, ids: IdMap, number: int | None = None) -> Frame:
    """A copy of a frame with every object filled in its colour and outlined.

    frame: HxWx3 uint8 RGB; ids: HxW uint8, 0 for the background; number: drawn into the upper left corner.
    """
    height, width = ids.shape
    line = max(1, round(min(height, width) / 300))
    tinted = cv2.addWeighted(frame, 1 - FILL, PALETTE[ids], FILL, 0)
    image = np.where((ids > 0)[..., None], tinted, frame)
    for object_id in np.flatnonzero(np.bincount(ids.ravel(), minlength=256)[1:]) + 1:
        outline, _ = cv2.findContours((ids == object_id).astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        # White below the colour keeps the outline visible on a ground of any colour.
        cv2.drawContours(image, outline, -1, (255, 255, 255), line + 2)
        cv2.drawContours(image, outline, -1, PALETTE[object_id].tolist(), line)
    if number is not None:
        _draw_number(image, number)
    return image


def _draw_number(image: Frame, number: int) -> None:
    scale = max(0.35, min(image.shape[:2]) / 700)
    line = max(1, round(2 * scale))
    at = (round(12 * scale), round(34 * scale))
    for colour, thickness in (((0, 0, 0), line + 2), ((255, 255, 255), line)):
        cv2.putText(image, str(number), at, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, thickness, cv2.LINE_AA)
