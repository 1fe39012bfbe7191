"""The folder that ``tam track`` writes: what it may replace there, and that it always shows one run only."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image

from tam_backend.commands.track_explain import EXPLAIN, is_ours
from tam_backend.drawing import encode_ids
from tam_backend.errors import BadInput
from tam_backend.tracking.filestore import FileStore, hold_lock, write_atomically
from tam_backend.tracking.objects import IdMap
from tam_backend.video.base import Frame
from tam_backend.video.jpeg import encode_jpeg

#: Results of earlier prompts are kept for reuse up to this size.
STORE_BYTES = 2_000_000_000

OVERLAY, PREDICTIONS, CONFIG = "overlay.mp4", "predictions.json", "label_config.xml"
PICTURES = "frames"

_FRAME_FILE = re.compile(r"\d{5,}\.png", re.ASCII)
#: What a killed process leaves of a file that it was writing.
_PARTIAL = re.compile(
    r"(\d{5,}\.(png|jpg)|predictions\.json|label_config\.xml)\.\d+-\d+\.partial|\.overlay\.[0-9a-f]{8}\.part", re.ASCII
)
_JPEG_QUALITY = 90

Run = dict[str, Any]


class OutputFolder:
    """The folder of ``--out``, held for one run.

    ``.tam`` inside it has what resuming needs: ``run.json``, which names the video, the prompts and everything else
    that decides the masks, and the store of finished frames. Masks in the folder are always those of ``run.json``.
    """

    def __init__(self, path: Path, run: Run, *, pictures: bool = False, force: bool = False) -> None:
        """Take the folder for a run.

        run: JSON data; ``video`` in it identifies the video, ``name`` is its name, ``frames`` is [start, stop].
        pictures: the run writes pictures, too. force: replace what is in the way, and forget what is in the store.
        Raises BadInput if the folder cannot be written, or holds masks of another video or files of unknown origin;
        TamError if another process is writing it.
        """
        self.path = path
        self._hidden = path / ".tam"
        known = self._known_run()
        before = known.get("engine") if known and not force else None
        #: The engine that made the masks of the run before, if it was another one ("": it was not).
        self.other_engine = str(before) if before not in (None, run.get("engine")) else ""
        if not force:
            self._refuse_foreign(run, known, pictures)
        try:
            self._hidden.mkdir(parents=True, exist_ok=True)
            busy = f"another tam track is writing to {path}; wait for it or choose another --out"
            self._lock = hold_lock(self._hidden / "lock", busy)
        except OSError as e:
            raise BadInput(f"--out {path} cannot be written: {e.strerror}") from e
        try:
            self._sweep()
            if force:
                shutil.rmtree(self._hidden / "store", ignore_errors=True)
            if force or known != run:
                self._remove_masks([run, known] if known else [run])
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
        write_atomically(self.frame_path(frame), encode_ids(ids))

    def read_ids(self, frame: int) -> IdMap:
        """The HxW uint8 ids that were written."""
        with Image.open(self.frame_path(frame)) as image:
            return np.array(image)

    def write_picture(self, frame: int, picture: Frame) -> None:
        """Write a frame of the video, HxWx3 uint8 RGB, as JPEG."""
        path = self.path / PICTURES / f"{frame:05d}.jpg"
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, encode_jpeg(picture, quality=_JPEG_QUALITY))

    def _known_run(self) -> Run | None:
        with contextlib.suppress(OSError, ValueError):
            run = json.loads((self._hidden / "run.json").read_bytes())
            if isinstance(run, dict) and {"video", "frames"} <= run.keys():
                return run
        return None

    def _refuse_foreign(self, run: Run, known: Run | None, pictures: bool) -> None:
        if known is not None and known["video"] != run["video"]:
            raise BadInput(
                f"--out {self.path} has the masks of another video, {known.get('name')}; choose another folder, "
                "or --force to replace them"
            )
        if known is None and self.path.is_dir():
            ours = {OVERLAY, PREDICTIONS, CONFIG, *([PICTURES] if pictures else [])}
            in_the_way = sorted(n for p in self.path.iterdir() if (n := p.name) in ours or _FRAME_FILE.fullmatch(n))
            if in_the_way:
                raise BadInput(
                    f"--out {self.path} has files that would be replaced ({in_the_way[0]}) and that are not from an "
                    "earlier call; choose another folder, or --force to replace them"
                )

    def _remove_masks(self, runs: list[Run]) -> None:
        """Remove what these runs have written or will write, and nothing else."""
        for run in runs:
            for frame in range(*run["frames"]):
                self.frame_path(frame).unlink(missing_ok=True)
        for name in (OVERLAY, PREDICTIONS, CONFIG):
            (self.path / name).unlink(missing_ok=True)
        if is_ours(self.path / EXPLAIN):
            shutil.rmtree(self.path / EXPLAIN, ignore_errors=True)

    def _sweep(self) -> None:
        for folder in (self.path, self.path / PICTURES):
            if folder.is_dir():
                for path in folder.iterdir():
                    if _PARTIAL.fullmatch(path.name):
                        path.unlink()
        for path in self._hidden.rglob("*.partial"):
            path.unlink()
