"""The videos of ``tam import``: what was named on the command line becomes videos, each with a lasting name."""

from __future__ import annotations

import glob
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tam_backend.errors import BadInput
from tam_backend.labelstudio.media import CLOUD_SCHEMES
from tam_backend.video.images import images_in

VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi"})
#: Those that Label Studio takes as uploads.
UPLOADABLE = frozenset({".mp4", ".webm"})
_ADDRESSES = ("http", "https", *CLOUD_SCHEMES)
_STUDIO_PATHS = ("/data/local-files/", "/data/upload/")


@dataclass(frozen=True, slots=True)
class VideoSource:
    """A video to import. path: of a file or a folder of pictures on this machine; None: ``address`` says where it is.

    source: names its content, in every call and on every machine: how a video is recognised that is there already.
    stem: for names of files, letters that every program takes.
    """

    shown: str
    source: str
    stem: str
    path: Path | None = None
    address: str = ""

    @property
    def uploadable(self) -> bool:
        """Whether Label Studio takes the file as it is."""
        return self.path is not None and self.path.is_file() and self.path.suffix.lower() in UPLOADABLE


def find_sources(arguments: Iterable[str]) -> list[VideoSource]:
    """The videos that files, folders, patterns and addresses name, each once. Raises BadInput."""
    found: dict[str, VideoSource] = {}
    for text in arguments:
        for source in _sources(text):
            found.setdefault(source.source, source)
    return list(found.values())


def _sources(text: str) -> list[VideoSource]:
    scheme = urlsplit(text).scheme.lower() if "://" in text else ""
    if scheme in _ADDRESSES or text.startswith(_STUDIO_PATHS):
        name = re.split(r"[/=]", text.rstrip("/").partition("#")[0])[-1]
        return [VideoSource(text, text, _safe(name.rpartition(".")[0] or name), address=text)]
    if scheme:
        raise BadInput(f"{text}: a video is a file, or an address with {', '.join(f'{s}://' for s in _ADDRESSES)}")
    path = Path(text)
    if path.is_dir():
        videos = sorted(p for p in path.iterdir() if p.suffix.lower() in VIDEO_SUFFIXES and p.is_file())
        if videos:
            return [_of_file(p) for p in videos]
        if images_in(path):
            return [_of_folder(path)]
        raise BadInput(f"the folder {path} has neither videos nor pictures")
    if path.is_file():
        return [_of_file(path)]
    matches = sorted(Path(p) for p in glob.glob(text, recursive=True))  # noqa: PTH207 (absolute patterns as well)
    videos = [p for p in matches if p.is_file() and p.suffix.lower() in VIDEO_SUFFIXES]
    if not videos:
        raise BadInput(f"there is no video {text}")
    return [_of_file(p) for p in videos]


def _of_file(path: Path) -> VideoSource:
    digest = hashlib.blake2b(digest_size=6)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return VideoSource(path.name, f"{path.name}#{digest.hexdigest()}", f"{_safe(path.stem)}-{digest.hexdigest()}", path)


def _of_folder(path: Path) -> VideoSource:
    digest = hashlib.blake2b(digest_size=6)
    for image in images_in(path):
        digest.update(f"{image.name}/{image.stat().st_size};".encode())
        digest.update(image.read_bytes())
    name = path.resolve().name
    return VideoSource(f"{name}/", f"{name}#{digest.hexdigest()}", f"{_safe(name)}-{digest.hexdigest()}", path)


def _safe(name: str) -> str:
    """Letters that survive Label Studio's own renaming of uploads."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_-")[:60] or "video"
