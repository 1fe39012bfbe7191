"""Step 3: where a mask is poor, the segmenter makes a better one, told by memory where to look."""

from tam_backend.tracking.refinement.decision import Decision, Point
from tam_backend.tracking.refinement.propagator import Journal, RefiningPropagator

__all__ = ["Decision", "Journal", "Point", "RefiningPropagator"]
