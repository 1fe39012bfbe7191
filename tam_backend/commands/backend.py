"""How commands talk to a running backend, ``tam serve``."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ParamSpec, TypeVar
from urllib.parse import urlsplit
from uuid import uuid4

from tam_backend.errors import BadInput, MediaError, TamError
from tam_backend.labelstudio.addresses import parse_url, resolve_label_studio
from tam_backend.labelstudio.transport import BROKEN, Response, Transport, why_broken
from tam_backend.settings import Settings

#: (to connect, between two pieces of an answer) seconds.
_TIMEOUT = (5.0, 60.0)
#: Seconds between two attempts to reach it.
_PAUSE = 1.0

P = ParamSpec("P")
T = TypeVar("T")

Json = dict[str, Any]


class Away(TamError):
    """Nobody answers there, now."""


def basic_auth() -> dict[str, str]:
    """The header with what TAM_BASIC_AUTH_USER and TAM_BASIC_AUTH_PASSWORD say; none if they are not set."""
    settings = Settings.from_env({k: v for k, v in os.environ.items() if k.startswith("TAM_BASIC_AUTH")})
    if not settings.basic_auth_user:
        return {}
    pair = f"{settings.basic_auth_user}:{settings.basic_auth_password}".encode()
    return {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}


def shown(url: str) -> str:
    """An address without its path, which may be a secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


class Backend:
    """A backend that the user named. Raises Away where it does not answer, TamError for what it refuses, BadInput where
    what was asked cannot be done."""

    def __init__(self, url: str) -> None:
        """url: as in Settings > Model, with the secret path. Raises BadInput if it is no address."""
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc:
            raise BadInput(f"--backend {url!r} is not an address such as http://localhost:9090")
        self.shown = shown(url)
        self._url = url.rstrip("/")

    def ask(self, method: str, path: str, body: Json | None = None) -> Json:
        """One call, answered in JSON."""
        content = None if body is None else json.dumps(body).encode()
        with self._request(method, path, content) as answer:
            text = b"".join(answer.body)
            status = answer.status
        try:
            fields = json.loads(text)
            if not isinstance(fields, dict):
                raise ValueError
        except ValueError:
            fields = {}
        if status in (502, 503, 504) and "error" not in fields:
            raise Away(f"the backend at {self.shown} answers {status}")
        if status >= 400:
            raise self._refusal(status, str(fields.get("error", "")))
        if not fields:
            raise TamError(f"{self.shown} does not answer as tam serve does")
        return fields

    def fetch(self, path: str, target: Path) -> None:
        """Download to a file, which exists afterwards whole or not at all."""
        partial = target.with_name(f".{target.name}.{uuid4().hex[:8]}.part")
        try:
            with self._request("GET", path, None) as answer, partial.open("wb") as file:
                if answer.status != 200:
                    raise self._refusal(answer.status, "")
                count = 0
                for piece in answer.body:
                    count += file.write(piece)
                if count != int(answer.headers.get("content-length", count)):
                    raise Away(f"the backend at {self.shown} broke off")
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)

    def _refusal(self, status: int, error: str) -> TamError:
        if status == 401:
            return TamError(f"the backend at {self.shown} wants TAM_BASIC_AUTH_USER and TAM_BASIC_AUTH_PASSWORD")
        if status == 404 and not error.startswith("there is no such"):
            return BadInput(
                f"{self.shown} knows no such address: --backend must be as in Settings > Model, with the secret path, "
                "and the backend of this version or a newer one"
            )
        if status == 400:
            return BadInput(f"the backend says: {error}")
        return TamError(f"the backend at {self.shown} answers {status}: {error or 'no reason given'}")

    @contextlib.contextmanager
    def _request(self, method: str, path: str, content: bytes | None) -> Iterator[Response]:
        transport = Transport(resolve_label_studio, *_TIMEOUT)
        try:
            headers = {"Accept-Encoding": "identity", "Content-Type": "application/json", **basic_auth()}
            with transport.request(method, parse_url(self._url + path), headers, content) as answer:
                yield answer
        except BROKEN as e:
            raise Away(f"the backend at {self.shown} does not answer: {why_broken(e)}") from e
        except MediaError as e:
            raise TamError(f"the backend cannot be reached: {e}") from e
        finally:
            transport.close()


class Patient:
    """Calls again while the backend is away, for so many seconds: ``Patient(30)(backend.ask, "GET", "/health")``."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __call__(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        deadline = time.monotonic() + self._seconds
        while True:
            try:
                return function(*arguments, **named)
            except Away:
                if time.monotonic() + _PAUSE > deadline:
                    raise
                time.sleep(_PAUSE)
