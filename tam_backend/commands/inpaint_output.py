"""Where ``tam inpaint`` writes, and the folder beside it with the work before, so that the same command goes on where
it was stopped."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

from tam_backend.errors import BadInput
from tam_backend.tracking.filestore import FileStore, hold_lock, write_atomically


def work_folder(out: Path) -> Path:
    """Where the work for an output is kept."""
    return out.with_name(f".{out.name}.tam")


class WorkFolder:
    """The finished work of one run, held for this process. It goes when the run is complete.

    run: JSON data, all that decides the result; the work of another run is replaced.
    """

    def __init__(self, path: Path, out: Path, run: dict[str, Any], *, force: bool = False) -> None:
        """path: as ``work_folder`` gives it for ``out``. force: forget what is there.

        Raises BadInput if the folder cannot be written, TamError if another process is at it.
        """
        self.path = path
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            busy = f"another tam inpaint is writing {out}; wait for it or choose another --out"
            self._lock = hold_lock(self.path / "lock", busy)
        except OSError as e:
            raise BadInput(f"--out {out} cannot be written: {e.strerror}") from e
        try:
            if force or self._known() != run:
                shutil.rmtree(self.path / "store", ignore_errors=True)
                write_atomically(self.path / "run.json", json.dumps(run, indent=1).encode())
            for partial in self.path.rglob("*.partial"):
                partial.unlink()
            _remove_leftovers(out)
            self.store = FileStore(self.path / "store")
        except BaseException:
            self._lock.close()
            raise

    def _known(self) -> object:
        try:
            return json.loads((self.path / "run.json").read_bytes())
        except (OSError, ValueError):
            return None

    def __enter__(self) -> WorkFolder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._lock.close()

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


def _remove_leftovers(out: Path) -> None:
    """What an earlier run had begun to write when it was killed. Nobody else writes there now."""
    begun = re.compile(rf"\.{re.escape(out.stem)}(-compare)?\.[0-9a-f]{{8}}\.part")
    for path in out.resolve().parent.iterdir():
        if begun.fullmatch(path.name):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def check_place(out: Path, inputs: Iterable[Path], force: bool) -> None:
    """Raises BadInput if ``--out`` would replace something: always an input, without ``--force`` any video."""
    if not out.name:
        raise BadInput(f"--out {out} is not the name of a file or folder")
    if not out.resolve().parent.is_dir():
        raise BadInput(f"--out {out}: there is no folder {out.parent}")
    for given in inputs:
        if out.resolve() == given.resolve():
            raise BadInput(f"--out {out} is an input; choose another name")
    if out.suffix.lower() == ".mp4":
        if out.is_dir():
            raise BadInput(f"--out {out} is a folder; a video is written to a file")
        if out.exists() and not force:
            raise BadInput(f"--out {out} is there already; choose another name, or --force to replace it")
    elif out.suffix:
        raise BadInput(f"--out {out}: a video is written as .mp4; a name without an ending is a folder of PNG frames")
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadInput(f"--out {out} is there already and not an empty folder; choose another name")
