"""HTTP for everything that leaves this server: checked addresses, no redirects, no proxies, and an end in time.

The environment's proxies and ``.netrc`` play no part. Certificates are judged by what the system and certifi trust.
"""

from __future__ import annotations

import functools
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import certifi
import httpcore

from tam_backend import __version__
from tam_backend.errors import LabelStudioError, MediaError, Unreachable
from tam_backend.labelstudio.addresses import IpAddress, Url, parse_url, resolve_label_studio

#: (host, port) -> the addresses that may be connected to. Raises MediaError.
Resolve = Callable[[str, int], list[IpAddress]]

#: What a connection that breaks, stalls or talks nonsense raises.
BROKEN = (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError)

_MEANINGS: dict[type[Exception], str] = {
    httpcore.ConnectError: "it cannot be connected to",
    httpcore.ConnectTimeout: "it cannot be connected to, for lack of an answer",
    httpcore.TimeoutException: "it stopped sending",
    httpcore.RemoteProtocolError: "the connection broke, or what came was not HTTP",
}

#: Largest answer of Label Studio's API that is read.
_MAX_ANSWER = 256 << 20
_KEEP_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Response:
    """headers: names in lower case. body: pieces as they arrive; raises one of BROKEN."""

    status: int
    headers: Mapping[str, str]
    body: Iterable[bytes]


class Transport:
    """Connections to the hosts that ``resolve`` lets pass, for one thread.

    ``deadline`` (monotonic seconds) ends whatever is under way, also a server that sends a byte now and then: set it
    before a request, and on while its body comes.
    """

    def __init__(self, resolve: Resolve, connect_seconds: float, read_seconds: float) -> None:
        self.deadline = float("inf")
        self._timeout = {"connect": connect_seconds, "read": read_seconds, "write": read_seconds}
        self._pool = httpcore.ConnectionPool(
            ssl_context=_trust(), network_backend=_Checked(resolve, self), keepalive_expiry=_KEEP_SECONDS
        )

    @contextmanager
    def request(
        self, method: str, url: Url, headers: Mapping[str, str], body: bytes | None = None
    ) -> Iterator[Response]:
        """Send a request; the body of its answer can be read inside the ``with``. Raises MediaError or BROKEN."""
        headers = {"Host": url.host_and_port, "User-Agent": f"tam-backend/{__version__}", "Accept": "*/*", **headers}
        where = httpcore.URL(
            scheme=url.scheme.encode(), host=url.host.encode(), port=url.port, target=url.target.encode()
        )
        with self._pool.stream(
            method, where, headers=list(headers.items()), content=body, extensions={"timeout": self._timeout}
        ) as answer:
            names = {k.decode("latin-1").lower(): v.decode("latin-1").strip() for k, v in answer.headers}
            yield Response(answer.status, names, answer.iter_stream())

    def close(self) -> None:
        self._pool.close()

    def left(self, timeout: float | None) -> float:
        """Seconds that one step may take. Raises httpcore.ReadTimeout when the time is up."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout("the time is up")
        return left if timeout is None else min(left, timeout)


def server_time(headers: Mapping[str, str]) -> float | None:
    """Unix time by the clock of the server that answered with these headers; None if it does not say."""
    try:
        return parsedate_to_datetime(headers["date"]).timestamp()
    except (KeyError, ValueError):
        return None


def ask_label_studio(
    method: str,
    url: str,
    headers: Mapping[str, str],
    timeout: tuple[float, float],
    content: bytes | None = None,
) -> tuple[int, Mapping[str, str], bytes]:
    """One call of Label Studio's API: (status, headers with names in lower case, body).

    timeout: (to connect, between two pieces of the answer) seconds. Raises LabelStudioError if there is no answer.
    """
    connect_seconds, read_seconds = timeout
    transport = Transport(resolve_label_studio, connect_seconds, read_seconds)
    transport.deadline = time.monotonic() + 2 * (connect_seconds + read_seconds)
    try:
        parsed = parse_url(url)
        with transport.request(method, parsed, {"Accept-Encoding": "identity", **headers}, content) as response:
            body = bytearray()
            for piece in response.body:
                body += piece
                if len(body) > _MAX_ANSWER:
                    raise LabelStudioError(f"Label Studio's answer to {method} {parsed.shown} is too long to be one")
            return response.status, response.headers, bytes(body)
    except BROKEN as e:
        base = f"{parsed.scheme}://{parsed.host_and_port}"
        # One answer that takes too long says nothing about the others.
        kind = LabelStudioError if isinstance(e, httpcore.ReadTimeout) else Unreachable
        raise kind(f"Label Studio at {base} does not answer: {why_broken(e)}") from e
    except MediaError as e:
        raise LabelStudioError(f"Label Studio cannot be reached: {e}") from e
    finally:
        transport.close()


def why_broken(error: Exception) -> str:
    """What one of BROKEN means, for people."""
    if isinstance(error.__cause__, ssl.SSLCertVerificationError):
        return (
            f"its certificate is not trusted ({error.__cause__.verify_message}); SSL_CERT_FILE can name a file with "
            "that of your own authority"
        )
    for kind, text in _MEANINGS.items():
        if isinstance(error, kind):
            return text
    return "the connection broke"


@functools.cache
def _trust() -> ssl.SSLContext:
    context = ssl.create_default_context()  # the system's, and what SSL_CERT_FILE names
    context.load_verify_locations(certifi.where())
    return context


class _Checked(httpcore.NetworkBackend):
    """Connects to checked addresses only. TLS and the Host header keep the name."""

    def __init__(self, resolve: Resolve, transport: Transport) -> None:
        self._resolve = resolve
        self._transport = transport
        self._plain = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        failure: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in self._resolve(host, port):
            try:
                left = self._transport.left(timeout)
                return _Timed(
                    self._plain.connect_tcp(str(address), port, left, local_address, socket_options), self._transport
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as e:
                failure = e
        raise failure


class _Timed(httpcore.NetworkStream):
    """A stream whose every step ends by the deadline of its transport."""

    def __init__(self, stream: httpcore.NetworkStream, transport: Transport) -> None:
        self._stream = stream
        self._transport = transport

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._transport.left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._transport.left(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left = self._transport.left(timeout)
        return _Timed(self._stream.start_tls(ssl_context, server_hostname, left), self._transport)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
