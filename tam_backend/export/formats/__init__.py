"""The formats by name. Each is a module with a function that writes a data set into an empty folder, and one that reads
such a folder, or a data set of that format from elsewhere."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tam_backend.errors import BadInput
from tam_backend.export import manifest
from tam_backend.export.dataset import Dataset


@dataclass(frozen=True, slots=True)
class Format:
    """summary: for people. needs_pictures: cannot be written without the video's frames. reader: "" if there is none:
    the format does not hold masks."""

    summary: str
    module: str
    writer: str = "write"
    reader: str = "read"
    needs_pictures: bool = False

    def write(self, dataset: Dataset, out: Path) -> list[str]:
        """Write into an empty folder; returns notes for people. Raises BadInput for what the format cannot hold."""
        writer: Callable[[Dataset, Path], list[str]] = getattr(self._load(), self.writer)
        return writer(dataset, out)

    def read(self, root: Path) -> Dataset:
        """Raises BadInput."""
        reader: Callable[[Path], Dataset] = getattr(self._load(), self.reader)
        return reader(root)

    def _load(self) -> object:
        return importlib.import_module(f"tam_backend.export.formats.{self.module}")


FORMATS = {
    "davis": Format("DAVIS 2017: indexed PNGs, pixel value = track", "davis"),
    "youtube-vos": Format("YouTube-VOS: indexed PNGs and meta.json", "youtube_vos"),
    "coco": Format("COCO instances: one image a frame, masks as run lengths", "coco"),
    "coco-video": Format("YouTube-VIS, COCO for videos: one annotation a track", "coco_video"),
    "mots": Format("KITTI MOTS: 16-bit PNGs, and the same as text", "mots"),
    "yolo-seg": Format("YOLO segmentation: polygons", "yolo", "write_polygons", "read_polygons"),
    "yolo-box": Format("YOLO detection: boxes around the masks", "yolo", "write_boxes", "read_boxes"),
    "png": Format("a black and white PNG for each object and frame", "png"),
    "npz": Format("NumPy: an array (frames, tracks, height, width) for each video", "npz"),
    "video-rectangle": Format("boxes with keyframes for Label Studio's <Video>", "video_rectangle", reader=""),
    "overlay": Format("a video with the masks drawn in", "overlay", reader="", needs_pictures=True),
}


def find_format(name: str) -> Format:
    """Raises BadInput that lists the formats."""
    if name not in FORMATS:
        raise BadInput(f"there is no format {name!r}; the formats are {', '.join(FORMATS)}")
    return FORMATS[name]


def read_export(root: Path) -> Dataset | None:
    """A data set that ``tam export`` wrote; None if the folder is none. Raises BadInput if it holds no masks."""
    known = manifest.load(root)
    if known is None:
        return None
    found = FORMATS.get(known.format)
    if found is None or not found.reader:
        raise BadInput(f"{root} was exported as {known.format}, which holds no masks to read")
    return found.read(root)
