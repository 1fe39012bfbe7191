"""Masks in PNG files: indexed ones (pixel value = object), maps of ids in grey, and black and white ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from tam_backend.errors import BadInput

#: A grey picture with more values than this is a photograph or a soft mask, not a map of object ids.
_MAX_OBJECTS_IN_GREY = 64


def read_mask_file(path: Path, what: str) -> tuple[npt.NDArray[np.uint8], bool]:
    """Pixel values, HxW uint8, and whether they are just object (not 0) and background.

    what: begins the message of the BadInput that is raised if the file is missing, damaged, or no mask.
    """
    try:
        with Image.open(path, formats=["PNG"]) as image:
            values, is_binary = _values(image)
    except FileNotFoundError as e:
        raise BadInput(f"{what}: there is no file {path}") from e
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as e:
        reason = e.strerror if isinstance(e, OSError) and e.strerror else "it is damaged or no PNG"
        raise BadInput(f"{what}: {path} cannot be read: {reason}") from e
    if values is None:
        raise BadInput(
            f"{what}: {path} is a colour or grey picture; a mask is an indexed PNG (pixel value = object) or a black "
            "and white one"
        )
    return values, is_binary


def _values(image: Image.Image) -> tuple[npt.NDArray[np.uint8] | None, bool]:
    """Pixel values (None: not those of a mask), and whether they are just object and background."""
    if image.mode == "P":
        return np.array(image), False
    if image.mode == "1":
        return np.array(image).astype(np.uint8), True
    if image.mode in ("RGB", "RGBA", "LA"):
        bands = [np.array(band) for band in image.split()]
        colours = bands[:-1] if image.mode in ("RGBA", "LA") else bands
        if any((band != colours[0]).any() for band in colours) or not _is_black_and_white(colours[0]):
            return None, False
        return colours[0], True
    if image.mode != "L":
        return None, False
    values = np.array(image)
    if _is_black_and_white(values):
        return values, True
    return (values, False) if len(np.unique(values)) <= _MAX_OBJECTS_IN_GREY else (None, False)


def _is_black_and_white(values: npt.NDArray[np.uint8]) -> bool:
    return bool(np.isin(values, (0, 255)).all())
