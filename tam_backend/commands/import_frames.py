"""Frames of ``tam import`` as pictures: uploaded to Label Studio, or put where it serves local files."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from tam_backend.commands.import_sources import VideoSource
from tam_backend.errors import BadInput, LabelStudioError
from tam_backend.labelstudio.projects import ProjectClient, Vanished
from tam_backend.tracking.filestore import write_atomically
from tam_backend.video.base import Reader
from tam_backend.video.jpeg import encode_jpeg

#: Files of one upload request.
_BATCH = 25
#: The folder below the document root that ``LocalFiles`` writes to. Label Studio refuses the root itself as a storage.
_FOLDER = "tam"

Progress = Callable[[int], None]


class FrameStore(Protocol):
    """Where pictures go. What is there already is not written again."""

    def video(self, source: VideoSource) -> str:
        """Address of the video itself; its bare name if Label Studio cannot have it."""

    def frames(self, source: VideoSource, reader: Reader, numbers: Sequence[int], step: Progress) -> dict[int, str]:
        """Frame number -> address of its picture. step: called with how many more are there."""


class Uploads:
    """Pictures and videos among the uploads of a project."""

    def __init__(self, client: ProjectClient, project: int, quality: int) -> None:
        self._client = client
        self._project = project
        self._quality = quality
        self._known = {u.name: u.url for u in client.uploads(project)}

    def video(self, source: VideoSource) -> str:
        if not source.uploadable or source.path is None:
            return source.shown
        name = _file_name(source)
        if name not in self._known:
            self._upload([(name, source.path.read_bytes())])
        return self._known[name]

    def frames(self, source: VideoSource, reader: Reader, numbers: Sequence[int], step: Progress) -> dict[int, str]:
        names = {n: f"{source.stem}-q{self._quality}-{n:06d}.jpg" for n in numbers}
        missing = [n for n in numbers if names[n] not in self._known]
        step(len(numbers) - len(missing))
        for batch in _batches(missing):
            self._upload([(names[n], encode_jpeg(reader[n], self._quality)) for n in batch])
            step(len(batch))
        return {n: self._known[name] for n, name in names.items()}

    def _upload(self, files: list[tuple[str, bytes]]) -> None:
        with contextlib.suppress(Vanished):  # it may have arrived: the list says so, once Label Studio is back
            self._client.upload(self._project, files)
        self._known = {u.name: u.url for u in self._client.uploads(self._project)}
        missing = [file for file in files if file[0] not in self._known]
        if not missing:
            return
        self._client.upload(self._project, missing)
        self._known = {u.name: u.url for u in self._client.uploads(self._project)}
        if lost := [name for name, _ in missing if name not in self._known]:
            raise LabelStudioError(f"Label Studio took the upload of {lost[0]}, but does not list it under that name")


class LocalFiles:
    """Pictures and videos below the folder that Label Studio serves at /data/local-files/.

    root: LOCAL_FILES_DOCUMENT_ROOT as this machine sees it. root_there: as Label Studio sees it.
    """

    def __init__(self, client: ProjectClient, project: int, quality: int, root: Path, root_there: str) -> None:
        self._quality = quality
        self._root = root
        if not root.is_dir():
            raise BadInput(f"--local-root {root}: there is no such folder")
        folder = root / _FOLDER
        folder.mkdir(exist_ok=True)
        there = f"{root_there.rstrip('/')}/{_FOLDER}"
        if not any(str(s.get("path", "")).rstrip("/") == there for s in client.local_storages(project)):
            client.add_local_storage(project, there, "tam import")

    def video(self, source: VideoSource) -> str:
        if source.path is None or source.path.is_dir():
            return source.shown
        target = self._folder(source) / f"video{source.path.suffix.lower()}"
        if not target.exists():
            part = target.with_suffix(".part")
            part.unlink(missing_ok=True)
            try:
                os.link(source.path.resolve(), part)
            except OSError:  # another disk
                shutil.copyfile(source.path, part)
            part.replace(target)
        return self._address(target)

    def frames(self, source: VideoSource, reader: Reader, numbers: Sequence[int], step: Progress) -> dict[int, str]:
        folder = self._folder(source)
        found = {}
        for n in numbers:
            path = folder / f"q{self._quality}-{n:06d}.jpg"
            if not path.exists():
                write_atomically(path, encode_jpeg(reader[n], self._quality))
            found[n] = self._address(path)
            step(1)
        return found

    def _folder(self, source: VideoSource) -> Path:
        folder = self._root / _FOLDER / source.stem
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _address(self, path: Path) -> str:
        return f"/data/local-files/?d={quote(path.relative_to(self._root).as_posix())}"


def _file_name(source: VideoSource) -> str:
    assert source.path is not None
    return f"{source.stem}{source.path.suffix.lower()}"


def _batches(numbers: Sequence[int]) -> Iterator[Sequence[int]]:
    for at in range(0, len(numbers), _BATCH):
        yield numbers[at : at + _BATCH]
