"""Who may call: HTTP basic auth and a secret path, both optional, before any of a request's body is read."""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from flask import Flask, Response, jsonify, request
from werkzeug.exceptions import NotFound

from tam_backend.settings import Settings

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

log = logging.getLogger(__name__)

#: At most one line about refused requests in this time.
LOG_SECONDS = 60.0
#: Where in a request's environment its refusal is noted: 401 or 404.
_REFUSED = "tam.refused"


class Guard:
    """Lets through to an application what the settings allow.

    Frames need nothing here: browsers cannot give credentials for them, so their addresses are signed. With a secret
    path all else lives below it and is not found anywhere else. With basic auth all else needs the credentials too,
    but for webhooks below the secret path: Label Studio sends those without credentials.
    """

    def __init__(self, app: Flask, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._app = app.wsgi_app
        self._path = _digest(settings.secret_path.encode()) if settings.secret_path else b""
        credentials = f"{settings.basic_auth_user}:{settings.basic_auth_password}"
        self._credentials = _digest(credentials.encode()) if settings.basic_auth_user else b""
        self._refusals = _Refusals(clock)
        app.wsgi_app = self  # type: ignore[method-assign]
        app.before_request(_refuse)
        if self._credentials and not self._path:
            log.warning(
                "Label Studio's webhooks come without user name and password and will be refused, so uploads get their "
                "frames only when they are opened: set TAM_SECRET_PATH too (docs/deploy.md)"
            )

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path.startswith("/frames/"):
            return self._app(environ, start_response)
        if self._path:
            first, _, rest = path.removeprefix("/").partition("/")
            if not hmac.compare_digest(_digest(first.encode("latin-1", "replace")), self._path):
                self._refusals.note(environ, "its address does not begin with TAM_SECRET_PATH")
                return self._app({**environ, _REFUSED: 404}, start_response)
            path = "/" + rest
            # Not into SCRIPT_NAME, where a mounted application's path belongs: addresses made from that are shown.
            environ = {**environ, "PATH_INFO": path}
        webhook = bool(self._path) and path == "/webhook"
        if self._credentials and not webhook and not self._known(environ.get("HTTP_AUTHORIZATION", "")):
            self._refusals.note(environ, "user name and password are wrong or missing")
            return self._app({**environ, _REFUSED: 401}, start_response)
        return self._app(environ, start_response)

    def _known(self, header: str) -> bool:
        scheme, _, encoded = header.partition(" ")
        try:
            given = base64.b64decode(encoded.strip(), validate=True)
        except ValueError:
            given = b""
        return scheme.lower() == "basic" and hmac.compare_digest(_digest(given), self._credentials)


class _Refusals:
    """Tells of refused requests, but not of each. Neither address nor headers: they may hold a secret mistyped."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._quiet_until = clock()
        self._unsaid = 0
        self._lock = threading.Lock()

    def note(self, environ: WSGIEnvironment, why: str) -> None:
        with self._lock:
            if self._clock() < self._quiet_until:
                self._unsaid += 1
                return
            unsaid, self._unsaid = self._unsaid, 0
            self._quiet_until = self._clock() + LOG_SECONDS
        more = f" ({unsaid} more since the last such line)" if unsaid else ""
        log.warning("refused a request from %s: %s%s", environ.get("REMOTE_ADDR", "?"), why, more)


def _digest(secret: bytes) -> bytes:
    """Digests are compared in place of secrets, so that not even the length of one shows in the time it takes."""
    return hashlib.sha256(secret).digest()


def _refuse() -> Response | None:
    """Before a request is handled. The application makes the answer, so that a 404 looks like all others of its."""
    refused = request.environ.get(_REFUSED)
    if refused == 404:
        raise NotFound
    if refused == 401:
        response = jsonify(error="user name and password (HTTP basic auth) are wrong or missing")
        response.status_code = 401
        response.headers["WWW-Authenticate"] = 'Basic realm="track anything"'
        return response
    return None
