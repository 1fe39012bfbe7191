"""YouTube-VOS: indexed PNGs, and ``meta.json`` with the class of each object and the frames that show it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tam_backend.export import manifest
from tam_backend.export.dataset import Dataset, MaskedFrame, Track, Video
from tam_backend.export.formats.common import Overlaps, checked, read_id_pngs, read_json, stem, write_id_pngs

SPLIT = "train"


def write(dataset: Dataset, out: Path) -> list[str]:
    """Returns notes for people."""
    root, overlaps = out / SPLIT, Overlaps()
    meta: dict[str, Any] = {}
    for video in dataset.videos:
        shown: dict[int, list[str]] = {}

        def seen(masked: MaskedFrame, shown: dict[int, list[str]] = shown) -> None:
            for track in masked.masks:
                shown.setdefault(track, []).append(stem(masked.frame))

        write_id_pngs(
            video, root / "Annotations" / video.name, root / "JPEGImages" / video.name, overlaps, seen
        )  # fmt: skip
        classes = {t.id: t.category for t in video.tracks}
        objects = {str(i): {"category": classes[i], "frames": frames} for i, frames in sorted(shown.items())}
        meta[video.name] = {"objects": objects}
    root.mkdir(parents=True, exist_ok=True)
    (root / "meta.json").write_text(json.dumps({"videos": meta}, ensure_ascii=False, indent=1))
    return overlaps.notes()


def read(root: Path) -> Dataset:
    """Raises BadInput."""
    known = manifest.load(root)
    base = root / SPLIT if (root / SPLIT).is_dir() else root
    meta = read_json(base / "meta.json").get("videos", {})
    videos: list[Video] = []
    for folder in sorted(p for p in (base / "Annotations").glob("*") if p.is_dir()):
        tracks = known.tracks if known else None
        if tracks is None and folder.name in meta:
            objects = meta[folder.name].get("objects", {})
            tracks = tuple(Track(int(i), f"{o['category']} {i}", o["category"]) for i, o in objects.items())
        videos.append(read_id_pngs(folder, base / "JPEGImages" / folder.name, folder.name, tracks, known))
    every = {t.id: t for v in videos for t in v.tracks}
    return checked(Dataset(tuple(videos), known.tracks if known else tuple(every.values()), str(root)), root)
