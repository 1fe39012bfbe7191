"""Label Studio as the commands for teams see it: whole projects, patiently, and in pieces that fit into memory.

A command may run for minutes while Label Studio restarts or a proxy hiccups. So calls that can be repeated without
harm are, for a while. What cannot be repeated (creating something) is never sent twice after it may have arrived:
whoever creates looks first what is there, so that running a command again goes on where it stopped.
"""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpcore

from tam_backend.errors import BadInput, LabelStudioError, NotFound
from tam_backend.labelstudio.addresses import origin_of
from tam_backend.labelstudio.connections import AS_IMPORTED, Client, Connection

Json = dict[str, Any]

#: Answers of a server, or of a proxy before it, that will be another one in a while.
_BUSY = frozenset({429, 502, 503, 504})
_NEVER_ARRIVED = (httpcore.ConnectError, httpcore.ConnectTimeout)
#: Repeating these changes nothing more.
_REPEATABLE = frozenset({"GET", "PUT", "PATCH", "DELETE"})
#: (connect, read) seconds. Importing and uploading keep Label Studio busy for a while before it answers.
_TIMEOUT = (5.0, 120.0)
#: Bytes a second.
_SLOWEST_UPLOAD = 200_000
_PAUSES = (0.5, 1.0, 2.0, 4.0)
#: Tasks of one page: with annotations, where each may be megabytes, and without.
_HEAVY_PAGE, _LIGHT_PAGE = 10, 50
_PROJECT_URL = re.compile(r"(?:https?://[^/]+)?(?:/[^?#]*)?/projects/(?P<id>[0-9]+)(?:[/?#].*)?")


class Vanished(LabelStudioError):
    """Label Studio does not answer any more, for longer than we were told to wait."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for a Label Studio that does not answer. sleep: for tests."""

    seconds: float = 30.0
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True, slots=True)
class Upload:
    """A file in a project's uploads. name: as it was given; Label Studio puts letters before it. url: for task data."""

    id: int
    name: str
    url: str


class ProjectClient(Client):
    """Calls of ``Client``, and those about whole projects. Every failure is a LabelStudioError: Vanished if Label
    Studio stays away."""

    def __init__(self, connection: Connection, patience: Patience | None = None) -> None:
        super().__init__(connection, _TIMEOUT)
        self._patience = patience or Patience()

    # ---- projects

    def projects(self) -> Iterator[Json]:
        """All projects that this person may see."""
        page = 1
        while True:
            answer = self._call("GET", "/api/projects", params={"page": page, "page_size": 100})
            yield from answer["results"]
            if not answer.get("next"):
                return
            page += 1

    def projects_called(self, title: str) -> list[Json]:
        """Projects with exactly this title."""
        return [p for p in self.projects() if p.get("title") == title]

    def find_project(self, text: str) -> Json:
        """The project with this id, address or title. Raises BadInput if there is none, or several of the title."""
        match = _PROJECT_URL.fullmatch(text)
        if match and "://" in text and origin_of(text) != origin_of(self.connection.url):
            raise BadInput(f"the project {text} is on another Label Studio than {self.connection.url}")
        number = match["id"] if match else text if text.isdecimal() else ""
        if number:
            try:
                return self.project(int(number))
            except NotFound:
                if match:
                    raise BadInput(f"there is no project {number} on {self.connection.url}") from None
        found = self.projects_called(text)
        if len(found) > 1:
            ids = ", ".join(str(p["id"]) for p in found)
            raise BadInput(f"{len(found)} projects are called {text!r}: say which one by its id ({ids})")
        if not found:
            titles = [f"{p['title']!r} ({p['id']})" for p, _ in zip(self.projects(), range(10), strict=False)]
            known = f"There are {', '.join(titles)}" if titles else "There are no projects yet"
            raise BadInput(f"there is no project {text!r} on {self.connection.url}. {known}")
        return self.project(int(found[0]["id"]))

    def create_project(self, fields: Mapping[str, Any]) -> Json:
        return self._call("POST", "/api/projects", json=dict(fields))

    def change_project(self, project: int, fields: Mapping[str, Any]) -> Json:
        return self._call("PATCH", f"/api/projects/{project}/", json=dict(fields))

    def backends(self, project: int) -> list[Json]:
        """The ML backends that are connected to a project."""
        return self._call("GET", "/api/ml", params={"project": project})

    def connect_backend(self, project: int, fields: Mapping[str, Any]) -> Json:
        """Connect an ML backend. Raises LabelStudioError if Label Studio cannot use it."""
        made = self._call("POST", "/api/ml", json={"project": project, **fields})
        return self._connected(made)

    def change_backend(self, backend: int, fields: Mapping[str, Any]) -> Json:
        return self._connected(self._call("PATCH", f"/api/ml/{backend}", json=dict(fields)))

    def webhooks(self, project: int) -> list[Json]:
        return self._call("GET", "/api/webhooks/", params={"project": project})

    def add_webhook(self, project: int, url: str) -> None:
        """Have all events of a project sent to an address."""
        fields = {"project": project, "url": url, "send_payload": True, "send_for_all_actions": True, "is_active": True}
        self._call("POST", "/api/webhooks/", json=fields)

    def legacy_tokens_enabled(self) -> bool:
        """Whether Label Studio takes the token that it sends along to backends."""
        return bool(self._call("GET", "/api/jwt/settings").get("legacy_api_tokens_enabled"))

    def _connected(self, backend: Json) -> Json:
        if backend.get("state") not in ("CO", None):
            reason = str(backend.get("error_message") or backend.get("state"))[:400]
            raise LabelStudioError(f"Label Studio cannot use the backend at {backend.get('url')}: {reason}")
        return backend

    # ---- tasks

    def tasks(self, project: int, *, whole: bool = False) -> Iterator[Json]:
        """The tasks of a project in the order in which they were made, page by page.

        whole: with annotations, predictions and drafts; else data alone. Tasks that are made or deleted meanwhile may
        be missed, but none comes twice.
        """
        query = json.dumps({"ordering": ["tasks:id"]})
        size = _HEAVY_PAGE if whole else _LIGHT_PAGE
        parameters = {"project": project, "query": query, "page_size": size, **AS_IMPORTED}
        parameters |= {"fields": "all"} if whole else {}
        page, seen = 1, set[int]()
        while True:
            answer = self._call("GET", "/api/tasks", params={**parameters, "page": page})
            new = [task for task in answer["tasks"] if task["id"] not in seen]
            seen.update(task["id"] for task in new)
            yield from new
            if not answer["tasks"] or page * size >= answer["total"]:
                return
            page += 1

    def open_task(self, project: int, task: int) -> Json:
        """A task as the page opens it: a connected backend is asked for predictions first, and may change the task."""
        return self._call("GET", f"/api/tasks/{task}", params={"project": project})

    def any_task(self, task: int) -> Json:
        """A task of whichever project, by its number alone. Raises NotFound."""
        return self._call("GET", f"/api/tasks/{task}", params=AS_IMPORTED)

    def annotations(self, task: int) -> list[Json]:
        """The submitted annotations of a task, of all people, skipped ones included."""
        return self._call("GET", f"/api/tasks/{task}/annotations/")

    def create_annotation(self, task: int, fields: Mapping[str, Any]) -> Json:
        return self._call("POST", f"/api/tasks/{task}/annotations/", json=dict(fields))

    # ---- files

    def uploads(self, project: int) -> list[Upload]:
        """The files that this person uploaded to a project, whether tasks name them or not."""
        files = self._call("GET", f"/api/projects/{project}/file-uploads", params={"all": "true"})
        return [_upload(project, file) for file in files]

    def upload(self, project: int, files: Sequence[tuple[str, bytes]], *, commit: bool = False) -> list[int]:
        """Upload files (name, content) in one request, and return their ids. commit: make a task of each as well.

        Label Studio takes mp4 and webm, and pictures; others are refused.
        """
        boundary = secrets.token_hex(16)
        body = b"".join(
            # a field name of its own for each: of those with one name Label Studio takes the last file alone
            f'--{boundary}\r\nContent-Disposition: form-data; name="file{i}"; filename="{quote(name, safe=" ._-()")}"'
            "\r\nContent-Type: application/octet-stream\r\n\r\n".encode()
            + content
            + b"\r\n"
            for i, (name, content) in enumerate(files)
        )
        answer = self._call(
            "POST",
            f"/api/projects/{project}/import",
            params={"commit_to_project": "true" if commit else "false"},
            body=body + f"--{boundary}--\r\n".encode(),
            content_type=f"multipart/form-data; boundary={boundary}",
        )
        return [int(i) for i in answer.get("file_upload_ids") or []]

    def local_storages(self, project: int) -> list[Json]:
        return self._call("GET", "/api/storages/localfiles", params={"project": project})

    def add_local_storage(self, project: int, path: str, title: str) -> Json:
        """Let a project's tasks name files below ``path``, a folder below Label Studio's document root."""
        fields = {"project": project, "path": path, "title": title, "use_blob_urls": True}
        return self._call("POST", "/api/storages/localfiles", json=fields)

    # ---- patience

    def _timeout_for(self, content: bytes | None) -> tuple[float, float]:
        connect, read = super()._timeout_for(content)
        return connect, max(read, len(content or b"") / _SLOWEST_UPLOAD)

    def _send(
        self, method: str, url: str, content: bytes | None, content_type: str = "application/json"
    ) -> tuple[int, Mapping[str, str], bytes]:
        deadline = time.monotonic() + self._patience.seconds
        for pause in _pauses():
            try:
                answer = super()._send(method, url, content, content_type)
                failure = None
            except LabelStudioError as e:
                failure = e
                if e.__cause__ is None:
                    raise  # it did answer, and refuses us
            repeatable = method in _REPEATABLE or (
                failure is not None and isinstance(failure.__cause__, _NEVER_ARRIVED)
            )
            if failure is None and answer[0] not in _BUSY:
                return answer
            if not repeatable or time.monotonic() + pause > deadline:
                break
            self._patience.sleep(pause)
        if failure is not None:
            raise Vanished(str(failure)) from failure
        if answer[0] != 429:
            raise Vanished(
                f"Label Studio at {self.connection.url} answers {answer[0]}: it, or a proxy before it, is down"
            )
        return answer


def _pauses() -> Iterable[float]:
    yield from _PAUSES
    while True:
        yield _PAUSES[-1]


def _upload(project: int, file: Json) -> Upload:
    path = str(file["file"])
    name = path.rpartition("/")[2]
    stored = f"/data/upload/{project}/{name}"
    return Upload(int(file["id"]), re.sub(r"^[0-9a-f]{8}-", "", name), stored)
