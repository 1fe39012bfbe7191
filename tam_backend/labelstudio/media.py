"""From an address in a task's data to a file on this disk."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import requests

from tam_backend.errors import MediaError
from tam_backend.labelstudio.connections import Connection

_CHUNK = 1 << 20
_MAX_REDIRECTS = 5
#: (connect, between two pieces of data) seconds.
_TIMEOUT = (10, 60)


def absolute_url(address: object, connection: Connection | None) -> str:
    """Resolve an address as it stands in task data (``/data/upload/...``, ``http://...``). Raises MediaError."""
    if not isinstance(address, str) or not address.strip():
        raise MediaError(f"the task's data has {address!r:.80} where the address of a video or picture should be")
    address = address.strip()
    scheme = urlsplit(address).scheme.lower()
    if scheme in ("http", "https"):
        return address
    if scheme or address.startswith("//"):
        raise MediaError(
            f"cannot read {address:.120}: only uploads, local files of Label Studio and http(s) addresses can be read"
        )
    if connection is None:
        raise MediaError(
            f"cannot read {address:.120}: the address of Label Studio is not known yet. Open the project once so that "
            "Label Studio connects, or set TAM_LABEL_STUDIO_URL"
        )
    return urljoin(connection.url + "/", address.lstrip("/"))


class Downloader:
    """Fetches files over HTTP from Label Studio and from the hosts that the settings allow.

    The token goes to Label Studio only, also when it redirects elsewhere. Every hop of a redirect must be allowed.
    """

    def __init__(self, media_hosts: tuple[str, ...], max_bytes: int) -> None:
        self._hosts = frozenset(media_hosts)
        self._max_bytes = max_bytes

    def fetch(self, url: str, connection: Connection | None, target: Path) -> None:
        """Download to ``target``, which exists afterwards whole or not at all. Raises MediaError."""
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(dir=target.parent, prefix=".download-")
        try:
            with os.fdopen(handle, "wb") as out, requests.Session() as session:
                session.trust_env = False  # a .netrc or a proxy must not see requests to Label Studio
                received, expected = 0, None
                with self._open(session, url, connection) as response:
                    expected = response.headers.get("Content-Length")
                    for chunk in response.iter_content(_CHUNK):
                        received += len(chunk)
                        if received > self._max_bytes:
                            raise MediaError(
                                f"{url} is larger than {self._max_bytes / 1e6:.0f} MB (setting TAM_MAX_VIDEO_MB)"
                            )
                        out.write(chunk)
                    if "Content-Encoding" in response.headers:
                        expected = None  # it counts the compressed bytes
                if expected and expected.isdigit() and received != int(expected):
                    raise MediaError(f"{url} broke off after {received} of {expected} bytes; try again")
            Path(partial).replace(target)
        except requests.RequestException as e:
            raise MediaError(f"cannot download {url} ({type(e).__name__}); is its server up?") from e
        finally:
            Path(partial).unlink(missing_ok=True)

    def _open(self, session: requests.Session, url: str, connection: Connection | None) -> requests.Response:
        for _ in range(_MAX_REDIRECTS + 1):
            headers = self._headers(url, connection)
            response = session.get(url, headers=headers, stream=True, timeout=_TIMEOUT, allow_redirects=False)
            if response.is_redirect:
                url = urljoin(url, response.headers["Location"])
                response.close()
                continue
            if response.ok:
                return response
            response.close()
            if response.status_code == 401:
                raise MediaError(
                    f"Label Studio refuses the token for {url} (401): switch legacy tokens on in the organisation's "
                    "Access Token Settings, or set TAM_LABEL_STUDIO_TOKEN"
                )
            raise MediaError(f"cannot download {url}: its server answered {response.status_code}")
        raise MediaError(f"cannot download {url}: more than {_MAX_REDIRECTS} redirects")

    def _headers(self, url: str, connection: Connection | None) -> dict[str, str]:
        if connection is not None and connection.owns(url):
            return connection.headers
        parts = urlsplit(url)
        names = {(parts.hostname or "").lower(), parts.netloc.lower()}
        allowed = parts.scheme in ("http", "https") and self._hosts & names
        if not allowed:
            raise MediaError(
                f"{url} is not on Label Studio and its host is not allowed: add {parts.hostname} to TAM_MEDIA_HOSTS"
            )
        return {}
