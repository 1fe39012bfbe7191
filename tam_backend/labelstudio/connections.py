"""Which Label Studio we talk to, and with what token."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import requests

from tam_backend.errors import LabelStudioError, NotFound
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
        self._now: datetime | None = None

    @property
    def connection(self) -> Connection:
        return self._connection

    def age(self, moment: object) -> float:
        """Seconds since a moment that Label Studio wrote, by its own clock at the last call; 0 if that is unknown."""
        try:
            then = datetime.fromisoformat(str(moment))
        except ValueError:
            return 0.0
        if self._now is None or then.tzinfo is None:
            return 0.0
        return (self._now - then).total_seconds()

    def task(self, project_id: int, task_id: int) -> dict[str, Any]:
        """One task with its data. Not by its own address: Label Studio answers that only after a call of our /predict,
        which may be waiting for this very answer."""
        task = self.find_task(project_id, task_id)
        if task is not None:
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

    def find_task(self, project_id: int, task_id: int) -> dict[str, Any] | None:
        """One task with its data, annotations and predictions; None if it, or its project, is gone."""
        try:
            found = self._tasks_where(project_id, "filter:tasks:id", "Number", task_id)
        except NotFound:
            return None
        return next((task for task in found if task["id"] == task_id), None)

    def tasks_with(self, project_id: int, key: str, value: str) -> list[dict[str, Any]]:
        """The tasks whose data has a text under a key."""
        found = self._tasks_where(project_id, f"filter:tasks:data.{key}", "String", value)
        return [task for task in found if task["data"].get(key) == value]

    def project(self, project_id: int) -> dict[str, Any]:
        return self._call("GET", f"/api/projects/{project_id}/")

    def replace_draft_result(self, draft_id: int, result: list[dict[str, Any]]) -> dict[str, Any]:
        """Returns the draft as it is then."""
        return self._call("PATCH", f"/api/drafts/{draft_id}/", json={"result": result})

    def predictions(self, task_id: int) -> list[dict[str, Any]]:
        return self._call("GET", "/api/predictions/", params={"task": task_id})

    def create_prediction(self, task_id: int, prediction: dict[str, Any]) -> int:
        """Returns its id."""
        return int(self._call("POST", "/api/predictions/", json={"task": task_id, **prediction})["id"])

    def replace_prediction(self, prediction_id: int, prediction: dict[str, Any]) -> None:
        self._call("PATCH", f"/api/predictions/{prediction_id}/", json=prediction)

    def _tasks_where(self, project_id: int, name: str, kind: str, value: object) -> list[dict[str, Any]]:
        condition = {"filter": name, "operator": "equal", "type": kind, "value": value}
        query = json.dumps({"filters": {"conjunction": "and", "items": [condition]}})
        tasks: list[dict[str, Any]] = []
        page = 1
        while True:
            parameters: dict[str, Any] = {"project": project_id, "fields": "all", "query": query}
            answer = self._call("GET", "/api/tasks", params=parameters | {"page": page, "page_size": 100})
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
        self._note_time(response.headers.get("Date"))
        if not response.ok:
            raise (NotFound if response.status_code == 404 else LabelStudioError)(
                f"Label Studio answered {response.status_code} to {method} {path}: {response.text:.200}"
            )
        try:
            return response.json() if response.content else None
        except requests.JSONDecodeError as e:
            raise LabelStudioError(f"Label Studio's answer to {method} {path} is not JSON") from e

    def _note_time(self, date: str | None) -> None:
        try:
            now = parsedate_to_datetime(date or "")
        except ValueError:
            return
        self._now = now if now.tzinfo else now.replace(tzinfo=UTC)


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
