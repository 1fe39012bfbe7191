"""How refinement (step 3) is done."""

from __future__ import annotations

from dataclasses import dataclass

#: Changes whenever the same options may give other masks.
VERSION = 3

RECIPES = ("probes", "clicks")


@dataclass(frozen=True, slots=True)
class RefineOptions:
    """below: frames of lower quality are refined.

    recipe: ``probes``: the segmenter gets the projected probes and the propagated mask. ``clicks``: it first gets
    clicks into the propagated mask until it has made that mask itself (nearly), then the probes with its own mask (the
    recipe of Ravi et al., "SAM 2: Segment Anything in Images and Videos", 2024, appendix).
    """

    recipe: str = "probes"
    below: float = 0.65

    @property
    def tag(self) -> str:
        """Part of an engine's version, because these options change masks."""
        return f"{self.recipe}{VERSION}-{self.below:g}"
