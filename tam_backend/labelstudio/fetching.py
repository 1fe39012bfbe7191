"""One file, fetched with patience: attempt after attempt, within limits of size, time and speed."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from tam_backend.errors import MediaError
from tam_backend.labelstudio.addresses import Url
from tam_backend.labelstudio.partial import Broken, Partial
from tam_backend.labelstudio.redirects import Busy, Fetcher
from tam_backend.labelstudio.transport import BROKEN, Response, why_broken

log = logging.getLogger(__name__)

#: An attempt that brought less than this counts as one that brought nothing.
_PROGRESS = 64 << 10
#: Where the length is not known, room on the disk is asked for in portions of this size.
_PORTION = 64 << 20
_LOG_SECONDS = 10.0

#: Called with the bytes that are about to be written. Raises MediaError if there is no room for them.
Room = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a download may take. Speeds are judged over ``window`` seconds.

    headers_seconds: until an answer begins. Label Studio reads the whole of an upload before that.
    attempts: so many in a row that bring next to nothing, or are too slow, and it is given up. pause: seconds before
    the second one, twice as many before each further one.
    """

    seconds: float = 3600.0
    bytes_per_second: float = 20_000.0
    window: float = 30.0
    headers_seconds: float = 120.0
    attempts: int = 5
    pause: float = 1.0


class TooLarge(MediaError):
    """More than a limit allows: what has come of it is not worth keeping."""


class Stopped(MediaError):
    """Another file of the same job failed."""


class Job:
    """What the files of one job share: its end in time, its limits, and whether another one failed. Thread-safe.

    max_bytes: of all files together, ``used`` of which are here already. max_image_bytes: of each, where they are
    images.
    """

    def __init__(
        self, patience: Patience, max_bytes: int, max_image_bytes: int | None, room: Room | None, used: int = 0
    ) -> None:
        self.patience = patience
        self.max_bytes = max_bytes
        self.room = room or (lambda size: None)
        self.ends = time.monotonic() + patience.seconds
        self.stopped = threading.Event()
        self.many = max_image_bytes is not None
        self.max_file = max_bytes if max_image_bytes is None else min(max_image_bytes, max_bytes)
        self._used = used
        self._lock = threading.Lock()

    def take(self, size: int) -> None:
        """Count bytes that came. Raises TooLarge."""
        with self._lock:
            self._used += size
            if self._used > self.max_bytes:
                together = "all images of the task together are" if self.many else "it is"
                raise TooLarge(f"{together} larger than {self.max_bytes / 1e6:g} MB (setting TAM_MAX_VIDEO_MB)")

    def check_file(self, size: int) -> None:
        """Raise TooLarge if a file of this size is too much by itself."""
        if size > self.max_file:
            setting = "TAM_MAX_IMAGE_MB" if self.many else "TAM_MAX_VIDEO_MB"
            raise TooLarge(f"it is larger than {self.max_file / 1e6:g} MB (setting {setting})")


def fetch(job: Job, fetcher: Fetcher, url: Url, partial: Partial) -> None:
    """Bring the file to its end, in as many attempts as that takes while they bring something.

    Every attempt begins at ``url``, so redirects to addresses that expire are asked for anew. Raises MediaError; what
    has come is kept in ``partial``, unless it is too large. Raises OSError if the disk does.
    """
    download = _Download(job, url, partial)
    patience, failures = job.patience, 0
    while True:
        before, reason, pause, slow = partial.size, "", 0.0, False
        try:
            download.attempt(fetcher)
        except Broken as e:
            reason, slow = str(e), isinstance(e, _Slow)
            pause = e.seconds if isinstance(e, Busy) else 0.0
        except BROKEN as e:
            reason = why_broken(e)
        except TooLarge:
            partial.discard()
            raise
        finally:
            partial.pause()
        if partial.complete:
            partial.finish(job.max_file)
            return
        failures = 0 if partial.size - before >= _PROGRESS and not slow else failures + 1
        if failures >= patience.attempts:
            reason = reason or "its server sends next to nothing at a time"
            raise MediaError(f"{reason} ({failures} times in a row){_kept(partial)}")
        if reason:
            log.info("%s: %s; %d bytes are here, trying again", url.shown, reason, partial.size)
            pause = max(pause, patience.pause * 2 ** max(failures - 1, 0))
        if time.monotonic() + pause >= job.ends:
            raise MediaError(
                f"it took longer than {patience.seconds / 60:g} minutes (setting TAM_DOWNLOAD_MINUTES){_kept(partial)}"
            )
        if job.stopped.wait(pause):
            raise Stopped("another image of the task could not be fetched")


class _Slow(Broken):
    """Less came than the patience asks for."""


class _Download:
    """The counting of one file over its attempts."""

    def __init__(self, job: Job, url: Url, partial: Partial) -> None:
        self._job = job
        self._url = url
        self._partial = partial
        self._counted = 0
        self._reserved = partial.size
        self._said = time.monotonic()

    def attempt(self, fetcher: Fetcher) -> None:
        """Ask for what is missing and append it. Raises MediaError, Broken or one of BROKEN."""
        job, partial = self._job, self._partial
        fetcher.until(min(job.ends, time.monotonic() + job.patience.headers_seconds))
        with fetcher.get(self._url, partial.headers()) as response:
            have = partial.begin(response)
            self._count(have)
            if not partial.complete:
                if partial.total is not None:
                    job.check_file(partial.total)
                    self._reserve(partial.total)
                self._receive(fetcher, response, have)

    def _receive(self, fetcher: Fetcher, response: Response, have: int) -> None:
        job, partial, patience = self._job, self._partial, self._job.patience
        since, gained = time.monotonic(), 0
        fetcher.until(min(job.ends, since + 2 * patience.window))
        for piece in response.body:
            have += len(piece)
            self._count(have)
            self._reserve(have)
            partial.write(piece)
            gained += len(piece)
            now = time.monotonic()
            if now - since >= patience.window:
                if gained < patience.bytes_per_second * (now - since):
                    raise _Slow(
                        f"it comes slower than {patience.bytes_per_second / 1000:g} KB a second (setting "
                        "TAM_DOWNLOAD_KB_PER_SECOND)"
                    )
                since, gained = now, 0
                fetcher.until(min(job.ends, now + 2 * patience.window))
            if job.stopped.is_set():
                raise Stopped("another image of the task could not be fetched")
            self._say(now, have)
        partial.end()

    def _count(self, have: int) -> None:
        """have: bytes of the file that are here. What came twice, after a new beginning, counts once."""
        if have > self._counted:
            self._job.check_file(have)
            self._job.take(have - self._counted)
            self._counted = have

    def _reserve(self, upto: int) -> None:
        if upto > self._reserved:
            size = upto - self._reserved
            if self._partial.total is None:
                size = max(size, _PORTION)
            self._job.room(size)
            self._reserved += size

    def _say(self, now: float, have: int) -> None:
        if not self._job.many and now - self._said >= _LOG_SECONDS:
            self._said = now
            whole = f"{self._partial.total / 1e6:.0f}" if self._partial.total else "?"
            log.info("downloading %s: %.0f of %s MB", self._url.shown, have / 1e6, whole)


def _kept(partial: Partial) -> str:
    return f"; the {partial.size / 1e6:.1f} MB that came are kept, the next try goes on there" if partial.size else ""
