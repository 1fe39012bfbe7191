"""The folder that ``tam track`` wrote, as a data set of one video."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import defusedxml.ElementTree as SafeElementTree

from tam_backend.drawing import PALETTE
from tam_backend.errors import BadInput, MediaError
from tam_backend.export.dataset import Dataset, MaskedFrame, Pictures, Track, Video, split_ids
from tam_backend.export.formats.common import folder_pictures, open_ids
from tam_backend.labelstudio.instances import Vocabulary
from tam_backend.video import open_source

_FRAME_FILE = re.compile(r"\d{5,}\.png", re.ASCII)
RUN, PREDICTIONS, CONFIG, FRAMES = Path(".tam") / "run.json", "predictions.json", "label_config.xml", "frames"


def is_tracked(folder: Path) -> bool:
    """Whether this is such a folder."""
    return (folder / RUN).is_file()


def read_tracked(folder: Path, video: Path | None = None) -> Dataset:
    """video: the file or folder that was tracked, for its pictures; without it those in ``frames`` are taken, if
    ``tam track --pictures`` wrote them. Raises BadInput."""
    try:
        run = json.loads((folder / RUN).read_bytes())
        name, objects = str(run["name"]), sorted(int(i) for i in run["objects"])
        decided = {int(i): {int(f) for f in frames} for i, frames in run["objects"].items()}
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise BadInput(f"{folder} is not a folder of tam track: {e}") from e
    files = {int(p.stem): p for p in sorted(folder.glob("*.png")) if _FRAME_FILE.fullmatch(p.name)}
    if not files:
        raise BadInput(f"{folder} has no masks; run tam track again")
    frames = sorted(files)
    height, width = open_ids(files[frames[0]]).shape
    labels = _labels(folder, objects)
    known = {i.label: i.category for i in Vocabulary(labels.values())}
    tracks = tuple(Track(i, label, known[label]) for i, label in labels.items())
    of_frame = _qualities(folder, run["frames"][0], {t.label: t.id for t in tracks})

    def read() -> Iterator[MaskedFrame]:
        for frame in frames:
            by_hand = frozenset(i for i, on in decided.items() if frame in on)
            yield MaskedFrame(frame, split_ids(open_ids(files[frame])), by_hand, of_frame.get(frame, {}))

    stem = re.sub(r"[^\w.-]+", "_", Path(name).stem).strip("._") or "video"
    pictures, fps, length = folder_pictures(folder / FRAMES, frames), 24.0, 0
    if video is not None:
        fps, length = _check_video(video, str(run["video"]), height, width, frames[-1])

        @contextlib.contextmanager
        def pictures() -> Iterator[Pictures]:
            with contextlib.closing(open_source(video)) as reader:
                yield reader.__getitem__

    found = Video(stem, height, width, frames, tracks, read, pictures, fps, length)
    return Dataset((found,), tracks, f"{name}, tracked by tam track")


def _check_video(video: Path, key: str, height: int, width: int, last: int) -> tuple[float, int]:
    """(frames a second, number of frames) of a video, after a check that it is the one that was tracked.

    Raises BadInput.
    """
    if not video.exists():
        raise BadInput(f"--video {video}: there is no such file or folder")
    try:
        with contextlib.closing(open_source(video)) as reader:
            if reader.key != key and ((reader.height, reader.width) != (height, width) or len(reader) <= last):
                raise BadInput(f"--video {video} is not the video that was tracked")
            return reader.fps, len(reader)
    except MediaError as e:
        raise BadInput(str(e)) from e


def _labels(folder: Path, objects: list[int]) -> dict[int, str]:
    """Object -> label. The configuration that was written beside the masks has each object's own colour."""
    of_colour = {"#{:02X}{:02X}{:02X}".format(*PALETTE[i].tolist()): i for i in objects}
    labels = {i: f"Object {i}" for i in objects}
    with contextlib.suppress(OSError, SafeElementTree.ParseError):
        for label in SafeElementTree.fromstring((folder / CONFIG).read_text()).iter("Label"):
            object_id = of_colour.get(str(label.get("background")))
            if object_id is not None and label.get("value"):
                labels[object_id] = str(label.get("value"))
    return labels


def _qualities(folder: Path, first: int, ids: dict[str, int]) -> dict[int, dict[int, float]]:
    """Frame -> track -> quality, from the predictions, of which each region has a line of its own."""
    found: dict[int, dict[int, float]] = {}
    with contextlib.suppress(OSError), (folder / PREDICTIONS).open(encoding="utf-8") as file:
        for line in file:
            if not line.startswith('{"id"'):
                continue
            with contextlib.suppress(ValueError, KeyError, TypeError):
                region = json.loads(line.rstrip().rstrip(","))
                label = region["meta"]["object"]
                found.setdefault(first + region["item_index"], {})[ids[label]] = float(region["meta"]["quality"])
    return found
