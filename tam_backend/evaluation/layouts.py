"""Where the frames and the masks of a data set are: DAVIS, YouTube-VOS and its relatives, and plain folders."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tam_backend.errors import BadInput

#: Folders of one resolution inside ``JPEGImages``, as DAVIS has them; the first one that is there is used.
_RESOLUTIONS = ("480p", "Full-Resolution", "1080p")
_PLAIN_FRAMES = ("frames", "images", "JPEGImages")
_PLAIN_MASKS = ("masks", "annotations", "Annotations")
_PICTURES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})

_EXPECTED = """\
expected one of:
  DAVIS: JPEGImages/480p/SEQUENCE/*.jpg and Annotations/480p/SEQUENCE/*.png
  YouTube-VOS, MOSE, LVOS: JPEGImages/SEQUENCE/*.jpg and Annotations/SEQUENCE/*.png
  one sequence: frames/*.jpg and masks/*.png, or *.jpg beside *.png of the same names
  many sequences: SEQUENCE/frames/*.jpg and SEQUENCE/masks/*.png"""


@dataclass(frozen=True, slots=True)
class SequencePaths:
    """One sequence as it was found; nothing in it has been read yet."""

    name: str
    frames: Path
    masks: Path


@dataclass(frozen=True, slots=True)
class Layout:
    """kind: davis, youtube-vos or plain. split: name of the list that chose the sequences, or empty."""

    kind: str
    root: Path
    split: str
    sequences: tuple[SequencePaths, ...]


def find_sequences(root: Path, imset: Path | None = None, limit: int | None = None) -> Layout:
    """Recognise the layout of a data set and list its sequences, by name, or in the order of ``imset``.

    imset: a text file with a sequence in each line, by its name or, as in DAVIS 2016, by the path of each of its
    frames; a path from here or inside the data set. limit: take the first so many. Raises BadInput if the layout is
    none of the known ones, or for a list that does not fit.
    """
    if not root.is_dir():
        raise BadInput(f"there is no folder {root}")
    kind, found = _recognise(root)
    names = None if imset is None else read_imset(_locate(root, imset))
    if names is not None:
        # A sequence that is listed and not there is no reason to stop: it is reported, like any other broken one.
        frames, masks = found.frames, found.masks
        paths = [found.by_name.get(n) or SequencePaths(n, frames / n, masks / n) for n in names]
        if not any(n in found.by_name for n in names):
            raise BadInput(f"{imset} lists none of the sequences of {root}, such as {next(iter(found.by_name))}")
    else:
        paths = list(found.by_name.values())
    return Layout(kind, root, imset.stem if imset is not None else "", tuple(paths[:limit]))


def read_imset(path: Path) -> list[str]:
    """The names of the sequences in a list, each once. Raises BadInput if it cannot be read or is empty."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise BadInput(f"the list of sequences {path} cannot be read: {e}") from e
    names: dict[str, None] = {}
    for line in lines:
        first = line.split()[0] if line.strip() else ""
        if first:
            names[Path(first).parent.name if "/" in first else first] = None
    for name in names:
        if not re.fullmatch(r"[\w.+ -]*\w[\w.+ -]*", name):
            raise BadInput(f"the list of sequences {path} has a line that names no sequence: {name!r}")
    if not names:
        raise BadInput(f"the list of sequences {path} is empty")
    return list(names)


@dataclass(frozen=True, slots=True)
class _Found:
    frames: Path
    masks: Path
    by_name: dict[str, SequencePaths]


def _recognise(root: Path) -> tuple[str, _Found]:
    images, annotations = root / "JPEGImages", root / "Annotations"
    if images.is_dir() and annotations.is_dir():
        for resolution in _RESOLUTIONS:
            if (images / resolution).is_dir() and (annotations / resolution).is_dir():
                return "davis", _pairs(root, images / resolution, annotations / resolution)
        if any(p.is_dir() for p in images.iterdir()):
            return "youtube-vos", _pairs(root, images, annotations)
    single = _plain(root)
    if single is not None:
        return "plain", _Found(single.frames, single.masks, {single.name: single})
    several = [s for p in sorted(root.iterdir()) if p.is_dir() and (s := _plain(p)) is not None]
    if several:
        return "plain", _Found(root, root, {s.name: s for s in several})
    raise BadInput(f"{root} is not laid out like a data set; {_EXPECTED}")


def _pairs(root: Path, frames: Path, masks: Path) -> _Found:
    """Sequences that have frames or masks: one that has just one of them is broken, and is not passed over."""
    names = sorted({p.name for folder in (frames, masks) for p in folder.iterdir() if p.is_dir()})
    if not names:
        raise BadInput(f"{root} has no sequences: {frames} and {masks} have no folders in them")
    return _Found(frames, masks, {n: SequencePaths(n, frames / n, masks / n) for n in names})


def _plain(folder: Path) -> SequencePaths | None:
    name = folder.resolve().name
    for frames in _PLAIN_FRAMES:
        for masks in _PLAIN_MASKS:
            if _has_pictures(folder / frames) and (folder / masks).is_dir():
                return SequencePaths(name, folder / frames, folder / masks)
    stems = {p.stem for p in folder.glob("*.png")} & {p.stem for p in folder.iterdir() if _is_jpeg(p)}
    return SequencePaths(name, folder, folder) if stems else None


def _has_pictures(folder: Path) -> bool:
    return folder.is_dir() and any(p.suffix.lower() in _PICTURES for p in folder.iterdir())


def _is_jpeg(path: Path) -> bool:
    return path.suffix.lower() in (".jpg", ".jpeg")


def _locate(root: Path, imset: Path) -> Path:
    for path in (imset, root / imset, root / "ImageSets" / imset):
        if path.is_file():
            return path
    raise BadInput(f"there is no list of sequences {imset}, neither here nor in {root}")
