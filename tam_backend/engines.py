"""Engines by name: a segmenter with a propagator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tam_backend.errors import BadInput
from tam_backend.propagators.base import Propagator
from tam_backend.segmenters.base import Segmenter


@dataclass(frozen=True)
class Engine:
    """name and version: together they change whenever the masks of the same prompts may change."""

    name: str
    version: str
    segmenter: Segmenter
    propagator: Propagator


def _embedded() -> Engine:
    from tam_backend.features import FrameFeatures
    from tam_backend.propagators.embedded import EmbeddedPropagator
    from tam_backend.segmenters.embedded import EmbeddedSegmenter

    features = FrameFeatures()  # one for both, so that a flow computed for a click serves the propagation
    return Engine("embedded", "1", EmbeddedSegmenter(features), EmbeddedPropagator(features))


#: Imports happen inside the makers: nobody pays for an engine that is not used.
_MAKERS: dict[str, Callable[[], Engine]] = {"embedded": _embedded}


def load_engine(name: str = "embedded") -> Engine:
    """Make an engine of its own (its features are shared with no other). Raises BadInput for an unknown name."""
    maker = _MAKERS.get(name)
    if maker is None:
        raise BadInput(f"there is no engine {name!r}; known engines: {', '.join(sorted(_MAKERS))}")
    return maker()
