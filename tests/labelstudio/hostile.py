"""A web server on loopback that does what servers should not do, as told, and notes what it was asked."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Seen:
    """A request. headers: names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def token(self) -> str | None:
        return self.headers.get("authorization")


@dataclass
class File:
    """How one path answers.

    cuts: after how many bytes of the body the first answers break off. statuses: what the first answers are instead.
    ranges: whether Range is honoured. length: whether the whole is sent with its length. pause: seconds before each
    ``piece`` bytes. extra: more headers.
    """

    content: bytes
    cuts: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    ranges: bool = True
    length: bool = True
    etag: str = ""
    modified: str = ""
    pause: float = 0.0
    piece: int = 1 << 16
    extra: dict[str, str] = field(default_factory=dict)

    def __call__(self, handler: Handler) -> None:
        if self.statuses:
            handler.answer(self.statuses.pop(0))
            return
        start, status = 0, 200
        asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", "")) if self.ranges else None
        same = handler.headers.get("If-Range", self.etag or self.modified) in (self.etag, self.modified)
        headers = {"ETag": self.etag, "Last-Modified": self.modified} | self.extra
        if asked and same:
            start, status = int(asked[1]), 206
            if start >= len(self.content):
                handler.answer(416, {"Content-Range": f"bytes */{len(self.content)}"})
                return
            headers["Content-Range"] = f"bytes {start}-{len(self.content) - 1}/{len(self.content)}"
        body = self.content[start:]
        if self.length or status == 206:
            headers["Content-Length"] = str(len(body))
        handler.begin(status, headers)
        cut = self.cuts.pop(0) if self.cuts else len(body)
        for at in range(0, min(cut, len(body)), self.piece):
            time.sleep(self.pause)
            handler.wfile.write(body[at : min(at + self.piece, cut)])
        if cut < len(body):
            handler.cut()


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *args: object) -> None:
        pass

    def begin(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if value:
                self.send_header(name, value)
        self.end_headers()

    def answer(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
        self.begin(status, {"Content-Length": str(len(body))} | (headers or {}))
        self.wfile.write(body)

    def raw(self, data: bytes) -> None:
        self.wfile.write(data)
        self.cut()

    def cut(self) -> None:
        self.wfile.flush()
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {k.lower(): v for k, v in self.headers.items()}
        self.server.seen.append(Seen(self.command, self.path, headers, body))
        self.body = body
        answer = self.server.answers.get(self.path) or self.server.answers.get(self.path.partition("?")[0])
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            if answer is None:
                self.answer(404)
            else:
                answer(self)

    do_GET = do_POST = do_PATCH = _handle  # noqa: N815


class Server(ThreadingHTTPServer):
    """answers: path (with its query, or without any) -> what answers there."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, Callable[[Handler], None]] = {}
        self.seen: list[Seen] = []
        self.port = self.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def tokens(self) -> list[str | None]:
        return [s.token for s in self.seen]

    def close(self) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join()


def redirect(location: str, status: int = 302) -> Callable[[Handler], None]:
    return lambda handler: handler.answer(status, {"Location": location})
