"""From an address in a task's data to files on this disk."""

from __future__ import annotations

import base64
import logging
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from urllib.parse import urljoin, urlsplit

from tam_backend.errors import LabelStudioError, MediaError
from tam_backend.labelstudio.addresses import MediaRules, parse_url, without_secrets
from tam_backend.labelstudio.connections import Connection
from tam_backend.labelstudio.fetching import Job, Patience, Room, Stopped, fetch
from tam_backend.labelstudio.localfiles import is_local
from tam_backend.labelstudio.partial import Partial
from tam_backend.labelstudio.redirects import Fetcher
from tam_backend.settings import Settings

log = logging.getLogger(__name__)

#: Schemes of the cloud storages that Label Studio 1.23.2 connects and resolves.
CLOUD_SCHEMES = ("s3", "gs", "azure-blob")
_LOCAL_FILES = "/data/local-files/"
#: Images of one task that are fetched, and how many at a time.
MAX_IMAGES = 10_000
_AT_ONCE = 6
_LOG_SECONDS = 10.0


def absolute_url(address: object, connection: Connection | None, project: int | None = None) -> str:
    """Resolve an address as it stands in task data (``/data/upload/...``, ``http://...``, ``s3://...``).

    project: id of the task's project; Label Studio resolves cloud URIs with its storages. ``file:`` addresses stay as
    they are: whether such a file is read is decided when it is opened (``localfiles``). Raises MediaError.
    """
    if not isinstance(address, str) or not address.strip():
        raise MediaError(f"the task's data has {address!r:.80} where the address of a video or picture should be")
    address = address.strip()
    shown = without_secrets(address)
    try:
        parts = urlsplit(address)
        address.encode()
    except ValueError as e:  # half a bracket, half a character
        raise MediaError(f"{shown!r} is not an address: {e}") from e
    scheme = parts.scheme.lower()
    if scheme in ("http", "https"):
        if connection is None or connection.owns(address) or not parts.path.endswith(_LOCAL_FILES):
            return address
        # A local-files storage writes Label Studio's public name into its tasks; we may reach it under another.
        return f"{connection.url}{_LOCAL_FILES}?{parts.query}"
    if is_local(address):
        return address
    cloud = scheme in CLOUD_SCHEMES
    if (scheme and not cloud) or address.startswith("//"):
        raise MediaError(
            f"cannot read {shown}: only uploads, local files of Label Studio, http(s) addresses and "
            f"{', '.join(f'{s}://' for s in CLOUD_SCHEMES)} can be read"
        )
    if connection is None:
        raise MediaError(
            f"cannot read {shown}: the address of Label Studio is not known yet. Open the project once so that "
            "Label Studio connects, or set TAM_LABEL_STUDIO_URL"
        )
    if cloud:
        if project is None:
            raise MediaError(f"cannot read {shown}: the request does not say to which project its task belongs")
        # By project rather than by task: the address stays good when the task is deleted, and is one for all its tasks.
        encoded = base64.urlsafe_b64encode(address.encode()).decode()
        return f"{connection.url}/projects/{project}/presign/?fileuri={encoded}"
    return urljoin(connection.url + "/", address.lstrip("/"))


class Downloader:
    """Fetches files from Label Studio, from the hosts that the settings list, and from the open internet if allowed.

    max_bytes: of a video, or of all images of a list together. What a broken download brought is kept beside the
    target and continued, also after a restart.
    """

    def __init__(
        self,
        media_hosts: Iterable[str],
        max_bytes: int,
        *,
        public: bool = True,
        max_image_bytes: int = 50_000_000,
        patience: Patience | None = None,
    ) -> None:
        self._rules = MediaRules(media_hosts, public)
        self._max_bytes = max_bytes
        self._max_image_bytes = max_image_bytes
        self._patience = patience or Patience()

    @classmethod
    def from_settings(cls, settings: Settings) -> Downloader:
        return cls(
            settings.media_hosts,
            settings.max_video_mb * 1_000_000,
            public=settings.media_public,
            max_image_bytes=settings.max_image_mb * 1_000_000,
            patience=Patience(
                seconds=settings.download_minutes * 60.0,
                bytes_per_second=settings.download_kb_per_second * 1000.0,
            ),
        )

    def fetch(self, url: str, connection: Connection | None, target: Path, room: Room | None = None) -> None:
        """Download to ``target``, which exists afterwards whole or not at all. Raises MediaError."""
        job = Job(self._patience, self._max_bytes, None, room)
        with Fetcher(self._rules, connection, self._patience.headers_seconds) as fetcher:
            _fetch(job, fetcher, url, target)

    def fetch_images(
        self, files: Sequence[tuple[str, Path]], connection: Connection | None, room: Room | None = None
    ) -> None:
        """Download what is missing of (URL, target) pairs, some at a time. Raises MediaError with the first failure."""
        if len(files) > MAX_IMAGES:
            raise MediaError(f"the task lists {len(files)} images; at most {MAX_IMAGES} are fetched")
        used = sum(target.stat().st_size for _, target in files if target.exists())
        job = Job(self._patience, self._max_bytes, self._max_image_bytes, room, used)
        missing = [(url, target) for url, target in files if not target.exists()]
        pending, lock = iter(missing), threading.Lock()

        def work() -> None:
            with Fetcher(self._rules, connection, self._patience.headers_seconds) as fetcher:
                while True:
                    with lock:
                        url, target = next(pending, (None, None))
                    if url is None or target is None or job.stopped.is_set():
                        return
                    try:
                        _fetch(job, fetcher, url, target)
                    except BaseException:
                        job.stopped.set()
                        raise

        workers = min(_AT_ONCE, len(missing))
        with ThreadPoolExecutor(workers or 1, thread_name_prefix="images") as pool:
            futures = {pool.submit(work) for _ in range(workers)}
            errors: list[BaseException] = []
            while futures:
                done, futures = wait(futures, _LOG_SECONDS)
                errors += [e for f in done if (e := f.exception())]
                if futures:
                    here = sum(target.exists() for _, target in missing)
                    log.info("downloading images: %d of %d", here, len(missing))
        for error in sorted(errors, key=lambda e: isinstance(e.__cause__, Stopped)):
            raise error


def _fetch(job: Job, fetcher: Fetcher, text: str, target: Path) -> None:
    url = parse_url(text)
    try:
        partial = Partial(target, text)
        try:
            fetch(job, fetcher, url, partial)
        finally:
            partial.close()
    except MediaError as e:
        raise MediaError(f"cannot download {url.shown}: {e}") from e
    except LabelStudioError as e:
        raise MediaError(str(e)) from e
    except OSError as e:
        raise MediaError(f"cannot write {target.name}: {e.strerror}") from e
