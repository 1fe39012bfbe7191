"""Folders and lists of images as readers."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import SupportsIndex

import cv2
import numpy as np

from tam_backend.errors import MediaError
from tam_backend.video.base import Frame
from tam_backend.video.cache import content_key
from tam_backend.video.container import DEFAULT_MAX_PIXELS
from tam_backend.video.image_header import ImageHeader, read_image_header

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})
DEFAULT_FPS = 24.0  # images have no times of their own; Label Studio's <Video> assumes 24 frames per second as well


class ImageReader:
    """Images as the frames of a video; see open_images and tam_backend.video.base.Reader."""

    def __init__(self, paths: Sequence[Path], headers: Sequence[ImageHeader], key: str, fps: float) -> None:
        self._paths = tuple(paths)
        self._headers = tuple(headers)
        self._key = key
        self._fps = fps
        self._closed = False

    @property
    def key(self) -> str:
        return self._key

    @property
    def height(self) -> int:
        return self._headers[0].shown_size[1]

    @property
    def width(self) -> int:
        return self._headers[0].shown_size[0]

    @property
    def fps(self) -> float:
        return self._fps

    @property
    def warning(self) -> str | None:
        """Always None: unlike a video that ends early, a list with an image that is not one is refused."""
        return None

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: SupportsIndex) -> Frame:
        """HxWx3 uint8 RGB in memory of its own.

        Raises IndexError outside 0..len-1, MediaError naming the image if it cannot be decoded or the reader is closed.
        """
        place = self._place(index)
        path, header = self._paths[place], self._headers[place]
        if self._closed:
            raise MediaError(f"the reader of {path.parent.name or path.name} is closed")
        try:
            data = np.fromfile(path, np.uint8)
        except OSError as error:
            raise MediaError(f"image {place}, {path.name}, cannot be read: {error.strerror}") from None
        stored = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION) if len(data) else None
        if stored is None:
            raise MediaError(f"image {place}, {path.name}, cannot be decoded: it is damaged")
        if stored.shape != (header.height, header.width, 3):
            raise MediaError(f"image {place}, {path.name}, changed while it was read")
        return np.ascontiguousarray(header.orientation.apply(stored))

    def __iter__(self) -> Iterator[Frame]:
        return (self[i] for i in range(len(self)))

    def __reversed__(self) -> Iterator[Frame]:
        return (self[i] for i in reversed(range(len(self))))

    def time(self, index: SupportsIndex) -> float:
        return self._place(index) / self._fps

    def clone(self) -> ImageReader:
        return ImageReader(self._paths, self._headers, self._key, self._fps)

    def close(self) -> None:
        self._closed = True

    def __enter__(self) -> ImageReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _place(self, index: SupportsIndex) -> int:
        place = operator.index(index)
        if not 0 <= place < len(self):
            raise IndexError(f"image {place}: there are images 0 to {len(self) - 1}")
        return place


def open_images(
    paths: Sequence[str | Path],
    *,
    cache_dir: Path | None = None,
    fps: float = DEFAULT_FPS,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> ImageReader:
    """Open images, in the order given, as the frames of a video.

    The orientation that EXIF states is applied; grayscale becomes RGB, of 16 bits the upper 8 are kept, transparency
    is dropped. Pixels are decoded when they are read, and not kept. fps gives the images their times.

    Raises MediaError naming the file: missing, not an image, larger than max_pixels, or not of the first one's size.
    """
    files = [Path(path) for path in paths]
    if not files:
        raise MediaError("there are no images to open")
    headers = [read_image_header(path) for path in files]
    size = headers[0].shown_size
    for path, header in zip(files, headers, strict=True):
        if header.width * header.height > max_pixels:
            raise MediaError(
                f"{path.name} is {header.width}x{header.height} pixels; the limit is {max_pixels / 1e6:g} million"
            )
        if header.shown_size != size:
            raise MediaError(
                f"all images must have one size: {path.name} is {header.shown_size[0]}x{header.shown_size[1]}, "
                f"{files[0].name} is {size[0]}x{size[1]}"
            )
    return ImageReader(files, headers, content_key(files, cache_dir), fps)


def images_in(folder: Path) -> list[Path]:
    """The images directly in a folder, numbers in their names in numeric order (2.jpg before 10.jpg)."""
    files = [p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")]
    return sorted((p for p in files if p.is_file()), key=_natural)


def _natural(path: Path) -> tuple[list[tuple[int, int, str]], str]:
    parts = re.findall(r"\d+|\D+", path.name.lower())
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in parts], path.name
