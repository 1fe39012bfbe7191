"""The process that takes a first look at files: ``python -m tam_backend.video.looker``, started by ``firstlook``.

What it is asked stands in one JSON line on its standard input; the answer goes to its standard output, a file. It ends
with 0 (the answer is an index as ``pack_index`` writes it, or nothing for images), or with REFUSED (it is a sentence).
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tam_backend.errors import MediaError
from tam_backend.video.cache import pack_index
from tam_backend.video.container import Limits
from tam_backend.video.images import open_images
from tam_backend.video.scan import build_index

#: Exit codes: the file is refused, memory did not suffice, the server is gone.
REFUSED, NO_MEMORY, ALONE = 3, 4, 5
#: Open files, of which a look needs a handful.
_FILES = 64


def _confine(seconds: float, memory_bytes: int, output_bytes: int) -> None:
    """Limits that the kernel keeps, whatever the code that reads the file does."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds + 1)
    _limit(resource.RLIMIT_CPU, int(seconds * (os.cpu_count() or 1)) + 1)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, output_bytes)
    _limit(resource.RLIMIT_NOFILE, _FILES)
    with contextlib.suppress(OSError):  # where there is no /proc, address space cannot be limited either
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        _limit(resource.RLIMIT_AS, pages * resource.getpagesize() + memory_bytes)
    os.nice(5)  # a click goes first


def _end_with(server: int) -> None:
    """Look on only while the server is there that wants to know. (A thread, for it works while FFmpeg does.)"""
    while os.getppid() == server:
        time.sleep(1)
    os._exit(ALONE)


def _limit(what: int, value: int) -> None:
    _, hard = resource.getrlimit(what)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(what, (value, value))


def _look(asked: dict[str, Any]) -> bytes:
    limits = Limits(**asked["limits"])
    paths = [Path(path) for path in asked["paths"]]
    if asked["kind"] == "video":
        return pack_index(build_index(paths[0], limits))
    reader = open_images(paths, max_pixels=limits.max_pixels)
    until = time.monotonic() + asked["decode_seconds"]
    for i in range(len(reader)):
        reader[i]
        if time.monotonic() > until:
            break
    return b""


def main(read: Callable[[], str] = sys.stdin.readline) -> int:
    asked = json.loads(read())
    _confine(asked["seconds"], asked["memory_bytes"], asked["output_bytes"])
    threading.Thread(target=_end_with, args=(asked["server"],), daemon=True).start()
    try:
        code, answer = 0, _look(asked)
    except MediaError as e:
        code, answer = REFUSED, str(e).encode(errors="replace")
    except MemoryError:
        return NO_MEMORY
    sys.stdout.buffer.write(answer)
    sys.stdout.buffer.flush()
    return code


if __name__ == "__main__":
    os._exit(main())  # what FFmpeg still holds need not be put away in good order
