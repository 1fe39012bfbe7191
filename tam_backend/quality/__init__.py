"""How far a mask is to be trusted: one number for each object and frame, an estimate of its IoU with the true mask.

Knows arrays and numbers only, so that every engine can use it.
"""

from tam_backend.quality.calibration import (
    NEEDS_A_LOOK,
    Calibration,
    agreement,
    from_anchor,
    fused_quality,
    load_calibration,
    needs_a_look,
)
from tam_backend.quality.reviewing import Review, mean_quality, review
from tam_backend.quality.suggestion import Suggestion, suggest
from tam_backend.quality.watch import PARTS, Watch

__all__ = [
    "NEEDS_A_LOOK",
    "PARTS",
    "Calibration",
    "Review",
    "Suggestion",
    "Watch",
    "agreement",
    "from_anchor",
    "fused_quality",
    "load_calibration",
    "mean_quality",
    "needs_a_look",
    "review",
    "suggest",
]
