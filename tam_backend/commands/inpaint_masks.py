"""The masks of ``tam inpaint`` where they are files."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from tam_backend.commands.track_prompts import read_id_map
from tam_backend.errors import BadInput
from tam_backend.inpainting.objects import Ids
from tam_backend.video.base import Reader

_NUMBER = re.compile(r"\d+", re.ASCII)


class MaskFolder:
    """A folder of PNG files: those of ``tam track``, or any whose names end in the number of their frame."""

    names: Mapping[int, str] = {}

    def __init__(self, folder: Path, video: Reader) -> None:
        """Raises BadInput if there are no masks, or if ``tam track`` made them for another video."""
        self.title, self._folder, self._video = str(folder), folder, video
        self._files: dict[int, Path] = {}
        for path in sorted(folder.iterdir()):
            numbers = _NUMBER.findall(path.stem)
            if path.suffix.lower() == ".png" and numbers and not path.name.startswith("."):
                frame = int(numbers[-1])
                if frame in self._files:
                    both = f"{self._files[frame].name} and {path.name}"
                    raise BadInput(f"{folder} has two masks for frame {frame}: {both}")
                self._files[frame] = path
        if not self._files:
            raise BadInput(f"{folder} has no masks: PNG files named by the number of their frame, such as 00000.png")
        self._refuse_foreign()

    def _refuse_foreign(self) -> None:
        try:
            run = json.loads((self._folder / ".tam" / "run.json").read_bytes())
        except (OSError, ValueError):
            return
        if isinstance(run, dict) and run.get("video") not in (None, self._video.key):
            raise BadInput(f"the masks in {self._folder} were made for another video, {run.get('name')}")

    def missing(self, frames: range) -> list[int]:
        beyond = [f for f in self._files if f >= len(self._video)]
        if beyond:
            raise BadInput(
                f"{self._folder} has a mask for frame {beyond[0]} ({self._files[beyond[0]].name}), but the video has "
                f"frames 0 to {len(self._video) - 1}: these are the masks of another video, or numbered from 1"
            )
        for frame in frames:
            if frame in self._files:
                self._check_size(self._files[frame])
        return [f for f in frames if f not in self._files]

    def _check_size(self, path: Path) -> None:
        try:
            with Image.open(path, formats=["PNG"]) as image:
                width, height = image.size
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            return  # reading it says what is wrong
        if (width, height) != (self._video.width, self._video.height):
            raise BadInput(
                f"the mask {path} is {width}x{height} pixels, the video {self._video.width}x{self._video.height}"
            )

    def read(self, frame: int) -> Ids:
        path = self._files[frame]
        values, is_binary = read_id_map(path, f"the mask of frame {frame}")
        self._check_size(path)
        return (values > 0).astype(np.uint8) if is_binary else values
