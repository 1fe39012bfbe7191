"""Where an object was seen last, and the search for it once it is lost behind something."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import astuple, dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from tam_backend.features.filters import Window, usual

Array = npt.NDArray[np.float32]
Region = npt.NDArray[np.bool_]

#: Speed in units of noise from which motion begins to tell anything, and from which it tells all it can.
SPEED_SOME, SPEED_CLEAR = 2.0, 5.0
#: Motion speaks for the object from this share of the object's own speed on, up to this many units of log odds.
SPEED_SHARE, SPEED_LIMIT = 0.55, 2.5
#: A mask shows the object if it has this share of its area, this agreement of colours, and this share of its speed,
#: where a high agreement stands in for speed: what moves and then at once stands still is a mask stuck to a background.
SEEN_AREA, SEEN_COLOUR, SEEN_SPEED, SEEN_COLOUR_AT_REST = 0.25, 0.5, 0.35, 0.85
#: What was clearly moving does not fall below this share of its speed from one frame to the next, whatever its colours:
#: that is what hid it. The speed to compare with falls by this factor a frame, so that what did stop is seen again.
STOPPED, PATIENCE = 0.15, 0.9
#: Without motion that stands out this far, colour alone is no reason to say that the object is back.
SEARCH_TRUST = 0.5
#: Frames after which the search ends.
SEARCH_FRAMES = 120
#: Half the side of the searched square: this many times the root of the area, plus a share of the way made since.
SEARCH_SIZE, SEARCH_WAY = 2.0, 0.5
#: A find has log odds over the first number everywhere (averaged over a few pixels) and over the second on average...
FOUND_ODDS, FOUND_MEAN_ODDS = 0.5, 1.0
#: ...and an area between these shares of the object's.
FOUND_AREA = (0.15, 2.5)
#: Side of the square over which evidence is averaged in the search, pixels.
BLUR = 9


def speed_trust(pace: float) -> float:
    """How far motion tells an object of this speed from its surroundings, in [0, 1]."""
    trust = math.log(max(pace, 1e-6) / SPEED_SOME) / math.log(SPEED_CLEAR / SPEED_SOME)
    return min(1.0, max(0.0, trust))


def speed_odds(speed: Array, pace: float) -> Array:
    """Log odds of the object, which moves with ``pace``, from speed relative to the camera; both in units of noise."""
    odds = 2 * np.log((speed + 0.3) / (SPEED_SHARE * pace + 0.3))
    return np.asarray(np.clip(odds, -SPEED_LIMIT, SPEED_LIMIT), np.float32)


@dataclass(slots=True)
class Sighting:
    """row, column: centre of the object. row_way, column_way: its way per frame relative to the background, smoothed.

    area: pixels. pace: speed relative to the camera in units of noise, smoothed; negative until the first frame.
    gone: frames since the object was seen. Lengths are in pixels of the working size.
    """

    row: float
    column: float
    row_way: float = 0.0
    column_way: float = 0.0
    area: float = 0.0
    pace: float = -1.0
    gone: float = 0.0

    @staticmethod
    def first(mask: Region) -> Sighting:
        """From the mask a person decided; an empty one is never searched for."""
        if not mask.any():
            return Sighting(0.0, 0.0)
        row, column = _centre(mask)
        return Sighting(row, column, area=float(np.count_nonzero(mask)))

    @staticmethod
    def of(values: npt.NDArray[Any]) -> Sighting:
        """From what ``array`` gave."""
        return Sighting(*(float(v) for v in values))

    def array(self) -> npt.NDArray[np.float64]:
        """7 float64."""
        return np.array(astuple(self), np.float64)

    def update(self, mask: Region, agreement: float, speed: Array, camera: tuple[float, float], part: Window) -> bool:
        """Take in the mask of the next frame; false if it does not show the object.

        mask: HxW, of the part of the frame that it is in. agreement: of the colours inside the mask, 1 as on the
        anchors. speed: HxW, of that part, units of noise. camera: rows and columns by which the background moved.
        """
        count = np.count_nonzero(mask)
        pace = usual(speed, mask) if count else 0.0
        slower = agreement >= SEEN_COLOUR_AT_REST and (self.pace < SPEED_CLEAR or pace >= STOPPED * self.pace)
        lively = pace >= SEEN_SPEED * self.pace or slower
        if count and count >= SEEN_AREA * self.area and agreement >= SEEN_COLOUR and lively:
            row, column = _centre(mask)
            row, column = row + part[0].start, column + part[1].start
            if self.gone == 0:
                self.row_way += 0.3 * (row - self.row - camera[0] - self.row_way)
                self.column_way += 0.3 * (column - self.column - camera[1] - self.column_way)
            self.row, self.column, self.gone = row, column, 0.0
            self.area += 0.1 * (count - self.area)
            self.pace = pace if self.pace < 0 else self.pace + 0.2 * (pace - self.pace)
            return True
        self.gone += 1
        if agreement >= SEEN_COLOUR_AT_REST:
            self.pace *= PATIENCE  # it may have stopped after all
        self.row += self.row_way + camera[0]
        self.column += self.column_way + camera[1]
        return False

    def search(self, odds: Callable[[Window], Array], speed: Array) -> Region | None:
        """Look for the object where it should be by now. None where it is not.

        odds: gives the log odds from colour in a part of the frame. speed: HxW, of the whole frame, units of noise.
        """
        trust = speed_trust(self.pace)
        if self.area == 0 or self.gone > SEARCH_FRAMES or trust < SEARCH_TRUST:
            return None
        way = self.gone * math.hypot(self.row_way, self.column_way)
        half = SEARCH_SIZE * math.sqrt(self.area) + SEARCH_WAY * way
        # What went on out of the picture comes back at its edge.
        places = (min(max(p, 0.0), float(n)) for p, n in zip((self.row, self.column), speed.shape, strict=True))
        rows, columns = (
            slice(max(0, round(centre - half)), max(0, min(size, round(centre + half))))
            for centre, size in zip(places, speed.shape, strict=True)
        )
        part = rows, columns
        if min(speed[part].shape) < BLUR:
            return None
        evidence = cv2.blur(odds(part) + np.float32(trust) * speed_odds(speed[part], self.pace), (BLUR, BLUR))
        count, labels = cv2.connectedComponents((evidence > FOUND_ODDS).astype(np.uint8))
        if count < 2:
            return None
        total = np.bincount(labels.ravel(), np.asarray(evidence).ravel(), minlength=count)
        area = np.bincount(labels.ravel(), minlength=count)
        best = 1 + int(np.argmax(total[1:]))
        low, high = FOUND_AREA
        if not low * self.area <= area[best] <= high * self.area or total[best] < FOUND_MEAN_ODDS * area[best]:
            return None
        found = np.zeros(speed.shape, bool)
        found[part] = labels == best
        return found


def _centre(mask: Region) -> tuple[float, float]:
    moments = cv2.moments(mask.view(np.uint8), binaryImage=True)
    return moments["m01"] / moments["m00"], moments["m10"] / moments["m00"]
