"""The folder that ``tam track`` writes: what it may replace there, and that it always shows one run only."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image

from tam_backend.drawing import PALETTE
from tam_backend.errors import BadInput, TamError
from tam_backend.tracking.filestore import FileStore, write_atomically
from tam_backend.tracking.objects import IdMap
from tam_backend.video.base import Frame
from tam_backend.video.jpeg import encode_jpeg

try:
    import fcntl
except ImportError:  # Windows: two calls at once on one folder are not noticed there
    fcntl = None  # type: ignore[assignment]

#: Results of earlier prompts are kept for reuse up to this size.
STORE_BYTES = 2_000_000_000

_FRAME_FILE = re.compile(r"\d{5,}\.png", re.ASCII)
_OTHER_OUTPUTS = ("overlay.mp4", "predictions.json", "label_config.xml")
_FRAMES_FOLDER = "frames"
_JPEG_QUALITY = 90

Run = dict[str, Any]


class OutputFolder:
    """The folder of ``--out``, held for one run.

    ``.tam`` inside it has what resuming needs: ``run.json``, which names the video, the prompts and everything else
    that decides the masks, and the store of finished frames. PNGs in the folder are always those of ``run.json``.
    """

    def __init__(self, path: Path, run: Run, *, force: bool = False) -> None:
        """Take the folder for a run. run: JSON data; ``video`` in it identifies the video, ``name`` is its name.

        force: replace whatever an earlier run left. Raises BadInput if the folder cannot be written or holds files
        that are not the same video's; TamError if another process is writing it.
        """
        self.path = path
        self._hidden = path / ".tam"
        known = self._known_run()
        if not force:
            self._refuse_foreign(run, known)
        try:
            self._hidden.mkdir(parents=True, exist_ok=True)
            self._lock = (self._hidden / "lock").open("w")
        except OSError as e:
            raise BadInput(f"--out {path} cannot be written: {e.strerror}") from e
        try:
            self._hold()
            if force:
                self._remove_outputs()
                shutil.rmtree(path / _FRAMES_FOLDER, ignore_errors=True)
                shutil.rmtree(self._hidden / "store", ignore_errors=True)
            elif known != run:
                self._remove_outputs()
            for partial in path.glob("*.partial"):  # of a process that was killed
                partial.unlink()
            write_atomically(self._hidden / "run.json", json.dumps(run, indent=1).encode())
            self.store = FileStore(self._hidden / "store")
            self.store.trim(STORE_BYTES)
        except BaseException:
            self._lock.close()
            raise

    def __enter__(self) -> OutputFolder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._lock.close()

    def frame_path(self, frame: int) -> Path:
        return self.path / f"{frame:05d}.png"

    def write_ids(self, frame: int, ids: IdMap) -> None:
        """Write an indexed PNG with the DAVIS palette. ids: HxW uint8."""
        image = Image.frombytes("P", (ids.shape[1], ids.shape[0]), np.ascontiguousarray(ids).tobytes())
        image.putpalette(PALETTE.tobytes())
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        write_atomically(self.frame_path(frame), buffer.getvalue())

    def read_ids(self, frame: int) -> IdMap:
        """The HxW uint8 ids that were written."""
        with Image.open(self.frame_path(frame)) as image:
            return np.array(image)

    def write_picture(self, frame: int, picture: Frame) -> None:
        """Write a frame of the video, HxWx3 uint8 RGB, as JPEG; if it is there already, it stays."""
        path = self.path / _FRAMES_FOLDER / f"{frame:05d}.jpg"
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            write_atomically(path, encode_jpeg(picture, quality=_JPEG_QUALITY))

    def _known_run(self) -> Run | None:
        with contextlib.suppress(OSError, ValueError):
            run = json.loads((self._hidden / "run.json").read_bytes())
            if isinstance(run, dict) and "video" in run:
                return run
        return None

    def _outputs(self) -> list[Path]:
        if not self.path.is_dir():
            return []
        numbered = (p for p in self.path.iterdir() if _FRAME_FILE.fullmatch(p.name))
        return sorted(numbered) + [p for name in _OTHER_OUTPUTS if (p := self.path / name).exists()]

    def _remove_outputs(self) -> None:
        for path in self._outputs():
            path.unlink()

    def _refuse_foreign(self, run: Run, known: Run | None) -> None:
        if known is not None and known.get("video") != run["video"]:
            raise BadInput(
                f"--out {self.path} has the masks of another video, {known.get('name')}; choose another folder, "
                "or --force to replace them"
            )
        if known is None and (outputs := self._outputs()):
            raise BadInput(
                f"--out {self.path} has files that would be replaced ({outputs[0].name}) and that are not from an "
                "earlier call; choose another folder, or --force to replace them"
            )

    def _hold(self) -> None:
        if fcntl is not None:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as e:
                raise TamError(
                    f"another tam track is writing to {self.path}; wait for it or choose another --out"
                ) from e
