"""Which Label Studio we talk to, and with what token."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from tam_backend.errors import LabelStudioError, MediaError, NotFound, Unreachable
from tam_backend.labelstudio.addresses import origin_of, parse_url
from tam_backend.labelstudio.tokens import Credentials, is_usable
from tam_backend.labelstudio.transport import ask_label_studio, server_time
from tam_backend.settings import Settings

log = logging.getLogger(__name__)

#: (connect, read) seconds for calls to Label Studio's API.
TIMEOUT = (5.0, 60.0)
#: Tokens of one Label Studio that are remembered. Each project sends that of the person who created it.
_MAX_TOKENS = 4
_MAX_COMPLAINTS = 20
#: For tasks with cloud URIs as they were imported, not as addresses for the page of one task: we write data back.
AS_IMPORTED = {"resolve_uri": "false"}


@dataclass(frozen=True, slots=True)
class Connection:
    """A Label Studio: address without a trailing slash, and the token for it ("" if there is none)."""

    url: str
    token: str = field(repr=False)
    credentials: Credentials = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "credentials", Credentials(self.url, self.token))

    def owns(self, url: str) -> bool:
        """Whether an absolute URL is on this Label Studio: same scheme, host and port."""
        return (origin := origin_of(url)) is not None and origin == origin_of(self.url)


class Connections:
    """Remembers the Label Studio that connected. There is one at a time.

    If the settings name it, that is the one. Otherwise the first that connects is it, with the tokens that came with
    its own address; another may take its place until one of those tokens has worked, so that a wrong address can be
    put right, and none after that, so that nobody who reaches this server can put himself in its place. A restart
    forgets it.
    """

    def __init__(self, settings: Settings) -> None:
        self._fixed = settings.label_studio_url
        self._configured = Connection(self._fixed, settings.label_studio_token) if self._fixed else None
        self._known: list[Connection] = []
        self._complaints: set[str] = set()
        self._lock = threading.Lock()

    def remember(self, hostname: str | None, token: str | None) -> None:
        """Note what a /setup request said."""
        if not hostname or not _is_base(hostname):
            return
        url, token = hostname.strip().rstrip("/"), token or ""
        if token and not is_usable(token):
            token = ""
        with self._lock:
            if self._fixed:
                if origin_of(url) != origin_of(self._fixed):
                    needs = "" if self._configured and self._configured.token else " Set TAM_LABEL_STUDIO_TOKEN too."
                    self._complain(url, f"TAM_LABEL_STUDIO_URL names {self._fixed}.{needs}")
                    return
                url = self._fixed
            elif self._known and self._known[0].url != url:
                if any(c.credentials.confirmed for c in self._known):
                    self._complain(
                        url,
                        f"this server works for {self._known[0].url}. If that is wrong, set TAM_LABEL_STUDIO_URL, or "
                        "restart this server",
                    )
                    return
                log.info("Label Studio is now %s, in place of %s", url, self._known[0].url)
                self._known.clear()
            self._add(Connection(url, token))

    def current(self) -> Connection | None:
        """The Label Studio to use, None before one is known. Of its tokens one that works, else the latest."""
        if self._configured and self._configured.token:
            return self._configured
        with self._lock:
            best = max(enumerate(self._known), key=lambda item: _rank(*item), default=None)
        return best[1] if best else self._configured

    def get(self, url: str) -> Connection:
        """The Label Studio at an address that was current once. Raises LabelStudioError if it is not the current one
        now: whoever named it first may have been anybody."""
        current = self.current()
        if current is None:
            raise LabelStudioError(
                f"Label Studio at {url} has not connected since this server started: open the project's list of tasks "
                "once, or set TAM_LABEL_STUDIO_URL"
            )
        if not current.owns(url):
            raise LabelStudioError(
                f"this belongs to Label Studio at {url}, but this server works for {current.url}. If both are the "
                "same, clear the task's list of frames and open it again"
            )
        return current

    def _add(self, connection: Connection) -> None:
        if connection in self._known or (self._known and not connection.token):
            return
        self._known = [c for c in self._known if c.token]
        if len(self._known) >= _MAX_TOKENS:
            self._known.remove(min(enumerate(self._known), key=lambda item: _rank(*item))[1])
        self._known.append(connection)

    def _complain(self, url: str, why: str) -> None:
        if url not in self._complaints and len(self._complaints) < _MAX_COMPLAINTS:
            self._complaints.add(url)
            log.warning("a project says that its Label Studio is at %s; this is ignored, because %s", url[:200], why)


def _encoded(value: Any) -> bytes:
    return json.dumps(value).encode()


def _decoded(body: bytes) -> Any:
    return json.loads(body) if body else None


def _reason(body: bytes) -> str:
    """What an answer that refuses something says about why."""
    try:
        answer = json.loads(body)
        reasons = answer.get("validation_errors") or answer.get("detail") or answer
    except (ValueError, AttributeError):
        return body[:200].decode(errors="replace")
    if isinstance(reasons, dict):
        reasons = [r for found in reasons.values() for r in (found if isinstance(found, list) else [found])]
    return "; ".join(map(str, reasons if isinstance(reasons, list) else [reasons]))[:400]


def _rank(age: int, connection: Connection) -> tuple[bool, bool, int]:
    credentials = connection.credentials
    return not credentials.refused, credentials.confirmed, age


def _is_base(url: str) -> bool:
    """Whether this is the address of a server to which paths can be appended."""
    try:
        return "?" not in url and "#" not in url and bool(parse_url(url.strip()))
    except MediaError:
        return False


class Client:
    """The few calls to Label Studio's REST API that we need. Every failure is a LabelStudioError."""

    def __init__(self, connection: Connection, timeout: tuple[float, float] = TIMEOUT) -> None:
        self._connection = connection
        self._timeout = timeout
        self._now: float | None = None

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
        return self._now - then.timestamp()

    def task(self, project_id: int, task_id: int) -> dict[str, Any]:
        """One task with its data. Not by its own address: Label Studio answers that only after a call of our /predict,
        which may be waiting for this very answer."""
        task = self.find_task(project_id, task_id)
        if task is not None:
            return task
        raise NotFound(f"Label Studio has no task {task_id} in project {project_id}")

    def drafts(self, task_id: int) -> list[dict[str, Any]]:
        """The drafts of a task, of all people, as they are saved at this moment."""
        return self._call("GET", f"/api/tasks/{task_id}/drafts")

    def whoami(self) -> str:
        """Whose token this is: e-mail address or name."""
        person = self._call("GET", "/api/current-user/whoami")
        return str(person.get("email") or person.get("username") or person.get("id"))

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

    def project_tasks(self, project_id: int) -> Iterator[dict[str, Any]]:
        """All tasks of a project with their data, fetched page by page."""
        return self._tasks({"project": project_id})

    def projects(self) -> Iterator[dict[str, Any]]:
        """All projects that the token's person sees, fetched page by page."""
        return self._pages("/api/projects/", {}, "results", "count")

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
        return list(self._tasks({"project": project_id, "query": query}))

    def _tasks(self, which: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        return self._pages("/api/tasks", {**which, **AS_IMPORTED, "fields": "all"}, "tasks", "total")

    def _pages(self, path: str, which: Mapping[str, Any], items: str, count: str) -> Iterator[dict[str, Any]]:
        """What is on all pages of a list."""
        seen, page = 0, 1
        while True:
            answer = self._call("GET", path, params={**which, "page": page, "page_size": 100})
            yield from answer[items]
            seen += len(answer[items])
            if seen >= answer[count] or not answer[items]:
                return
            page += 1

    def _call(
        self,
        method: str,
        path: str,
        *,
        params: dict[str, Any] | None = None,
        json: Any = None,
        body: bytes | None = None,
        content_type: str = "application/json",
    ) -> Any:
        """One call. A redirect is not followed: the token is for the address that was named, and no other.

        body: of ``content_type``, in place of ``json``.
        """
        url = f"{self._connection.url}{path}" + (f"?{urlencode(params)}" if params else "")
        sent = body if json is None else _encoded(json)
        status, headers, answer = self._send(method, url, sent, content_type)
        if status == 401:
            raise LabelStudioError(self._connection.credentials.refusal())
        if 300 <= status < 400:
            raise LabelStudioError(
                f"Label Studio at {self._connection.url} sends {method} {path} on to "
                f"{headers.get('location', '')[:200]!r}: set TAM_LABEL_STUDIO_URL to the address where it really is"
            )
        self._now = server_time(headers) or self._now
        if status >= 400:
            kinds = {404: NotFound, **dict.fromkeys((502, 503, 504), Unreachable)}
            reason = _reason(answer)
            raise kinds.get(status, LabelStudioError)(f"Label Studio answered {status} to {method} {path}: {reason}")
        try:
            return _decoded(answer)
        except ValueError as e:
            raise LabelStudioError(f"Label Studio's answer to {method} {path} is not JSON") from e

    def _timeout_for(self, content: bytes | None) -> tuple[float, float]:
        """(connect, read) seconds for a call with this body."""
        return self._timeout

    def _send(
        self, method: str, url: str, content: bytes | None, content_type: str
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Send; once more, with new headers, if an access token has ended meanwhile."""
        credentials = self._connection.credentials
        for again in (True, False):
            authorization = credentials.headers()
            kind = {} if content is None else {"Content-Type": content_type}
            timeout = self._timeout_for(content)
            answer = ask_label_studio(method, url, {**authorization, **kind}, timeout, content)
            if not (answer[0] == 401 and again and credentials.renew(authorization)):
                break
        credentials.note(answer[0])
        return answer
