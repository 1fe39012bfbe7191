"""The first look at a file from elsewhere: in a process of its own, with limits, whose death is an error like others.

Broken and hostile files are found out there: what crashes a decoder, takes all memory or never ends takes that process
along and not the server. Files that passed are read in this process, by what the look has found (``Index``).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tam_backend.errors import MediaError
from tam_backend.video.cache import unpack_index
from tam_backend.video.container import Limits
from tam_backend.video.index import Index
from tam_backend.video.looker import NO_MEMORY, REFUSED

#: Looks at the same time, in one process.
_AT_ONCE = 2
_MAX_THREADS = 4
#: Bytes of an index for each frame, and for the rest of it; more than is needed.
_FRAME_BYTES, _REST_BYTES = 100, 1 << 20
#: Images of a list are decoded for so long. The rest of a long list is looked at by their headers only.
_IMAGE_SECONDS = 10.0
_SEEN = 10_000
#: What a look gets of this process's environment. No secrets, nothing that changes what is computed.
_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG", "LC_ALL", "TZ", "SYSTEMROOT")


class FirstLook:
    """Takes first looks. Thread-safe.

    seconds: wall clock time of a look. memory_bytes: that it may take, beyond what Python itself does.
    """

    def __init__(self, seconds: float = 600.0, memory_bytes: int = 4_000_000_000) -> None:
        self._seconds = seconds
        self._memory_bytes = memory_bytes
        self._turns = threading.BoundedSemaphore(_AT_ONCE)
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()
        self.command = [_python(), "-P", "-m", "tam_backend.video.looker"]

    def video(self, path: Path, limits: Limits) -> Index:
        """The index of a video file. Raises MediaError if it has none, or takes too much time or memory."""
        index = unpack_index(self._run("video", [path], limits))
        if index is None:
            raise MediaError(f"{path.name} could not be looked at; the next try may succeed")
        return index

    def images(self, paths: Sequence[Path], key: str, limits: Limits) -> None:
        """Raise MediaError unless images can be decoded. key: names their content; what was seen is not seen again."""
        with self._lock:
            if key in self._seen:
                return
        self._run("images", paths, limits)
        with self._lock:
            self._seen[key] = None
            while len(self._seen) > _SEEN:
                self._seen.popitem(last=False)

    def _run(self, kind: str, paths: Sequence[Path], limits: Limits) -> bytes:
        name = paths[0].name if len(paths) == 1 else f"the list of images that begins with {paths[0].name}"
        threads = min(limits.threads or _MAX_THREADS, _MAX_THREADS, os.cpu_count() or 1)
        output_bytes = limits.max_frames * _FRAME_BYTES + _REST_BYTES
        asked = {
            "kind": kind, "paths": [str(path.absolute()) for path in paths],
            "limits": asdict(replace(limits, threads=threads)), "seconds": self._seconds,
            "memory_bytes": self._memory_bytes, "output_bytes": output_bytes, "decode_seconds": _IMAGE_SECONDS,
            "server": os.getpid(),
        }  # fmt: skip
        with self._turns, tempfile.TemporaryFile() as answer:
            code = self._process(json.dumps(asked), answer)
            answer.seek(0)
            if code == 0:
                return answer.read(output_bytes)
            if code == REFUSED:
                raise MediaError(answer.read(2000).decode(errors="replace") or f"{name} cannot be read")
        if code in (None, -signal.SIGALRM, -signal.SIGXCPU):
            raise MediaError(
                f"{name} took longer than {self._seconds:g} seconds to look at (setting TAM_FIRST_LOOK_SECONDS): it is "
                "very long, damaged, or made to do harm"
            )
        if code == NO_MEMORY:
            raise MediaError(
                f"{name} needs more than {self._memory_bytes / 1e6:g} MB of memory (setting TAM_FIRST_LOOK_MB): it is "
                "very large, damaged, or made to do harm"
            )
        raise MediaError(f"{name} cannot be read: its decoder ended over it. It is damaged, or made to do harm")

    def _process(self, asked: str, answer: Any) -> int | None:
        """The exit code; None if the time was up."""
        environ = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        environ |= {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "OPENBLAS_NUM_THREADS": "1"}
        with subprocess.Popen(  # noqa: S603 (the file's path goes in by standard input)
            self.command, stdin=subprocess.PIPE, stdout=answer, stderr=subprocess.DEVNULL, env=environ,
            start_new_session=True, text=True,
        ) as process:  # fmt: skip
            try:
                process.communicate(asked + "\n", timeout=self._seconds)
            except subprocess.TimeoutExpired:
                return None
            finally:
                if process.poll() is None:
                    process.kill()
            return process.returncode


def _python() -> str:
    """The interpreter; under uWSGI ``sys.executable`` is uWSGI."""
    if Path(sys.executable).name.startswith("python"):
        return sys.executable
    return str(Path(sys.prefix) / "bin" / "python3")
