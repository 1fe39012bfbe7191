"""Masks follow dense optical flow, held to the colours of the frames a person decided: no weights, no download."""

from tam_backend.propagators.embedded.propagator import EmbeddedPropagator

__all__ = ["EmbeddedPropagator"]
