"""Which Label Studio we talk to, and with what token."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import requests

from tam_backend.errors import LabelStudioError
from tam_backend.settings import Settings

#: (connect, read) seconds for calls to Label Studio's API.
TIMEOUT = (5, 60)


@dataclass(frozen=True, slots=True)
class Connection:
    """A Label Studio: address without a trailing slash, and the token for it ("" if there is none)."""

    url: str
    token: str

    def owns(self, url: str) -> bool:
        """Whether an absolute URL is on this Label Studio: same scheme, host and port."""
        return _origin(url) == _origin(self.url)

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Token {self.token}"} if self.token else {}


class Connections:
    """Remembers the Label Studios that connected.

    If the settings name a Label Studio, that one is the only one: its address and token are never mixed with what
    requests say. Otherwise an address counts with the token that came with it in the same /setup request.
    """

    def __init__(self, settings: Settings) -> None:
        self._fixed = settings.label_studio_url
        self._fixed_token = settings.label_studio_token
        self._tokens: dict[str, str] = {}
        self._latest = ""
        self._lock = threading.Lock()

    def remember(self, hostname: str | None, token: str | None) -> None:
        """Note what a /setup request said."""
        if not hostname or not _origin(hostname):
            return
        with self._lock:
            url = hostname.rstrip("/")
            if self._fixed and _origin(url) != _origin(self._fixed):
                return
            if token:
                self._tokens[url] = token
            self._latest = url

    def current(self) -> Connection | None:
        """The Label Studio to use for new work, None before one is known."""
        with self._lock:
            url = self._fixed or self._latest
        return self.get(url) if url else None

    def get(self, url: str) -> Connection:
        """The connection to an address that was current once."""
        with self._lock:
            if self._fixed:
                return Connection(self._fixed, self._fixed_token or next(iter(self._tokens.values()), ""))
            return Connection(url, self._tokens.get(url, ""))


class Client:
    """The few calls to Label Studio's REST API that we need. Every failure is a LabelStudioError."""

    def __init__(self, connection: Connection, timeout: tuple[float, float] = TIMEOUT) -> None:
        self._connection = connection
        self._timeout = timeout

    def task(self, project_id: int, task_id: int) -> dict[str, Any]:
        """One task with its data. Not by its own address: Label Studio answers that only after a call of our /predict,
        which may be waiting for this very answer."""
        condition = {"filter": "filter:tasks:id", "operator": "equal", "type": "Number", "value": task_id}
        query = json.dumps({"filters": {"conjunction": "and", "items": [condition]}})
        parameters: dict[str, Any] = {"project": project_id, "fields": "all", "query": query}
        for task in self._call("GET", "/api/tasks", params=parameters)["tasks"]:
            if task["id"] == task_id:
                return task
        raise LabelStudioError(f"Label Studio has no task {task_id} in project {project_id}")

    def drafts(self, task_id: int) -> list[dict[str, Any]]:
        """The drafts of a task, of all people, as they are saved at this moment."""
        return self._call("GET", f"/api/tasks/{task_id}/drafts")

    def annotation(self, annotation_id: int) -> dict[str, Any]:
        return self._call("GET", f"/api/annotations/{annotation_id}/")

    def replace_annotation_result(self, annotation_id: int, result: list[dict[str, Any]]) -> None:
        self._call("PATCH", f"/api/annotations/{annotation_id}/", json={"result": result})

    def replace_task_data(self, task_id: int, data: dict[str, Any]) -> None:
        """Replace the whole ``data`` of a task."""
        self._call("PATCH", f"/api/tasks/{task_id}/", json={"data": data})

    def import_tasks(self, project_id: int, tasks: list[dict[str, Any]]) -> None:
        """Create tasks in one request: all of them or none."""
        self._call("POST", f"/api/projects/{project_id}/import", json=tasks)

    def project_tasks(self, project_id: int) -> list[dict[str, Any]]:
        """All tasks of a project with their data."""
        tasks: list[dict[str, Any]] = []
        page = 1
        while True:
            answer = self._call(
                "GET", "/api/tasks", params={"project": project_id, "page": page, "page_size": 200, "fields": "all"}
            )
            tasks += answer["tasks"]
            if len(tasks) >= answer["total"] or not answer["tasks"]:
                return tasks
            page += 1

    def _call(self, method: str, path: str, **kwargs: Any) -> Any:
        url = self._connection.url + path
        try:
            response = requests.request(
                method, url, headers=self._connection.headers, timeout=self._timeout, allow_redirects=False, **kwargs
            )
        except requests.RequestException as e:
            raise LabelStudioError(
                f"Label Studio at {self._connection.url} does not answer ({type(e).__name__})"
            ) from e
        if response.status_code == 401:
            raise LabelStudioError(
                f"Label Studio at {self._connection.url} refuses the token (401). Legacy tokens are off in new "
                "organisations: switch them on under Organization > Access Token Settings, or set "
                "TAM_LABEL_STUDIO_TOKEN to a token that is valid"
            )
        if not response.ok:
            raise LabelStudioError(
                f"Label Studio answered {response.status_code} to {method} {path}: {response.text:.200}"
            )
        try:
            return response.json() if response.content else None
        except requests.JSONDecodeError as e:
            raise LabelStudioError(f"Label Studio's answer to {method} {path} is not JSON") from e


def _origin(url: str) -> tuple[str, str, int] | None:
    """(scheme, host, port) of an http(s) URL, None for anything else."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return None
    return parts.scheme, parts.hostname.lower(), port or (443 if parts.scheme == "https" else 80)
