"""A Label Studio over HTTP on loopback, as far as the commands for teams use it; it vanishes when it is told to.

What it answers was seen on 1.23.2.
"""

from __future__ import annotations

import base64
import contextlib
import email.parser
import email.policy
import json
import re
import socket
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Json = dict[str, Any]

LEGACY = "0123456789abcdef0123456789abcdef01234567"


def _jwt(**claims: object) -> str:
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in ({}, claims)]
    return ".".join([*parts, "c2lnbmF0dXJl"])


PERSONAL = _jwt(token_type="refresh", exp=8106732277, iat=1764532277, user_id=1)


class StandIn:
    """projects, tasks (with annotations, drafts, predictions), uploads (file name -> content), by id.

    answers: how many more requests are answered before it vanishes, None for ever. ``seconds_away`` after that it comes
    back; None: it stays away. carried: what was asked when it vanished is carried out, and only the answer lost.
    busy: statuses of the next answers, as of a proxy before it. backend_works, webhooks_work: whether a backend can be
    connected, and a webhook made. on_task: what the backend does with a new task.
    """

    def __init__(self) -> None:
        self.projects: dict[int, Json] = {}
        self.tasks: dict[int, Json] = {}
        self.backends: dict[int, Json] = {}
        self.storages: list[Json] = []
        self.uploads: dict[str, bytes] = {}
        self.upload_ids: dict[int, tuple[int, str]] = {}
        self.requests: list[tuple[str, str]] = []
        self.answers: int | None = None
        self.seconds_away: float | None = None
        self.carried = False
        self.busy: list[int] = []
        self.backend_works = True
        self.webhooks: list[Json] = []
        self.webhooks_work = True
        self.legacy_tokens = True
        self.on_task: Callable[[Json], None] = lambda task: None
        self.access_given = 0
        self._gone_at = 0.0
        self._lock = threading.RLock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    # ---- what tests put in

    def add_project(self, title: str = "Trial", label_config: str = "<View/>", **fields: Any) -> Json:
        project = {"id": len(self.projects) + 1, "title": title, "label_config": label_config, "model_version": ""}
        self.projects[project["id"]] = project | fields
        return self.projects[project["id"]]

    def add_task(self, project: int, data: Json, **fields: Any) -> Json:
        task = {
            "id": max(self.tasks, default=0) + 1, "project": project, "data": data, "annotations": [], "drafts": [],
            "predictions": [], "created_at": _now(), "updated_at": _now(),
        }  # fmt: skip
        self.tasks[task["id"]] = task = task | fields
        self.on_task(task)
        return task

    def tasks_of(self, project: int) -> list[Json]:
        return [t for t in self.tasks.values() if t["project"] == project]

    def asked(self, method: str, pattern: str) -> list[str]:
        """The paths of requests of a kind, so far."""
        return [path for m, path in self.requests if m == method and re.search(pattern, path)]

    # ---- answering

    def away(self) -> bool:
        """Whether the next request finds nobody."""
        with self._lock:
            if self.answers is None:
                return False
            if self.answers > 0:
                self.answers -= 1
                return False
            self._gone_at = self._gone_at or time.monotonic()
            if self.seconds_away is not None and time.monotonic() - self._gone_at >= self.seconds_away:
                self.answers = None
                return False
            return True

    def allowed(self, authorization: str | None) -> bool:
        kind, _, token = (authorization or "").partition(" ")
        return token == LEGACY if kind == "Token" else kind == "Bearer" and token == f"access-{self.access_given}"

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: Any) -> tuple[int, Any]:
        parts = path.strip("/").split("/")
        match [method, *parts]:
            case ["GET", "api", "current-user", "whoami"]:
                return 200, {"id": 1, "email": "lead@example.test"}
            case ["GET", "api", "projects"]:
                return 200, self._page([*self.projects.values()][::-1], query)
            case ["POST", "api", "projects"]:
                return 201, self.add_project(**body)
            case [_, "api", "projects", number, *rest]:
                project = self.projects.get(int(number))
                if project is None:
                    return 404, {"detail": "No Project matches the given query.", "status_code": 404}
                return self._project(method, project, rest, query, body)
            case ["GET", "api", "ml"]:
                return 200, [b for b in self.backends.values() if str(b["project"]) == query["project"][0]]
            case ["POST", "api", "ml"]:
                if not self.backend_works:
                    reason = {"non_field_errors": [f"Can't connect to ML backend {body['url']}"]}
                    return 400, {"detail": "Validation error", "validation_errors": reason}
                backend = {"id": len(self.backends) + 1, "state": "CO", **body}
                self.backends[backend["id"]] = backend
                self.projects[body["project"]]["model_version"] = "tam-test"
                return 201, backend
            case ["PATCH", "api", "ml", number]:
                self.backends[int(number)] |= body
                return 200, self.backends[int(number)]
            case ["GET", "api", "webhooks"]:
                return 200, [h for h in self.webhooks if str(h["project"]) == query["project"][0]]
            case ["POST", "api", "webhooks"]:
                if not self.webhooks_work:
                    return 400, {"detail": "Validation error", "validation_errors": {"url": ["Enter a valid URL."]}}
                self.webhooks.append(body)
                return 201, body
            case ["GET", "api", "jwt", "settings"]:
                return 200, {"legacy_api_tokens_enabled": self.legacy_tokens, "api_tokens_enabled": True}
            case ["GET", "api", "tasks"]:
                return 200, self._tasks(query)
            case [_, "api", "tasks", number, *rest]:
                task = self.tasks.get(int(number))
                return self._task(method, task, rest, body) if task else (404, {"detail": "no such task"})
            case ["GET", "api", "predictions"]:
                return 200, self.tasks[int(query["task"][0])]["predictions"]
            case ["POST", "api", "predictions"]:
                prediction = {"id": 500 + self._count("predictions"), **body}
                self.tasks[body["task"]]["predictions"].append(prediction)
                return 201, prediction
            case ["PATCH", "api", "predictions", number]:
                found = (p for t in self.tasks.values() for p in t["predictions"] if p["id"] == int(number))
                prediction = next(found)
                prediction |= body
                return 200, prediction
            case ["GET", "api", "storages", "localfiles"]:
                return 200, [s for s in self.storages if str(s["project"]) == query["project"][0]]
            case ["POST", "api", "storages", "localfiles"]:
                self.storages.append({"id": len(self.storages) + 1, **body})
                return 201, self.storages[-1]
        return 404, {"detail": "Not found."}

    def _project(
        self, method: str, project: Json, rest: list[str], query: dict[str, list[str]], body: Any
    ) -> tuple[int, Any]:
        number = project["id"]
        match [method, *rest]:
            case ["GET"]:
                return 200, project | {"task_number": len(self.tasks_of(number))}
            case ["PATCH"]:
                project.update(body)
                return 200, project
            case ["GET", "file-uploads"]:
                assert query.get("all") == ["true"]
                files = [(i, name) for i, (of, name) in self.upload_ids.items() if of == number]
                return 200, [{"id": i, "file": f"upload/{number}/{name}"} for i, name in files]
            case ["POST", "import"] if isinstance(body, dict):
                ids = []
                for name, content in body.items():
                    if name.rpartition(".")[2].lower() not in ("mp4", "webm", "jpg", "jpeg", "png"):
                        return 400, {"detail": "Validation error", "validation_errors": {"non_field_errors": [name]}}
                    stored = f"{len(self.uploads):08x}-{name}"
                    self.uploads[stored] = content
                    ids.append(len(self.upload_ids) + 1)
                    self.upload_ids[ids[-1]] = number, stored
                return 201, {"task_count": 0, "file_upload_ids": ids}
            case ["POST", "import"]:
                for entry in body:
                    data = entry.get("data", entry)
                    extra = {k: entry[k] for k in ("annotations", "predictions") if k in entry and "data" in entry}
                    self.add_task(number, data, **extra)
                return 201, {"task_count": len(body)}
        return 404, {"detail": "Not found."}

    def _task(self, method: str, task: Json, rest: list[str], body: Any) -> tuple[int, Any]:
        match [method, *rest]:
            case ["GET"]:
                return 200, task
            case ["PATCH"]:
                task.update(body)
                return 200, task
            case ["GET", "annotations" | "drafts" as kind]:
                return 200, task[kind]
            case ["POST", "annotations"]:
                annotation = {
                    "id": 900 + self._count("annotations"),
                    "created_at": _now(),
                    "updated_at": _now(),
                    **body,
                }
                task["annotations"].append(annotation)
                return 201, annotation
        return 404, {"detail": "Not found."}

    def _count(self, kind: str) -> int:
        return sum(len(t[kind]) for t in self.tasks.values())

    def _tasks(self, query: dict[str, list[str]]) -> Json:
        found = self.tasks_of(int(query["project"][0]))
        for item in json.loads(query.get("query", ["{}"])[0]).get("filters", {}).get("items", []):
            name = item["filter"].removeprefix("filter:tasks:")
            key = name.removeprefix("data.")
            found = [t for t in found if (t if name == key else t["data"]).get(key) == item["value"]]
        heavy = query.get("fields") == ["all"]
        kept = found if heavy else [{k: v for k, v in t.items() if k not in ("annotations", "drafts")} for t in found]
        page = self._page(kept, query)
        return {"tasks": page["results"], "total": len(found)}

    @staticmethod
    def _page(items: list[Json], query: dict[str, list[str]]) -> Json:
        page, size = int(query.get("page", ["1"])[0]), int(query.get("page_size", ["30"])[0])
        return {
            "results": items[(page - 1) * size : page * size], "count": len(items),
            "next": "more" if page * size < len(items) else None,
        }  # fmt: skip

    def _handler(standin) -> type[BaseHTTPRequestHandler]:  # noqa: N805 (self is the handler's, below)
        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args: object) -> None:
                pass

            def _send(self, code: int, body: object) -> None:
                raw = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(code)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def _vanish(self) -> None:
                with contextlib.suppress(OSError):
                    self.connection.shutdown(socket.SHUT_RDWR)

            def _handle(self) -> None:
                raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                parts = urlsplit(self.path)
                gone = standin.away()
                if gone and not (standin.carried and self.command != "GET"):
                    return self._vanish()
                with standin._lock:
                    code, answer = self._answer(parts.path, parse_qs(parts.query), raw)
                if gone:
                    return self._vanish()
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    self._send(code, answer)
                return None

            def _answer(self, path: str, query: dict[str, list[str]], raw: bytes) -> tuple[int, object]:
                standin.requests.append((self.command, self.path))
                if standin.busy:
                    return standin.busy.pop(0), b"<html>Bad Gateway</html>"
                if path == "/api/token/refresh/":
                    if json.loads(raw) != {"refresh": PERSONAL}:
                        return 401, {"detail": "Token is invalid", "code": "token_not_valid"}
                    standin.access_given += 1
                    return 200, {"access": f"access-{standin.access_given}"}
                if not standin.allowed(self.headers["Authorization"]):
                    return 401, {"detail": "Invalid token."}
                if path.startswith("/data/upload/"):
                    content = standin.uploads.get(path.rpartition("/")[2])
                    return (200, content) if content is not None else (404, {"detail": "no such file"})
                kind = self.headers.get("Content-Type") or ""
                body = _files(kind, raw) if kind.startswith("multipart/") else json.loads(raw) if raw else None
                return standin.answer(self.command, path, query, body)

            do_GET = do_POST = do_PATCH = do_DELETE = _handle  # noqa: N815

        return Handler


def _files(kind: str, raw: bytes) -> dict[str, bytes]:
    """File name -> content of a form, of fields with one name the last alone, as Label Studio reads it."""
    head = f"Content-Type: {kind}\r\n\r\n".encode()
    form = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + raw)
    fields = {p.get_param("name", header="content-disposition"): p for p in form.iter_parts()}
    return {str(p.get_filename()): p.get_payload(decode=True) for p in fields.values()}


def _now() -> str:
    return datetime.now(UTC).isoformat()
