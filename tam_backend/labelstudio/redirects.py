"""GET through redirects, each hop checked, the token for Label Studio only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType

from tam_backend.errors import MediaError
from tam_backend.labelstudio.addresses import MediaRules, Url, resolve_label_studio
from tam_backend.labelstudio.connections import Connection
from tam_backend.labelstudio.partial import Broken
from tam_backend.labelstudio.transport import Response, Transport

_MAX_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
_CONNECT_SECONDS = 10.0
_MAX_WAIT_SECONDS = 30.0


class Busy(Broken):
    """The server asks for a pause of ``seconds``."""

    def __init__(self, text: str, seconds: float) -> None:
        super().__init__(text)
        self.seconds = seconds


class Fetcher:
    """Sends GET requests for one thread, over connections that it keeps. A context manager.

    The token goes along as long as every address so far was Label Studio's own: it does not follow a redirect to
    another host, nor does a redirect from elsewhere to Label Studio carry it.
    """

    def __init__(self, rules: MediaRules, connection: Connection | None, read_seconds: float) -> None:
        self._rules = rules
        self._connection = connection
        self._own = Transport(resolve_label_studio, _CONNECT_SECONDS, read_seconds)
        self._other = Transport(rules.resolve, _CONNECT_SECONDS, read_seconds)

    def __enter__(self) -> Fetcher:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._own.close()
        self._other.close()

    def until(self, deadline: float) -> None:
        """End whatever is under way at this moment (monotonic seconds)."""
        self._own.deadline = self._other.deadline = deadline

    @contextmanager
    def get(self, url: Url, headers: Mapping[str, str]) -> Iterator[Response]:
        """The answer at the end of the redirects: 200, 206 or 416. Raises MediaError, Broken or transport.BROKEN."""
        own = self._connection is not None and self._connection.owns(str(url))
        left_from: Url | None = None
        renewed, hops = False, 0
        while hops <= _MAX_REDIRECTS:
            authorization = self._authorization() if own else {}
            if not own:
                self._rules.check(url)
            with (self._own if own else self._other).request("GET", url, {**headers, **authorization}) as response:
                if own and response.status == 401 and not renewed and self._renew(authorization):
                    renewed = True
                    continue
                if own and self._connection is not None:
                    self._connection.credentials.note(response.status)
                if response.status in _REDIRECTS and "location" in response.headers:
                    hops += 1
                    before, url = url, url.join(_location(response))
                    if own and not (self._connection is not None and self._connection.owns(str(url))):
                        own, left_from = False, before
                    continue
                self._check(response, url, own, left_from)
                yield response
                return
        raise MediaError(f"more than {_MAX_REDIRECTS} redirects")

    def _authorization(self) -> dict[str, str]:
        return self._connection.credentials.headers() if self._connection is not None else {}

    def _renew(self, used: Mapping[str, str]) -> bool:
        return self._connection is not None and self._connection.credentials.renew(used)

    def _check(self, response: Response, url: Url, own: bool, left_from: Url | None) -> None:
        """Raise unless the answer is one that can be used."""
        status = response.status
        if status in (200, 206, 416):
            return
        if status in (408, 425, 429) or status >= 500:
            raise Busy(f"{url.host_and_port} answered {status}", _wait(response.headers.get("retry-after", "")))
        if status == 401 and own and self._connection is not None:
            raise MediaError(self._connection.credentials.refusal())
        if status == 401 and left_from is not None and left_from.host == url.host:
            raise MediaError(
                f"Label Studio at {left_from.scheme}://{left_from.host_and_port} sends on to "
                f"{url.scheme}://{url.host_and_port}, which gets no token: set TAM_LABEL_STUDIO_URL to the latter"
            )
        raise MediaError(f"{url.host_and_port} answered {status}")


def _location(response: Response) -> str:
    """Header bytes that are not ASCII are UTF-8 in what servers really send."""
    location = response.headers["location"]
    try:
        return location.encode("latin-1").decode()
    except UnicodeError:
        return location


def _wait(retry_after: str) -> float:
    return min(float(retry_after), _MAX_WAIT_SECONDS) if retry_after.isascii() and retry_after.isdigit() else 0.0
