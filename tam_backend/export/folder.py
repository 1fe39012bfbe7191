"""The folder of an export: whoever looks into it sees the old data set or the new one, never half of one."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import TracebackType

from tam_backend.errors import BadInput
from tam_backend.export import manifest
from tam_backend.tracking.filestore import hold_lock


class StagedFolder:
    """Held for one run.

    A hidden folder beside the target, ``.NAME.partial``, has ``work`` (what was fetched so far, kept until the export
    is complete, so that the next run goes on from there) and ``new`` (the data set while it is written).
    """

    def __init__(self, target: Path) -> None:
        """Raises BadInput if the target has files that are not from an export, or cannot be written; TamError if
        another process is writing it."""
        self.target = target
        self._hidden = target.parent / f".{target.name}.partial"
        self._old = self._hidden / "old"
        self.work, self.new = self._hidden / "work", self._hidden / "new"
        refuse_foreign(target)
        try:
            self.work.mkdir(parents=True, exist_ok=True)
            self._lock = hold_lock(self._hidden / "lock", f"another tam export is writing to {target}; wait for it")
        except OSError as e:
            raise BadInput(f"--out {target} cannot be written: {e.strerror}") from e
        if self._old.exists() and not target.exists():  # killed between the two steps of ``publish``
            self._old.rename(target)
        shutil.rmtree(self.new, ignore_errors=True)
        self.new.mkdir()

    def publish(self) -> None:
        """The new data set takes the place of the old one."""
        shutil.rmtree(self._old, ignore_errors=True)
        if self.target.exists():
            self.target.rename(self._old)
        self.new.rename(self.target)
        self._lock.close()
        shutil.rmtree(self._hidden, ignore_errors=True)

    def __enter__(self) -> StagedFolder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._lock.close()
        shutil.rmtree(self.new, ignore_errors=True)


def refuse_foreign(target: Path) -> None:
    """Raises BadInput if there is something that an export must not replace."""
    if target.is_dir() and any(target.iterdir()) and manifest.load(target) is None:
        raise BadInput(f"--out {target} has files that are not from an export; choose another folder")
    if target.exists() and not target.is_dir():
        raise BadInput(f"--out {target} is a file; choose another name")
