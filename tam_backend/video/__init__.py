"""Readers of videos, folders and lists of images."""

from __future__ import annotations

from pathlib import Path

from tam_backend.errors import MediaError
from tam_backend.video.images import IMAGE_SUFFIXES, ImageReader, images_in, open_images
from tam_backend.video.reader import DEFAULT_CACHE_BYTES, VideoReader, open_video

__all__ = ["DEFAULT_CACHE_BYTES", "ImageReader", "VideoReader", "open_images", "open_source", "open_video"]


def open_source(
    path: str | Path, *, cache_dir: Path | None = None, cache_bytes: int = DEFAULT_CACHE_BYTES
) -> VideoReader | ImageReader:
    """Open a video file, a folder of images (sorted by name, numbers by value) or a single image.

    Raises MediaError as open_video and open_images do, and for a folder without images.
    """
    path = Path(path)
    if path.is_dir():
        files = images_in(path)
        if not files:
            raise MediaError(f"the folder {path.name} has no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
        return open_images(files, cache_dir=cache_dir)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return open_images([path], cache_dir=cache_dir)
    return open_video(path, cache_dir=cache_dir, cache_bytes=cache_bytes)
