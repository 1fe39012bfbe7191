"""What comes out: a video with the frame times and the sound of the source, or a folder of frames."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Generator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from uuid import uuid4

import cv2
import numpy as np

from tam_backend.inpainting.base import Filling, filled
from tam_backend.inpainting.holes import Holes
from tam_backend.video.audio import Sound
from tam_backend.video.base import Frame
from tam_backend.video.container import Limits, timing
from tam_backend.video.images import ImageReader
from tam_backend.video.reader import VideoReader
from tam_backend.video.write import VideoWriter

Source = VideoReader | ImageReader

#: Pixels between the two pictures of a comparison.
GAP = 4


def write_result(
    out: Path,
    compare: Path | None,
    video: Source,
    frames: range,
    holes: Holes,
    filling: Filling,
    terms: str,
    *,
    keep_audio: bool,
) -> Generator[int, None, None]:
    """Write the filled frames, one with each step; gives their numbers. What is not gone through to the end is not
    there.

    out: a video (.mp4), or, without an ending, a folder of frames. compare: a video of before and after side by side.
    terms: what the engine's licence demands. Raises MediaError.
    """
    times = Times(video, frames)
    comment = f"Objects were taken out of this video with tam inpaint. {terms}".strip()
    size = (video.width, video.height)
    with contextlib.ExitStack() as stack:
        write: list[Callable[[int, Frame, Frame], None]] = []

        def add_video(path: Path, size: tuple[int, int], picture: Callable[[Frame, Frame], Frame]) -> None:
            sound = None
            if keep_audio and isinstance(video, VideoReader):
                sound = stack.enter_context(Sound(video.path, times.start, times.end))
            writer = stack.enter_context(
                VideoWriter(path, video.fps, size, time_base=times.base, sound=sound, comment=comment)
            )
            write.append(lambda frame, before, after: writer.write(picture(before, after), times.of(frame)))

        if compare is not None:
            add_video(compare, beside_size(size), beside)
        if out.suffix:
            add_video(out, size, lambda before, after: after)
        else:
            folder = stack.enter_context(FrameFolder(out, terms))
            write.append(lambda frame, before, after: folder.write(frame, after))
        for frame in frames:
            after = filled(video, holes, filling, frame)
            before = video[frame] if compare is not None else after
            for one in write:
                one(frame, before, after)
            yield frame


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

    def __init__(self, video: Source, frames: range) -> None:
        self._video, self._first = video, frames.start
        if isinstance(video, VideoReader):
            self.base, self._origin = timing(video.path, Limits())
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
