"""From what speaks against a mask to an estimate of its IoU, with numbers that were fitted once and are kept as JSON.

The numbers come from ``benchmarks/calibrate_quality.py``, which fits them to true masks. Every weight is 0 or more: no
evidence against a mask can raise its estimate.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources

import numpy as np
import numpy.typing as npt

from tam_backend.errors import BadInput

#: Below this estimate a mask needs a look by a person.
NEEDS_A_LOOK = 0.75

#: Estimates stay this far from 0 and 1, and an agreement from 0, where logarithms end.
_LEAST = 1e-3


@dataclass(frozen=True, slots=True)
class Calibration:
    """The numbers of one engine. logit(p) = log(p / (1 - p)).

    bias, weights: logit of the estimate is ``bias`` minus the weighted sum of the parts. empty: the estimate for an
    empty mask, and empty_known for one where a person has said on an anchor that the object is not there.
    given: weight of what is missing to 1 in the quality of the anchor's mask. both: bias, quality and disagreement, see
    ``fused``.
    """

    bias: float
    weights: Mapping[str, float]
    empty: float
    empty_known: float
    given: float
    both: tuple[float, float, float]

    def estimate(self, parts: Mapping[str, float]) -> float:
        """IoU in [0, 1] from the parts of ``Watch.step``. Raises BadInput if the parts are not those of the numbers."""
        if parts.keys() != self.weights.keys():
            raise BadInput(f"the numbers are for the parts {', '.join(self.weights)}; given: {', '.join(parts)}")
        return _sigmoid(self.bias - sum(self.weights[name] * value for name, value in parts.items()))

    def from_anchor(self, quality: float, anchor: float) -> float:
        """The estimate for a mask that was propagated from a mask which itself is only as good as ``anchor``.

        quality, anchor: in [0, 1]; an anchor of 1, such as one drawn by hand, changes nothing.
        """
        return _sigmoid(_logit(quality) - self.given * (1 - anchor)) if anchor < 1 else quality

    def fused(self, near: float, far: float, agreement: float, share: float) -> float:
        """The estimate for a mask made of two, one propagated from each of the anchors around it.

        near, far: their estimates; share: what the far one has contributed, in [0, 1]; agreement: their IoU. That they
        disagree counts the more, the more the far one is to be believed.
        """
        if share <= 0:
            return near
        bias, weight, penalty = self.both
        mixed = _logit((1 - share) * near + share * far)
        disagreement = far * -math.log(max(agreement, _LEAST))
        fused = _sigmoid(bias + weight * mixed - penalty * disagreement)
        # Continuous in the share: a mask to which the far side has added nothing is as good as the near one.
        trust = min(1.0, 4 * share)
        return (1 - trust) * near + trust * fused


@functools.cache
def load_calibration(engine: str = "embedded") -> Calibration:
    """The numbers that come with the package. Raises BadInput for an engine that has none."""
    path = resources.files("tam_backend.quality").joinpath(f"{engine}.json")
    if not path.is_file():
        raise BadInput(f"the quality figure is not calibrated for the engine {engine!r}")
    return parse_calibration(path.read_text(encoding="utf-8"))


def parse_calibration(text: str) -> Calibration:
    """From JSON, as ``benchmarks/calibrate_quality.py`` writes it; what is not a number of ours in it is a note."""
    n = json.loads(text)
    both = (n["both"]["bias"], n["both"]["quality"], n["both"]["disagreement"])
    return Calibration(n["bias"], n["weights"], n["empty"], n["empty_known"], n["given"], both)


def agreement(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> float:
    """IoU of two soft masks, HxW uint8: sum of the smaller over sum of the larger values; 1 for two empty ones."""
    larger = int(np.maximum(a, b).sum(dtype=np.int64))
    return int(np.minimum(a, b).sum(dtype=np.int64)) / larger if larger else 1.0


def fused_quality(
    earlier: float, earlier_soft: npt.NDArray[np.uint8], later: float, later_soft: npt.NDArray[np.uint8], weight: float
) -> float:
    """The estimate for a mask made of two that were propagated from the anchors before and after it.

    earlier, later: their estimates. earlier_soft, later_soft: HxW uint8. weight: of the later one, in [0, 1].
    """
    agreed = agreement(earlier_soft, later_soft)
    if weight <= 0.5:
        return load_calibration().fused(earlier, later, agreed, weight)
    return load_calibration().fused(later, earlier, agreed, 1 - weight)


def from_anchor(quality: float, anchor: float) -> float:
    """``Calibration.from_anchor`` with the numbers of the embedded engine, the only ones there are."""
    return load_calibration().from_anchor(quality, anchor)


def needs_a_look(quality: float) -> bool:
    return quality < NEEDS_A_LOOK


def _sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-max(-50.0, min(50.0, z))))


def _logit(p: float) -> float:
    p = min(1 - _LEAST, max(_LEAST, p))
    return math.log(p / (1 - p))
