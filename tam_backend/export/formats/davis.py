"""DAVIS 2017: indexed PNGs with its palette, and lists of sequences."""

from __future__ import annotations

from pathlib import Path

from tam_backend.export import manifest
from tam_backend.export.dataset import Dataset
from tam_backend.export.formats.common import Overlaps, checked, read_id_pngs, write_id_pngs

#: Folders of one resolution; the evaluation program of DAVIS reads the first.
_RESOLUTIONS = ("480p", "Full-Resolution")


def write(dataset: Dataset, out: Path) -> list[str]:
    """Returns notes for people."""
    resolution = _RESOLUTIONS[any(v.height != 480 for v in dataset.videos)]
    overlaps = Overlaps()
    for video in dataset.videos:
        write_id_pngs(
            video, out / "Annotations" / resolution / video.name, out / "JPEGImages" / resolution / video.name, overlaps
        )
    lists = out / "ImageSets" / "2017"
    lists.mkdir(parents=True)
    names = "".join(f"{v.name}\n" for v in dataset.videos)
    for split in ("train", "val"):
        (lists / f"{split}.txt").write_text(names)
    return overlaps.notes()


def read(root: Path) -> Dataset:
    """Raises BadInput."""
    known = manifest.load(root)
    tracks = known.tracks if known else None
    resolution = next((r for r in _RESOLUTIONS if (root / "Annotations" / r).is_dir()), "")
    folders = [p for p in sorted((root / "Annotations" / resolution).glob("*")) if p.is_dir()]
    videos = [
        read_id_pngs(folder, root / "JPEGImages" / resolution / folder.name, folder.name, tracks, known)
        for folder in folders
    ]
    every = {t.id: t for v in videos for t in v.tracks}
    return checked(Dataset(tuple(videos), tracks or tuple(every.values()), str(root)), root)
