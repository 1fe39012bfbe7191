"""Segment Anything (Kirillov et al., ICCV 2023): clicks and boxes to masks, by the ``segment-anything`` package."""

from tam_backend.segmenters.sam.embeddings import EmbeddingCache
from tam_backend.segmenters.sam.loading import load_sam
from tam_backend.segmenters.sam.predictor import Candidates, Embedding, Predictor
from tam_backend.segmenters.sam.segmenter import SamSegmenter

__all__ = ["Candidates", "Embedding", "EmbeddingCache", "Predictor", "SamSegmenter", "load_sam"]
