"""Clicks and boxes become masks from colour, edges and motion: no weights, no download."""

from tam_backend.segmenters.embedded.segmenter import EmbeddedSegmenter

__all__ = ["EmbeddedSegmenter"]
