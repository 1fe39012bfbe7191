"""Pictures of results: overlay videos of the worst sequences, and frames on which two runs differ."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from tam_backend.drawing import draw_objects
from tam_backend.evaluation.datasets import VOID, IdMap, Sequence
from tam_backend.video.base import Frame
from tam_backend.video.write import VideoWriter


def read_ids(folder: Path, stem: str) -> IdMap | None:
    """HxW uint8 ids of a mask in a folder, or None where there is none."""
    path = folder / f"{stem}.png"
    if not path.is_file():
        return None
    with Image.open(path) as image:
        return np.array(image)


def write_overlay(path: Path, sequence: Sequence, masks: Path) -> None:
    """A video with the masks of ``masks`` on the left and the true ones on the right. Raises MediaError."""
    with sequence.open() as video, VideoWriter(path, video.fps, (2 * video.width, video.height)) as writer:
        for index, frame in enumerate(video):
            ids = read_ids(masks, sequence.stems[index])
            left = draw_objects(frame, ids if ids is not None else _nothing(frame), index)
            writer.write(np.hstack([left, draw_objects(frame, true_ids(sequence, index))]))


def true_ids(sequence: Sequence, frame: int) -> IdMap:
    """The true objects, without void pixels; none on a frame that is not annotated."""
    if frame not in sequence.annotations:
        return np.zeros((sequence.height, sequence.width), np.uint8)
    ids = sequence.truth(frame)
    return np.where(ids == VOID, np.uint8(0), ids)


def write_side_by_side(path: Path, frame: Frame, number: int, panels: list[IdMap]) -> None:
    """A picture of one frame with several sets of masks, from left to right."""
    drawn = [draw_objects(frame, ids, number if i == 0 else None) for i, ids in enumerate(panels)]
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), cv2.cvtColor(np.hstack(drawn), cv2.COLOR_RGB2BGR))


def _nothing(frame: Frame) -> IdMap:
    return np.zeros(frame.shape[:2], np.uint8)
