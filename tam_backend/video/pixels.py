"""Decoded pictures to RGB arrays: colour matrix, range, orientation and size as a viewer shows them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from av.sidedata.sidedata import Type
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, VideoReformatter

from tam_backend.video.base import Frame

# From the stream's matrix coefficients (ITU-T H.273, table 4) to swscale's names for the same equations.
_SWS_MATRIX = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}
_BT709, _BT601 = 1, 5
_HD_HEIGHT = 720


@dataclass(frozen=True, slots=True)
class Orientation:
    """How stored pixels are shown: first transposed, then mirrored left-right (flip_x) and top-bottom (flip_y)."""

    transpose: bool = False
    flip_x: bool = False
    flip_y: bool = False

    def size(self, width: int, height: int) -> tuple[int, int]:
        """The size as shown of an image of this size as stored, and the other way round."""
        return (height, width) if self.transpose else (width, height)

    def apply(self, image: npt.NDArray[Any]) -> Frame:
        """image: HxWx3 uint8. Returns the image itself where nothing is to be done."""
        turned: npt.NDArray[Any] = image
        if self.transpose:
            turned = cv2.transpose(turned)
        if self.flip_x or self.flip_y:
            turned = cv2.flip(turned, -1 if self.flip_x and self.flip_y else int(self.flip_x))
        return turned


# EXIF tag 0x0112 (CIPA DC-008, Orientation)
EXIF_ORIENTATIONS = {
    1: Orientation(),
    2: Orientation(flip_x=True),
    3: Orientation(flip_x=True, flip_y=True),
    4: Orientation(flip_y=True),
    5: Orientation(transpose=True),
    6: Orientation(transpose=True, flip_x=True),
    7: Orientation(transpose=True, flip_x=True, flip_y=True),
    8: Orientation(transpose=True, flip_y=True),
}


def orientation(frame: VideoFrame) -> Orientation:
    """From the display matrix of a frame, the nearest of the eight ways to turn and mirror a rectangle.

    The matrix maps a pixel (x, y) to (a x + c y, b x + d y), x to the right and y downwards (ISO/IEC 14496-12 8.3.2).
    Viewers turn by multiples of 90 degrees only, and so do we. Looking at a frame's side data makes it part of a
    reference cycle, whose memory only the garbage collector frees: ask this of the first frame, not of every frame.
    """
    side_data: Any = frame.side_data  # PyAV's own annotation describes another type
    if Type.DISPLAYMATRIX not in side_data:
        return Orientation()
    a, b, _, c, d = np.frombuffer(side_data[Type.DISPLAYMATRIX], np.int32)[:5].tolist()
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Orientation(flip_x=a < 0, flip_y=d < 0)
    return Orientation(transpose=True, flip_x=c < 0, flip_y=b < 0)


class RgbConverter:
    """Converts frames to RGB of one size (as they are shown) and one orientation. Not thread-safe.

    A frame of another size is scaled. Pixels are as they are stored: a pixel aspect ratio other than 1 is not applied,
    and high dynamic range is not tone mapped.
    """

    def __init__(self, width: int, height: int, how: Orientation) -> None:
        self._stored_size = how.size(width, height)
        self._orientation = how
        self._reformatter = VideoReformatter()

    def __call__(self, frame: VideoFrame) -> Frame:
        """HxWx3 uint8 full-range RGB in memory of its own."""
        width, height = self._stored_size
        matrix = None if frame.format.is_rgb else self._matrix(frame)
        rgb = self._reformatter.reformat(
            frame,
            width=width,
            height=height,
            format="rgb24",
            src_colorspace=matrix,
            dst_colorspace=matrix,
            dst_color_range=ColorRange.JPEG,
            threads=1,
        )
        image = self._orientation.apply(rgb.to_ndarray())
        # Unless it was turned, the array may be a view of the decoder's own buffer.
        return np.array(image) if self._orientation == Orientation() else image

    @staticmethod
    def _matrix(frame: VideoFrame) -> int:
        """Browsers and players take an unnamed matrix for BT.709 from 720 lines on and for BT.601 below."""
        return _SWS_MATRIX.get(frame.colorspace, _BT709 if frame.height >= _HD_HEIGHT else _BT601)
