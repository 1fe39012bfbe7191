"""What is drawn on frames for people to look at: objects in their colours, and how far the tracking has come."""

from __future__ import annotations

import io

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from tam_backend.video.base import Frame

IdMap = npt.NDArray[np.uint8]
Palette = npt.NDArray[np.uint8]

#: How much of a mask's fill is colour; the rest is the picture below.
FILL = 0.4

#: Greys of the progress strip, and the colour of its tick (RGB).
_TO_DO, _FINISHED = 80, 240
_TICK = (255, 120, 0)


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


def encode_ids(ids: IdMap) -> bytes:
    """An indexed PNG with the DAVIS palette. ids: HxW uint8."""
    image = Image.frombytes("P", (ids.shape[1], ids.shape[0]), np.ascontiguousarray(ids).tobytes())
    image.putpalette(PALETTE.tobytes())
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


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


def draw_progress(frame: Frame, done: npt.NDArray[np.float32], at: int) -> Frame:
    """A copy of a frame with a strip along its top edge that stands for the frames of a clip from left to right.

    frame: HxWx3 uint8 RGB; done: (n,) float32 in [0, 1], how much of each frame is finished: the more, the brighter;
    at: which of them this frame is, marked by a tick. The strip covers 6 rows of 480, and so in proportion, at least 4.
    It is grey between black lines: visible on any picture and beside any page, and unlike the mask of an object. It is
    at the top because Label Studio 1.23 opens a picture so large that some 5 % at its bottom and right edges are out of
    sight.
    """
    height, width = frame.shape[:2]
    rows = max(4, round(min(height, width) / 80))
    method = cv2.INTER_AREA if len(done) > width else cv2.INTER_NEAREST
    share = cv2.resize(done[None], (width, 1), interpolation=method)
    image = frame.copy()
    image[:rows] = 0
    strip = image[1 : rows - 1]
    strip[:] = np.rint(_TO_DO + share * (_FINISHED - _TO_DO)).astype(np.uint8)[..., None]
    middle, half = round((at + 0.5) * width / len(done) - 0.5), max(1, rows // 4)
    strip[:, max(0, middle - half - 1) : middle + half + 2] = 0
    strip[:, max(0, middle - half) : middle + half + 1] = _TICK
    return image
