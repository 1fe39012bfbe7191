"""A file server on loopback that misbehaves as it is told."""

from __future__ import annotations

import contextlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FileServer:
    """Serves ``content`` under every path.

    cuts: after so many bytes of each response the connection breaks; one entry per request, then none.
    length: Content-Length that it claims, in place of the true one. ranges: whether it knows Range.
    statuses: answers for the first requests in place of the file. redirect: send every request there.
    """

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.cuts: list[int] = []
        self.length: int | None = None
        self.ranges = True
        self.shift = 0
        self.statuses: list[int] = []
        self.redirect = ""
        #: (path as it was asked for, Range header) of every request
        self.requests: list[tuple[str, str | None]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(server) -> type[BaseHTTPRequestHandler]:  # noqa: N805 (self is the handler's, below)
        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args: object) -> None:
                pass

            def do_GET(self) -> None:
                self.close_connection = True
                asked = self.headers.get("Range")
                server.requests.append((self.path, asked))
                whole = len(server.content)
                first = int(asked.removeprefix("bytes=").rstrip("-")) if asked and server.ranges else 0
                if server.redirect:
                    self._head(302, {"Location": server.redirect, "Content-Length": "0"})
                elif server.statuses:
                    self._head(server.statuses.pop(0), {"Content-Length": "0"})
                elif first and first >= whole:
                    self._head(416, {"Content-Range": f"bytes */{whole}", "Content-Length": "0"})
                else:
                    self._file(first)

            def _file(self, first: int) -> None:
                body = server.content[first:]
                claimed = server.length if server.length is not None else len(body)
                headers = {"Content-Length": str(claimed)}
                if first:
                    total = first + claimed
                    headers["Content-Range"] = f"bytes {first + server.shift}-{total - 1}/{total}"
                self._head(206 if first else 200, headers)
                end = server.cuts.pop(0) if server.cuts else len(body)
                with contextlib.suppress(ConnectionError):
                    self.wfile.write(body[: min(end, claimed)])
                    self.wfile.flush()

            def _head(self, status: int, headers: dict[str, str]) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()

        return Handler
