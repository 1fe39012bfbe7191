"""Which frame the product would have a person look at next."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

#: (quality of each frame, frames a person has decided) -> the frame to look at, or None: all is well.
Suggestion = Callable[[Mapping[int, float], Collection[int]], int | None]


def least_sure(quality: Mapping[int, float], decided: Collection[int]) -> int | None:
    """The frame of the lowest quality that nobody has decided; the earliest of equals."""
    return min((f for f in quality if f not in decided), key=lambda f: (quality[f], f), default=None)


#: What the product suggests today. The protocol asks this and nothing else.
product_suggestion: Suggestion = least_sure
