"""What several formats share."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from tam_backend.drawing import encode_ids
from tam_backend.errors import BadInput, MediaError
from tam_backend.export.dataset import Dataset, MaskedFrame, Pictures, Track, Video, flatten, split_ids
from tam_backend.export.manifest import Manifest
from tam_backend.prompts import Mask
from tam_backend.tracking.objects import IdMap
from tam_backend.video import images_in, open_images
from tam_backend.video.jpeg import encode_jpeg

JPEG_QUALITY = 95
#: Value of pixels that belong to nobody, in the formats that have one.
VOID = 255


def stem(frame: int) -> str:
    """The name of a frame's files: its number in the original video."""
    return f"{frame:05d}"


def walk(video: Video, folder: Path | None = None, name: Callable[[int], str] = stem) -> Iterator[MaskedFrame]:
    """All frames of a video; on the way their pictures are written. folder: for the pictures; None: none are wanted.
    name: frame -> name of its file without the ending."""
    with contextlib.ExitStack() as stack:
        pictures: Pictures | None = None
        if folder is not None and video.pictures is not None:
            pictures = stack.enter_context(video.pictures())
            folder.mkdir(parents=True, exist_ok=True)
        for masked in video.read():
            if pictures is not None and folder is not None:
                picture = encode_jpeg(pictures(masked.frame), quality=JPEG_QUALITY)
                (folder / f"{name(masked.frame)}.jpg").write_bytes(picture)
            yield masked


class Overlaps:
    """Counts the frames on which masks had to give way, for formats with one id for each pixel."""

    def __init__(self) -> None:
        self._frames: dict[str, int] = {}

    def ids(self, video: Video, masked: MaskedFrame) -> IdMap:
        """HxW uint8."""
        ids, claimed = flatten(masked, video.height, video.width)
        if claimed:
            self._frames[video.name] = self._frames.get(video.name, 0) + 1
        return ids

    def notes(self) -> list[str]:
        return [
            f"{name}: masks overlap on {count} frame(s); this format has one object for each pixel, so what a person "
            "drew goes first, then the label that is listed first. Formats that keep overlaps: coco, coco-video, "
            "yolo-seg, png, npz"
            for name, count in self._frames.items()
        ]


def write_id_pngs(
    video: Video, masks: Path, pictures: Path, overlaps: Overlaps, seen: Callable[[MaskedFrame], None] | None = None
) -> None:
    """An indexed PNG with the DAVIS palette for each frame, all zeros where no object is. seen: told of each frame.

    Raises BadInput for more tracks than fit.
    """
    if any(t.id == VOID for t in video.tracks):
        raise BadInput(f"there are {len(video.tracks)} labels; this format has room for {VOID - 1}")
    masks.mkdir(parents=True, exist_ok=True)
    for masked in walk(video, pictures):
        (masks / f"{stem(masked.frame)}.png").write_bytes(encode_ids(overlaps.ids(video, masked)))
        if seen is not None:
            seen(masked)


def read_id_pngs(
    folder: Path, pictures: Path, name: str, tracks: tuple[Track, ...] | None, known: Manifest | None
) -> Video:
    """A folder of PNGs with one id for each pixel. tracks: None to look for the ids that occur."""
    files = {number(p.stem, p.name): p for p in sorted(folder.glob("*.png"))}
    if not files:
        raise BadInput(f"{folder} has no masks (*.png)")
    frames = sorted(files)
    height, width = open_ids(files[frames[0]]).shape
    if tracks is None:
        values = sorted({i for p in files.values() for i in split_ids(open_ids(p), (0, VOID))})
        tracks = tuple(Track(i, f"Object {i}", "Object") for i in values)

    def read() -> Iterator[MaskedFrame]:
        for frame in frames:
            yield MaskedFrame(frame, split_ids(open_ids(files[frame]), (0, VOID)))

    return Video(
        name, height, width, frames, tracks, read, folder_pictures(pictures, frames), fps_of(known, name)
    )  # fmt: skip


def open_ids(path: Path) -> IdMap:
    """HxW uint8 of an indexed or grey PNG. Raises BadInput."""
    try:
        with Image.open(path) as image:
            if image.mode in ("P", "L"):
                return np.array(image)
            raise BadInput(f"{path} must be an indexed or grey PNG, not one of mode {image.mode}")
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as e:
        raise BadInput(f"{path} cannot be read: {e}") from e


def open_mask(path: Path) -> Mask:
    """HxW bool of a black and white PNG. Raises BadInput."""
    try:
        with Image.open(path) as image:
            return np.array(image.convert("L")) >= 128
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as e:
        raise BadInput(f"{path} cannot be read: {e}") from e


def folder_pictures(
    folder: Path, frames: Collection[int], name: Callable[[int], str] = stem
) -> Callable[[], contextlib.AbstractContextManager[Pictures]] | None:
    """The pictures of a folder, if all are there. name: frame -> name of the file without ending (default: its
    number)."""
    if not folder.is_dir():
        return None
    files = {p.stem: p for p in images_in(folder)}
    wanted = {frame: files.get(name(frame)) for frame in frames}
    found = {frame: path for frame, path in wanted.items() if path is not None}
    if len(found) < len(wanted):
        return None

    @contextlib.contextmanager
    def opened() -> Iterator[Pictures]:
        def picture(frame: int) -> np.ndarray:
            with open_images([found[frame]]) as image:
                return image[0]

        yield picture

    return opened


def fps_of(known: Manifest | None, name: str) -> float:
    return known.videos[name].fps if known is not None and name in known.videos else 24.0


def number(text: str, where: str) -> int:
    """The frame number that a name ends with. Raises BadInput."""
    match = re.search(r"(\d+)$", text)
    if match is None:
        raise BadInput(f"{where}: the name must end with the number of its frame")
    return int(match[1])


def read_json(path: Path) -> Any:
    """Raises BadInput if the file is missing or not JSON."""
    try:
        return json.loads(path.read_bytes())
    except OSError as e:
        raise BadInput(f"{path} cannot be read: {e.strerror}") from e
    except ValueError as e:
        raise BadInput(f"{path} is not JSON: {e}") from e


def size_of(known: Manifest | None, name: str, pictures: Path, pattern: str) -> tuple[int, int]:
    """(height, width) of a video whose format does not say it: as noted, else that of a picture. Raises BadInput."""
    if known is not None and name in known.videos:
        return known.videos[name].height, known.videos[name].width
    picture = next(iter(sorted(pictures.glob(pattern))), None)
    if picture is None:
        raise BadInput(f"{pictures} has no picture {pattern}, which says how large the masks are")
    try:
        with open_images([picture]) as image:
            return image.height, image.width
    except MediaError as e:
        raise BadInput(str(e)) from e


def tracks_by_category(found: Mapping[int, str]) -> tuple[Track, ...]:
    """Tracks from id -> class, for data sets that do not name them: ``Person 1``, ``Person 2``."""
    counts: dict[str, int] = {}
    tracks = []
    for track, category in sorted(found.items()):
        counts[category] = counts.get(category, 0) + 1
        tracks.append(Track(track, f"{category} {counts[category]}", category))
    return tuple(tracks)


def checked(dataset: Dataset, root: Path) -> Dataset:
    """Raises BadInput if it has no videos."""
    if not dataset.videos:
        raise BadInput(f"{root} has no videos")
    return dataset
