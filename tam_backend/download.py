"""Downloads of large files over connections that break."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import requests
import urllib3

from tam_backend.errors import TamError
from tam_backend.weights import CheckpointError

try:
    import fcntl
except ImportError:  # Windows: nothing keeps two processes from downloading the same file at once there
    fcntl = None  # type: ignore[assignment]

T = TypeVar("T")

#: Called with the bytes that are here and the bytes there will be (None: the server does not say).
Progress = Callable[[int, int | None], None]

#: Seconds before the second attempt; twice as many before each further one.
PAUSE = 1.0

BLOCK = 1 << 18

#: What a file system should have left beside the file itself.
SPARE = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Patience:
    """attempts: those in a row that bring nothing before a download is given up. connect: seconds to reach a server.
    silence: seconds without a byte after which an attempt is broken off."""

    attempts: int = 5
    connect: float = 15.0
    silence: float = 60.0


PATIENT = Patience()


class _Broken(Exception):
    """An attempt that failed in a way that may not last."""


def download(
    url: str,
    path: Path,
    verify: Callable[[Path], T],
    size: int | None = None,
    progress: Progress | None = None,
    patience: Patience = PATIENT,
) -> T:
    """Download ``url`` to ``path``, which appears in one moment and only if ``verify`` accepts the whole file.

    Returns what ``verify`` returned, which saw the file under another name.

    While it grows, the file is ``path`` with ``.part`` at the end; a download that broke off goes on there. size: bytes
    of the whole file, if they are known. A proxy is taken from the usual environment variables.

    Raises CheckpointError if the server refuses, if the connection keeps breaking (then the part stays for the next
    call), if there is no room, or if the file is wrong; what ``verify`` raises goes through, and nothing stays then.
    """
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _exclusive(part) as file:
            _fill(url, part, file, size, progress, patience)
            os.fsync(file)
            try:
                result = verify(part)
            except TamError as e:
                os.ftruncate(file, 0)
                raise CheckpointError(f"what came from {url} was wrong, and has been deleted: {e}") from e
            part.replace(path)
            return result
    except OSError as e:
        raise CheckpointError(f"cannot write {part}: {e}") from e


@contextlib.contextmanager
def _exclusive(part: Path) -> Iterator[int]:
    """The part file, opened for reading and writing, for this process alone."""
    file = os.open(part, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as e:
                raise CheckpointError(f"another process is downloading {part.stem} at this moment") from e
        yield file
    finally:
        os.close(file)
        with contextlib.suppress(OSError):
            if part.stat().st_size == 0:
                part.unlink()


def _fill(url: str, part: Path, file: int, size: int | None, progress: Progress | None, patience: Patience) -> None:
    """Bring the part file to the whole length, in as many attempts as that takes while each brings something."""
    failures = 0
    while True:
        before = os.fstat(file).st_size
        try:
            _attempt(url, part, file, size, progress, patience)
            return
        except _Broken as e:
            grown = os.fstat(file).st_size > before
            failures = 1 if grown else failures + 1
            if failures >= patience.attempts:
                here = os.fstat(file).st_size
                raise CheckpointError(
                    f"the download of {url} broke off {failures} times without getting on: {e}. "
                    f"{here} bytes are kept; the same command goes on from there. A site without access can put the "
                    f"file into {part.parent} by hand, as {part.stem}"
                ) from e
            time.sleep(PAUSE * 2 ** (failures - 1))


def _attempt(url: str, part: Path, file: int, size: int | None, progress: Progress | None, patience: Patience) -> None:
    """Ask for what is missing and append it. Raises _Broken if that did not bring the whole rest."""
    have = os.lseek(file, 0, os.SEEK_END)
    if size is not None and have == size:
        return
    times = (patience.connect, patience.silence)
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
    try:
        with requests.get(url, headers=headers, stream=True, timeout=times) as response:
            if url.startswith("https:") and not response.url.startswith("https:"):
                raise CheckpointError(f"{url} leads to {response.url}, which is not encrypted")
            total = _prepare(response, url, file, have, size)
            have = os.lseek(file, 0, os.SEEK_CUR)
            if have == total:
                return
            if total is not None and shutil.disk_usage(part.parent).free < total - have + SPARE:
                raise CheckpointError(f"not enough room in {part.parent}: {total - have} bytes are to come")
            # not iter_content, which loses what it has of a block when the connection breaks
            while block := response.raw.read1(BLOCK):
                _write(file, block)
                have += len(block)
                if size is not None and have > size:
                    os.ftruncate(file, 0)
                    raise CheckpointError(f"{url} sends more than the {size} bytes of the published file")
                if progress is not None:
                    progress(have, total)
    except (requests.RequestException, urllib3.exceptions.HTTPError) as e:
        raise _Broken(str(e)) from e
    if total is not None and have < total:
        raise _Broken(f"{have} of {total} bytes came")


def _prepare(response: requests.Response, url: str, file: int, have: int, size: int | None) -> int | None:
    """Place the file where the body of this response goes; returns the length of the whole file if it is known."""
    status = response.status_code
    if status in (408, 425, 429) or status >= 500:
        raise _Broken(f"the server answered {status}")
    if status not in (200, 206, 416):
        raise CheckpointError(
            f"{url} cannot be had: the server answered {status}. TAM_CHECKPOINT_URL names another place to get it from"
        )
    if status == 200:
        first, length = "0", response.headers.get("Content-Length", "")
    else:
        place, _, length = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
        first = place.partition("-")[0]
    total = int(length) if length.isdigit() else None
    if size is not None and total not in (None, size):
        os.ftruncate(file, 0)
        raise CheckpointError(f"{url} is not the published file: it has {total} bytes, the published file {size}")
    if status == 416 and total == have:
        return total  # all of it is here already, and the body is a message
    if status == 416 or (status == 206 and first != str(have)):
        os.ftruncate(file, 0)
        raise _Broken(f"the server does not go on after byte {have}; starting again")
    if status == 200:
        os.ftruncate(file, 0)
        os.lseek(file, 0, os.SEEK_SET)
    return size if size is not None else total


def _write(file: int, block: bytes) -> None:
    view = memoryview(block)
    while view:
        view = view[os.write(file, view) :]
