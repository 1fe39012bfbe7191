"""Per-frame features of classical vision, computed once and shared by everything that looks at the same video."""

from tam_backend.features.camera import CameraMotion
from tam_backend.features.frames import FlowPair, FrameFeatures
from tam_backend.features.geometry import Geometry
from tam_backend.features.store import FeatureStore

__all__ = ["CameraMotion", "FeatureStore", "FlowPair", "FrameFeatures", "Geometry"]
