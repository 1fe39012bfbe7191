"""``file://`` addresses: files of this machine, only below the directories that the settings name."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tam_backend.errors import MediaError

_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")


def is_local(url: str) -> bool:
    return url[:5].lower() == "file:"


class LocalFiles:
    """Finds files below ``roots`` and nowhere else. Without roots there are none.

    Where a path leads is decided by the file system: links are followed first, and only then is the place looked at.
    Every other place is refused in the same words, so that nobody learns what is there.
    """

    def __init__(self, roots: Iterable[Path] = (), max_bytes: int = 0, max_image_bytes: int = 0) -> None:
        self._roots = tuple(Path(os.path.realpath(root)) for root in roots)
        self._limits = {False: (max_bytes, "TAM_MAX_VIDEO_MB"), True: (max_image_bytes, "TAM_MAX_IMAGE_MB")}

    def find(self, url: str, *, image: bool = False) -> Path:
        """The file at a ``file:///...`` address, without any link in its path. Raises MediaError."""
        if not self._roots:
            raise MediaError(
                "files of the backend's machine are not read: name their directory in TAM_MEDIA_ROOTS, or use a local "
                "files storage of Label Studio"
            )
        text = _path_in(url)
        path = Path(os.path.realpath(text)) if text else None
        root = path and next((root for root in self._roots if path.is_relative_to(root)), None)
        if not path or not root or path == root:
            raise MediaError("this file is not below a directory of TAM_MEDIA_ROOTS, or its address is not plain")
        if not path.is_file():
            raise MediaError(f"{path.name} is not there, or is not a file")
        limit, setting = self._limits[image]
        if path.stat().st_size > limit:
            raise MediaError(f"{path.name} is larger than {limit / 1e6:g} MB (setting {setting})")
        return path


def _path_in(url: str) -> str:
    """The absolute path in an address, "" if the address is not a plain one: no host, no query, no step upward."""
    try:
        parts = urlsplit(url)
        path = unquote(parts.path, errors="strict")
        path.encode()
    except ValueError:
        return ""
    if parts.netloc not in ("", "localhost") or parts.query or parts.fragment or _CONTROLS.search(url + path):
        return ""
    steps = path.split("/")
    return path if path.startswith("/") and "\\" not in path and not {".", ".."} & set(steps) else ""
