"""Folders that several machines reach: on a shared disk, or in a bucket. All through fsspec."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path, PurePosixPath

import fsspec
from fsspec.implementations.local import LocalFileSystem

from tam_backend.errors import BadInput, MediaError
from tam_backend.tracking.filestore import write_atomically


class Place:
    """A folder by its path or its address (``s3://bucket/folder``, ``gs://``, ...).

    A file appears whole or not at all. Raises BadInput for an address that cannot be used here, OSError where the disk
    or the bucket refuses.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/") or url
        try:
            self._fs, self._root = fsspec.url_to_fs(self.url, use_listings_cache=False)
        except ImportError as e:  # fsspec says which package to install
            raise BadInput(f"{url}: {e}") from e
        except ValueError as e:
            raise BadInput(f"{url} is no address of a folder: {e}") from e

    @property
    def folder(self) -> Path | None:
        """On a disk: where. None: it is in a bucket."""
        return Path(self._root) if isinstance(self._fs, LocalFileSystem) else None

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def read(self, name: str) -> bytes | None:
        """The content of a file; None if there is none."""
        try:
            return bytes(self._fs.cat_file(self._path(name)))
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        if self.folder is None:
            self._fs.pipe_file(self._path(name), content)
            return
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)

    def names(self, folder: str) -> list[str]:
        """What is directly in a folder of it, sorted, by the names in this place. folder: "" for the place itself."""
        try:
            found = self._fs.ls(self._path(folder).rstrip("/"), detail=False)
        except FileNotFoundError:
            return []
        prefix = f"{folder}/" if folder else ""
        return sorted(prefix + PurePosixPath(str(path)).name for path in found)

    def remove(self, folder: str) -> None:
        """A folder with all that is in it, if it is there."""
        if self._fs.exists(self._path(folder)):
            self._fs.rm(self._path(folder), recursive=True)

    def put_folder(self, name: str, source: Path) -> None:
        """Have the files of ``source``, which may be moved away, as ``name``: on a disk a folder, in a bucket one zip.

        What was there goes.
        """
        if self.folder is None:
            packed = source.with_name(f"{source.name}.zip")
            pack(source, packed)
            self._fs.put_file(str(packed), self._path(f"{name}.zip"))
            packed.unlink()
            return
        target = self.folder / name
        partial = target.with_name(f".{target.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, partial)
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)


def pack(folder: Path, target: Path) -> None:
    """A folder as a zip, not deflated: what is in it is packed already."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(folder).as_posix())


def local_copy(url: str, folder: Path) -> Path:
    """A file, or a folder of pictures, as this machine's programs can read it: where it is, or a copy in ``folder``.

    Raises MediaError if there is none, BadInput for an address that cannot be used here, OSError where it may be worth
    trying again.
    """
    try:
        fs, path = fsspec.url_to_fs(url)
    except ImportError as e:
        raise BadInput(f"{url}: {e}") from e
    except ValueError as e:
        raise BadInput(f"{url} is no address of a file: {e}") from e
    if isinstance(fs, LocalFileSystem):
        if not Path(path).exists():
            raise MediaError(f"there is no file or folder {path}")
        return Path(path)
    target = folder / (PurePosixPath(path).name or "video")
    try:
        fs.get(path, str(target), recursive=fs.isdir(path))
    except FileNotFoundError as e:
        raise MediaError(f"there is no file {url}") from e
    return target
