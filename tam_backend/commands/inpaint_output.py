"""What ``tam inpaint`` writes: a video or a folder of frames, which appears when it is complete, and the work before.

The work is in a folder beside it, so that the same command goes on where it was stopped.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any
from uuid import uuid4

import cv2
import numpy as np

from tam_backend.errors import BadInput
from tam_backend.tracking.filestore import FileStore, hold_lock, write_atomically
from tam_backend.video.base import Frame, Reader
from tam_backend.video.container import Limits, timing
from tam_backend.video.reader import VideoReader

#: Pixels between the two pictures of a comparison.
GAP = 4


def work_folder(out: Path) -> Path:
    """Where the work for an output is kept."""
    return out.with_name(f".{out.name}.tam")


class WorkFolder:
    """The finished work of one run, held for this process. It goes when the run is complete.

    run: JSON data, all that decides the result; the work of another run is replaced.
    """

    def __init__(self, path: Path, out: Path, run: dict[str, Any], *, force: bool = False) -> None:
        """path: as ``work_folder`` gives it for ``out``. force: forget what is there.

        Raises BadInput if the folder cannot be written, TamError if another process is at it.
        """
        self.path = path
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            busy = f"another tam inpaint is writing {out}; wait for it or choose another --out"
            self._lock = hold_lock(self.path / "lock", busy)
        except OSError as e:
            raise BadInput(f"--out {out} cannot be written: {e.strerror}") from e
        try:
            if force or self._known() != run:
                shutil.rmtree(self.path / "store", ignore_errors=True)
                write_atomically(self.path / "run.json", json.dumps(run, indent=1).encode())
            for partial in self.path.rglob("*.partial"):
                partial.unlink()
            self.store = FileStore(self.path / "store")
        except BaseException:
            self._lock.close()
            raise

    def _known(self) -> object:
        try:
            return json.loads((self.path / "run.json").read_bytes())
        except (OSError, ValueError):
            return None

    def __enter__(self) -> WorkFolder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._lock.close()

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


class FrameFolder:
    """Frames as PNG, named by their numbers. The folder appears whole at the end of the block, or not at all."""

    def __init__(self, path: Path, comment: str) -> None:
        self._path, self._comment = path, comment
        self._temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}.part")

    def __enter__(self) -> FrameFolder:
        self._temporary.mkdir(parents=True)
        return self

    def write(self, number: int, frame: Frame) -> None:
        done, png = cv2.imencode(".png", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 3])
        assert done
        (self._temporary / f"{number:05d}.png").write_bytes(png.tobytes())

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            if kind is None:
                if self._comment:
                    (self._temporary / "LICENCE.txt").write_text(self._comment + "\n")
                self._temporary.replace(self._path)
        finally:
            shutil.rmtree(self._temporary, ignore_errors=True)


class Times:
    """The times of a video's frames, exactly as its file has them.

    base: their unit in seconds. start: of the first frame wanted, seconds as the file counts; end: of the first one
    after the last, None if that is the last one of all.
    """

    def __init__(self, path: Path, video: Reader, frames: range) -> None:
        self._video, self._first = video, frames.start
        if isinstance(video, VideoReader):
            self.base, self._origin = timing(path, Limits())
        else:
            self.base, self._origin = Fraction(1, 1000), Fraction(0)
        self.start = self._seconds(frames.start) if frames.start else Fraction(0)
        self.end = self._seconds(frames.stop) - self.start if frames.stop < len(video) else None

    def of(self, frame: int) -> int:
        """In units of ``base``. A video from its first frame on keeps its times; from a later one it begins at 0."""
        return round((self._seconds(frame) - self.start) / self.base)

    def _seconds(self, frame: int) -> Fraction:
        return round(Fraction(self._video.time(frame)) / self.base) * self.base + self._origin


def beside_size(size: tuple[int, int]) -> tuple[int, int]:
    """Width and height of what ``beside`` makes of two pictures of this size."""
    return 2 * size[0] + GAP, size[1]


def beside(before: Frame, after: Frame) -> Frame:
    """Two pictures of one size side by side, with a white gap."""
    gap = np.full((before.shape[0], GAP, 3), 255, np.uint8)
    return np.hstack([before, gap, after])


def check_place(out: Path, inputs: Iterable[Path], force: bool) -> None:
    """Raises BadInput if ``--out`` would replace something: always an input, without ``--force`` any video."""
    if not out.name:
        raise BadInput(f"--out {out} is not the name of a file or folder")
    if not out.resolve().parent.is_dir():
        raise BadInput(f"--out {out}: there is no folder {out.parent}")
    for given in inputs:
        if out.resolve() == given.resolve():
            raise BadInput(f"--out {out} is an input; choose another name")
    if out.suffix.lower() == ".mp4":
        if out.is_dir():
            raise BadInput(f"--out {out} is a folder; a video is written to a file")
        if out.exists() and not force:
            raise BadInput(f"--out {out} is there already; choose another name, or --force to replace it")
    elif out.suffix:
        raise BadInput(f"--out {out}: a video is written as .mp4; a name without an ending is a folder of PNG frames")
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadInput(f"--out {out} is there already and not an empty folder; choose another name")
