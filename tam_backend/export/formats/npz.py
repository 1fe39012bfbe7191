"""NumPy archives, one for each video. They are written frame by frame, however long the video is."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tam_backend.errors import BadInput
from tam_backend.export import manifest
from tam_backend.export.dataset import Dataset, MaskedFrame, Track, Video
from tam_backend.export.formats.common import checked, folder_pictures, fps_of, walk

PICTURES = "images"


def write(dataset: Dataset, out: Path) -> list[str]:
    """Arrays of a file: ``masks`` (frames, tracks, height, width) bool; ``frames`` (n,) int64, their numbers in the
    original video; ``track_ids`` (m,) int64, ``labels`` and ``classes`` (m,) text. Returns notes for people."""
    out.mkdir(parents=True, exist_ok=True)
    for video in dataset.videos:
        shape = (len(video.frames), len(video.tracks), video.height, video.width)
        empty = bytes(video.height * video.width)
        with zipfile.ZipFile(out / f"{video.name}.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=3) as archive:
            _add(archive, "frames", np.array(video.frames, np.int64))
            _add(archive, "track_ids", np.array([t.id for t in video.tracks], np.int64))
            _add(archive, "labels", np.array([t.label for t in video.tracks], str))
            _add(archive, "classes", np.array([t.category for t in video.tracks], str))
            with archive.open("masks.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array_header_1_0(
                    member, {"descr": "|b1", "fortran_order": False, "shape": shape}
                )  # fmt: skip
                for masked in walk(video, out / PICTURES / video.name):
                    for track in video.tracks:
                        mask = masked.masks.get(track.id)
                        member.write(empty if mask is None else np.ascontiguousarray(mask).tobytes())
    return []


def _add(archive: zipfile.ZipFile, name: str, array: np.ndarray) -> None:
    with archive.open(f"{name}.npy", "w") as member:
        np.lib.format.write_array(member, array, allow_pickle=False)


def read(root: Path) -> Dataset:
    """Raises BadInput."""
    known = manifest.load(root)
    videos = [_video(path, root, known) for path in sorted(root.glob("*.npz"))]
    every = {t.id: t for v in videos for t in v.tracks}
    return checked(Dataset(tuple(videos), known.tracks if known else tuple(every.values()), str(root)), root)


def _video(path: Path, root: Path, known: manifest.Manifest | None) -> Video:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            frames = [int(f) for f in arrays["frames"]]
            named = zip(arrays["track_ids"], arrays["labels"], arrays["classes"], strict=True)
            tracks = tuple(Track(int(i), str(label), str(category)) for i, label, category in named)
        with zipfile.ZipFile(path) as archive, archive.open("masks.npy") as member:
            shape = _shape(member)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as e:
        raise BadInput(f"{path} is not an archive as tam export writes it: {e}") from e
    if shape[:2] != (len(frames), len(tracks)):
        raise BadInput(f"{path}: masks of shape {shape} do not go with {len(frames)} frames and {len(tracks)} tracks")
    height, width = shape[2:]

    def read_frames() -> Iterator[MaskedFrame]:
        with zipfile.ZipFile(path) as archive, archive.open("masks.npy") as member:
            _shape(member)
            for frame in frames:
                planes = np.frombuffer(member.read(len(tracks) * height * width), bool).reshape(-1, height, width)
                yield MaskedFrame(frame, {t.id: m for t, m in zip(tracks, planes, strict=True) if m.any()})

    pictures = folder_pictures(root / PICTURES / path.stem, frames)
    return Video(path.stem, height, width, frames, tracks, read_frames, pictures, fps_of(known, path.stem))


def _shape(member: Any) -> tuple[int, ...]:
    """Reads the header of an array. Raises ValueError."""
    np.lib.format.read_magic(member)
    shape, fortran, kind = np.lib.format.read_array_header_1_0(member)
    if fortran or kind != np.bool_ or len(shape) != 4:
        raise ValueError("masks must be (frames, tracks, height, width) bool")
    return tuple(shape)
