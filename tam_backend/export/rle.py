"""COCO's run lengths, written and read by COCO's own library."""

from __future__ import annotations

from typing import Any

import numpy as np
from pycocotools import mask as coco

from tam_backend.errors import BadInput
from tam_backend.prompts import Mask

Rle = dict[str, Any]


def encode(mask: Mask) -> Rle:
    """``{"size": [height, width], "counts": text}`` of a HxW bool mask."""
    rle = coco.encode(np.asfortranarray(mask, np.uint8))
    return {"size": [int(n) for n in rle["size"]], "counts": rle["counts"].decode("ascii")}


def uncompressed(rle: Rle) -> Rle:
    """The same with its run lengths as numbers, which readers of YouTube-VIS expect."""
    return {"size": rle["size"], "counts": _runs(rle["counts"].encode("ascii"), "a mask")}


def decode(segmentation: Any, height: int, width: int, where: str) -> Mask:
    """HxW bool of a COCO segmentation: run lengths as text or as numbers, or polygons. where: for errors.

    Raises BadInput if it cannot be read or is of another size.
    """
    try:
        if isinstance(segmentation, dict):
            size, counts = segmentation["size"], segmentation["counts"]
            if list(size) != [height, width]:
                raise BadInput(f"{where}: its size is {size} (height, width), that of the image {[height, width]}")
            if isinstance(counts, list):
                if sum(counts) != height * width or min(counts, default=0) < 0:
                    raise BadInput(f"{where}: its run lengths do not add up to {height} x {width} pixels")
                rle = coco.frPyObjects({"size": [height, width], "counts": counts}, height, width)
            else:
                rle = {"size": [height, width], "counts": _checked(counts, height * width, where)}
        else:
            if not isinstance(segmentation, list) or not segmentation:
                raise BadInput(f"{where}: a segmentation must be run lengths or polygons")
            rle = coco.merge(coco.frPyObjects(segmentation, height, width))
        return np.asarray(coco.decode(rle), bool)
    except BadInput:
        raise
    except Exception as e:  # the library lets TypeError, KeyError, ValueError and others out
        raise BadInput(f"{where}: it cannot be read: {e}") from e


def _checked(counts: Any, pixels: int, where: str) -> bytes:
    """The text of run lengths, after a check that they add up: the library writes beyond the image if they do not."""
    text = counts.encode("ascii") if isinstance(counts, str) else bytes(counts)
    runs = _runs(text, where)
    if sum(runs) != pixels or min(runs, default=0) < 0:
        raise BadInput(f"{where}: its run lengths do not add up to the {pixels} pixels of the image")
    return text


def _runs(text: bytes, where: str) -> list[int]:
    """The numbers in the text: five bits a character, lowest first; the sixth says that more follow. Raises
    BadInput."""
    runs: list[int] = []
    value = shift = 0
    for byte in text:
        bits = byte - 48
        if not 0 <= bits < 64:
            raise BadInput(f"{where}: its run lengths have a character that COCO does not use")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            # From the fourth run on, each is written as its difference to the one before the last.
            runs.append(value + runs[-2] if len(runs) > 2 else value)
            value = shift = 0
    if shift:
        raise BadInput(f"{where}: its run lengths do not add up: the last one is cut off")
    return runs
