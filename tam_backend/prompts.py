"""What a person gives on one frame for one object: clicks, a box, a mask. Plain data, no dependencies upwards.

Coordinates are pixels of the frame as it is shown (after rotation), origin at the top left corner, x to the right.
The pixel in column c and row r covers [c, c + 1) x [r, r + 1), so ``int(x), int(y)`` names the pixel of a click.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tam_backend.errors import BadInput

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Click:
    """A point that is on the object (positive) or not on it (negative)."""

    x: float
    y: float
    positive: bool = True


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle around the object, edges in pixels, left < right and top < bottom."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True, slots=True, eq=False)
class FramePrompts:
    """Everything a person gave on one frame for one object.

    clicks: in the order they were made. mask: HxW bool, drawn or fixed by hand; it is the truth for this frame, so
    clicks and box beside it have no effect on the frame. refine: the mask is a rough one instead, whose outline is to
    be drawn anew; clicks beside it then count, and the box does not.
    """

    clicks: tuple[Click, ...] = ()
    box: Box | None = None
    mask: Mask | None = None
    refine: bool = False

    @property
    def by_hand(self) -> bool:
        """Whether the mask of the frame is given, and stays as it is."""
        return self.mask is not None and not self.refine

    def digest(self) -> str:
        """A name for the content: equal prompts have equal digests, in every process and on every machine."""
        h = hashlib.blake2b(digest_size=16)
        if self.mask is not None:
            h.update(b"mask%d,%d;" % self.mask.shape)
            h.update(np.packbits(self.mask).tobytes())
            if not self.refine:
                return h.hexdigest()
            h.update(b"refine")
        h.update(repr([(c.x, c.y, c.positive) for c in self.clicks]).encode())
        if self.box is not None:
            h.update(repr(("box", self.box.left, self.box.top, self.box.right, self.box.bottom)).encode())
        return h.hexdigest()

    def validate(self, height: int, width: int) -> None:
        """Raise BadInput if a prompt does not fit on a frame of this size, or if nothing says where the object is."""
        for click in self.clicks:
            if not (0 <= click.x < width and 0 <= click.y < height):
                raise BadInput(
                    f"click ({click.x:g}, {click.y:g}) is outside the frame: "
                    f"x must be in [0, {width}) and y in [0, {height})"
                )
        box = self.box
        if box is not None and not (0 <= box.left < box.right <= width and 0 <= box.top < box.bottom <= height):
            raise BadInput(
                f"box ({box.left:g}, {box.top:g}, {box.right:g}, {box.bottom:g}) must be left < right <= {width} "
                f"and top < bottom <= {height}, nothing negative"
            )
        if self.mask is not None and self.mask.shape != (height, width):
            got = "x".join(map(str, self.mask.shape))
            raise BadInput(f"mask is {got} (height x width), the frame is {height}x{width}")

    @property
    def locates(self) -> bool:
        """Whether these prompts say where the object is. Negative clicks alone do not."""
        return self.mask is not None or self.box is not None or any(c.positive for c in self.clicks)
