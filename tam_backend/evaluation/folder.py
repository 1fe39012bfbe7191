"""The folder of ``--out``: one set of conditions, one process at a time."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from types import TracebackType

from tam_backend.errors import BadInput
from tam_backend.evaluation.protocols.base import Json
from tam_backend.evaluation.runner import HIDDEN, MASKS
from tam_backend.tracking.filestore import hold_lock, write_atomically

REPORT, TABLE, PLOTS, OVERLAYS = "report.json", "report.md", "plots", "overlays"


class EvaluationFolder:
    """Holds results of one engine under one protocol; sequences may be added by later calls."""

    def __init__(self, path: Path, conditions: Json, *, force: bool = False) -> None:
        """Take the folder. conditions: JSON data, all that decides the results but for the sequences.

        force: forget results of other conditions. Raises BadInput if there are any without it, if there are files of
        unknown origin, or if the folder cannot be written; TamError if another process is writing it.
        """
        self.path = path
        hidden = path / HIDDEN
        known = self._known(hidden)
        if not force:
            self._refuse(known, conditions)
        try:
            hidden.mkdir(parents=True, exist_ok=True)
            busy = f"another tam evaluate is writing to {path}; wait for it or choose another --out"
            self._lock = hold_lock(hidden / "lock", busy)
        except OSError as e:
            raise BadInput(f"--out {path} cannot be written: {e.strerror}") from e
        try:
            if known != conditions:
                for name in ("results", "store", "errors"):
                    shutil.rmtree(hidden / name, ignore_errors=True)
                for name in (MASKS, PLOTS, OVERLAYS):
                    shutil.rmtree(path / name, ignore_errors=True)
                for name in (REPORT, TABLE):
                    (path / name).unlink(missing_ok=True)
            for leftover in path.rglob("*.partial"):
                leftover.unlink()
            write_atomically(hidden / "conditions.json", json.dumps(conditions, indent=1).encode())
        except BaseException:
            self._lock.close()
            raise

    def __enter__(self) -> EvaluationFolder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._lock.close()

    @staticmethod
    def _known(hidden: Path) -> Json | None:
        with contextlib.suppress(OSError, ValueError):
            return dict(json.loads((hidden / "conditions.json").read_bytes()))
        return None

    def _refuse(self, known: Json | None, conditions: Json) -> None:
        if known is None and self.path.is_dir() and any(self.path.iterdir()):
            raise BadInput(f"--out {self.path} has files that are not from tam evaluate; choose another folder")
        if known is not None and known != conditions:
            other = ", ".join(f"{k} {known.get(k)!r}" for k in conditions if known.get(k) != conditions[k])
            raise BadInput(
                f"--out {self.path} has results with {other}; choose another folder, or --force to replace them"
            )
