"""Track anything inside Label Studio: clicks on one frame become masks on every frame of a video."""

__version__ = "0.1.0"
