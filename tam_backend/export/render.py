"""Videos and sheets for people to look at: masks on the frames, and how far each is to be trusted."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from tam_backend.drawing import PALETTE, draw_objects
from tam_backend.export.dataset import MaskedFrame, Track, Video, bounding_box, flatten
from tam_backend.quality import NEEDS_A_LOOK
from tam_backend.video.base import Frame
from tam_backend.video.jpeg import encode_jpeg
from tam_backend.video.write import VideoWriter

#: Colours of the bar (RGB): masks of a person, good ones, ones that need a look, unknown, and the tick.
BY_HAND, GOOD, LOOK, UNKNOWN = (70, 130, 230), (60, 170, 80), (225, 70, 50), (120, 120, 120)
_TICK = (255, 255, 255)
#: A sheet has so many frames in a row, each so wide.
_COLUMNS, _CELL = 4, 400


@dataclass(frozen=True, slots=True)
class FrameNote:
    """The lowest quality among the masks of a frame that no person made, and its track. None: there is none, or it is
    not known. by_hand: whether a person made masks of the frame."""

    quality: float | None
    track: int | None
    by_hand: bool

    @property
    def colour(self) -> tuple[int, int, int]:
        if self.quality is None:
            return BY_HAND if self.by_hand else UNKNOWN
        return LOOK if self.quality < NEEDS_A_LOOK else GOOD


def note(masked: MaskedFrame) -> FrameNote:
    known = {t: q for t, q in masked.qualities.items() if t not in masked.by_hand}
    worst = min(known, key=lambda t: known[t], default=None)
    return FrameNote(None if worst is None else known[worst], worst, bool(masked.by_hand))


def write_overlay(video: Video, path: Path) -> None:
    """H.264 of the frames with masks, names, frame numbers and the bar. video: with pictures; read twice."""
    _write(video, path, lambda picture, masked: draw(video, picture, masked))


def write_side_by_side(before: Video | None, after: Video, path: Path) -> None:
    """Two pictures beside each other on each frame of ``after``: with the masks of ``before``, or plain, and with those
    of ``after``."""
    earlier = _Following(iter(()) if before is None else before.read())

    def drawn(picture: Frame, masked: MaskedFrame) -> Frame:
        left = earlier.at(masked.frame) or MaskedFrame(masked.frame, {})
        return np.concatenate([draw(after, picture, left), draw(after, picture, masked)], axis=1)

    _write(after, path, drawn)


def write_worst(video: Video, path: Path, count: int = 12) -> list[tuple[int, FrameNote]]:
    """A JPEG with the frames of lowest quality, worst first; returns which. Neighbours of a frame that is on the sheet
    are left out. Nothing is written if no quality is known."""
    chosen = worst_frames(notes_of(video), count)
    if not chosen:
        return []
    wanted = {frame for frame, _ in chosen}
    cells: dict[int, Frame] = {}
    assert video.pictures is not None
    with video.pictures() as pictures:
        for masked in video.read():
            if masked.frame in wanted:
                cells[masked.frame] = _cell(draw(video, pictures(masked.frame), masked))
    labels = {t.id: t.label for t in video.tracks}
    sheet = [_captioned(cells[f], _caption(f, n, labels)) for f, n in chosen]
    blank = np.zeros_like(sheet[0])
    columns = min(_COLUMNS, len(sheet))
    sheet += [blank] * (-len(sheet) % columns)
    rows = [np.concatenate(sheet[i : i + columns], axis=1) for i in range(0, len(sheet), columns)]
    partial = path.with_name(f".{path.name}.part")
    partial.write_bytes(encode_jpeg(np.ascontiguousarray(np.concatenate(rows)), quality=88))
    partial.replace(path)
    return chosen


def notes_of(video: Video) -> dict[int, FrameNote]:
    return {masked.frame: note(masked) for masked in video.read()}


def worst_frames(notes: Mapping[int, FrameNote], count: int) -> list[tuple[int, FrameNote]]:
    """At most ``count`` frames with known quality, lowest first, none within 2 % of the video of another."""
    apart = max(1, len(notes) // 50)
    chosen: list[tuple[int, FrameNote]] = []
    for frame, found in sorted(notes.items(), key=lambda item: (item[1].quality is None, item[1].quality, item[0])):
        if found.quality is None or len(chosen) == count:
            break
        if all(abs(frame - other) > apart for other, _ in chosen):
            chosen.append((frame, found))
    return chosen


def draw(video: Video, picture: Frame, masked: MaskedFrame) -> Frame:
    """A copy of a frame with its masks, their names, and its number."""
    ids, _ = flatten(masked, video.height, video.width)
    image = draw_objects(picture, ids, masked.frame)
    for track in video.tracks:
        mask = masked.masks.get(track.id)
        if mask is not None:
            _draw_name(image, track, bounding_box(mask), masked.qualities.get(track.id))
    return image


def draw_bar(image: Frame, notes: Mapping[int, FrameNote], at: int) -> Frame:
    """The frame with a bar below that stands for all frames from left to right: how far each is to be trusted."""
    height, width = image.shape[:2]
    rows = max(6, round(min(height, width) / 30))
    colours = np.array([n.colour for n in notes.values()], np.uint8)[None]
    bar = cv2.resize(colours, (width, rows), interpolation=cv2.INTER_NEAREST)
    middle = round((list(notes).index(at) + 0.5) * width / len(notes) - 0.5)
    half = max(1, rows // 6)
    bar[:, max(0, middle - half) : middle + half + 1] = _TICK
    return np.concatenate([image, bar])


class _Following:
    """An ascending stream of frames, asked for ascending ones."""

    def __init__(self, frames: Iterator[MaskedFrame]) -> None:
        self._frames = frames
        self._next: MaskedFrame | None = next(frames, None)

    def at(self, frame: int) -> MaskedFrame | None:
        while self._next is not None and self._next.frame < frame:
            self._next = next(self._frames, None)
        return self._next if self._next is not None and self._next.frame == frame else None


def _write(video: Video, path: Path, drawn: Callable[[Frame, MaskedFrame], Frame]) -> None:
    assert video.pictures is not None
    notes = notes_of(video)
    with contextlib.ExitStack() as stack:
        pictures = stack.enter_context(video.pictures())
        writer: VideoWriter | None = None
        for masked in video.read():
            image = draw_bar(drawn(pictures(masked.frame), masked), notes, masked.frame)
            if writer is None:
                size = image.shape[1], image.shape[0]
                writer = stack.enter_context(VideoWriter(path, min(max(video.fps, 0.01), 1000), size))
            writer.write(np.ascontiguousarray(image))


def _draw_name(image: Frame, track: Track, box: tuple[int, int, int, int], quality: float | None) -> None:
    # OpenCV's letters are those of ASCII.
    text = f"{track.id} {track.label}" if track.label.isascii() else str(track.id)
    if quality is not None:
        text += f" {quality:.2f}"
    height, width = image.shape[:2]
    scale = max(0.35, min(height, width) / 1000)
    (across, up), down = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    left = int(np.clip(box[0], 0, max(0, width - across - 4)))
    base = int(np.clip(box[1] - 4, up + 4, height - down))
    cv2.rectangle(image, (left, base - up - 3), (left + across + 3, base + down), PALETTE[track.id].tolist(), -1)
    light = int(PALETTE[track.id].astype(int) @ (299, 587, 114)) > 128_000
    colour = (0, 0, 0) if light else (255, 255, 255)
    cv2.putText(image, text, (left + 2, base), cv2.FONT_HERSHEY_SIMPLEX, scale, colour, 1, cv2.LINE_AA)


def _cell(image: Frame) -> Frame:
    height = max(1, round(image.shape[0] * _CELL / image.shape[1]))
    return np.asarray(cv2.resize(image, (_CELL, height), interpolation=cv2.INTER_AREA))


def _caption(frame: int, found: FrameNote, labels: Mapping[int, str]) -> str:
    label = labels.get(found.track or 0, "")
    name = label if label.isascii() else str(found.track)
    return f"frame {frame}: {name} {found.quality:.2f}"


def _captioned(cell: Frame, text: str) -> Frame:
    strip = np.zeros((24, cell.shape[1], 3), np.uint8)
    cv2.putText(strip, text, (6, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1, cv2.LINE_AA)
    return np.concatenate([strip, cell])
