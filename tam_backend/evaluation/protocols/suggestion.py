"""Which frame the product would have a person look at next."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from tam_backend.quality import suggest

#: (quality of each frame, frames a person has decided) -> the frame to look at, or None: all are decided.
Suggestion = Callable[[Mapping[int, float], Collection[int]], int | None]


def product_suggestion(quality: Mapping[int, float], decided: Collection[int]) -> int | None:
    """What ``tam track``, /status and predictions call the frame to fix next."""
    best = suggest(quality, decided)
    return best.frame if best else None
