from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tam_backend.labelstudio.connections import Connections
from tam_backend.labelstudio.library import VideoLibrary
from tam_backend.labelstudio.localfiles import LocalFiles
from tam_backend.labelstudio.media import Downloader
from tam_backend.settings import Settings
from tam_backend.video.base import Reader
from tam_backend.video.container import Limits
from tam_backend.video.firstlook import FirstLook

Open = Callable[..., Reader]


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """The directory from which files may be read."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    return folder


@pytest.fixture
def open_local(tmp_path: Path, shelf: Path) -> Open:
    """Opens a file by its ``file:`` address, as the server does for a task that names it."""

    def open_(url: str, kind: str = "video", first_look: FirstLook | None = None, **limits: float) -> Reader:
        library = VideoLibrary(
            tmp_path / "data", Downloader((), 10**6), Connections(Settings()),
            local=LocalFiles([shelf], 5_000_000, 1_000_000), limits=Limits(**limits),
            first_look=first_look or FirstLook(20, 600_000_000),
        )  # fmt: skip
        return library.open(library.register(kind, [url], None))

    return open_
