"""Which process works on a data directory."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO

#: The file in the data directory that is locked by the process that does the background work.
LOCK = "background.lock"


def own(path: Path) -> IO[str] | None:
    """The file, locked by this process until it is closed; None if another process has it."""
    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file
