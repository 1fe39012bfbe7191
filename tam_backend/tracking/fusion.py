"""Between two anchors the object is followed from both; here the two masks of a frame become one.

Near an anchor the run that comes from it decides alone: nothing that comes from farther away knows better, and the
frames around a correction need not wait for the other side. In the middle both count, by distance and by quality.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from tam_backend.propagators.base import Propagated
from tam_backend.quality import fused_quality

#: Up to this share of the way from one anchor to the other, its own run decides alone (1 in so many parts of the way).
ALONE_PARTS = 4
#: A side counts by its distance times its quality to this power.
QUALITY_POWER = 6.0


def share_of_later(frame: int, earlier: int, later: int) -> float:
    """How far the run from the anchor ``later`` decides ``frame``, by distance alone: 0 not at all, 1 alone.

    earlier < frame < later. Exactly 0 or 1 near the anchors, and it rises evenly in between.
    """
    way, whole = frame - earlier, later - earlier
    share = (ALONE_PARTS * way - whole) / ((ALONE_PARTS - 2) * whole)
    return min(1.0, max(0.0, share))


def weight_of_later(earlier: float, later: float, share: float) -> float:
    """How much of the later anchor's soft values is taken, in [0, 1]; earlier, later: qualities of the two masks.

    share: see ``share_of_later``.
    """
    weights = [(1 - share) * earlier**QUALITY_POWER, share * later**QUALITY_POWER]
    total = sum(weights)
    weight = weights[1] / total if total > 0 else share
    return math.ceil(255 * weight - 0.5) / 255  # so that of 255 here and 0 there never both are "object"


def fuse(earlier: Propagated, later: Propagated, share: float) -> Propagated:
    """One result for a frame that was reached from both sides.

    share: of the later anchor's run by distance, in (0, 1). The soft values are averaged, so that where the sides
    disagree the one that counts more decides, the earlier one at a tie, and where both are in doubt the doubt stays.
    """
    weight = weight_of_later(earlier.quality, later.quality, share)
    soft = np.asarray(cv2.addWeighted(earlier.soft, 1 - weight, later.soft, weight, 0), np.uint8)
    quality = fused_quality(earlier.quality, earlier.soft, later.quality, later.soft, weight)
    return Propagated(soft, quality)
