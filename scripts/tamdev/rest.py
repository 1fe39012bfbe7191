"""Label Studio's REST interface, as far as the sample project and the browser tests need it."""

from __future__ import annotations

import json
import secrets
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tamdev import DevError

#: Programs on this machine are called directly, whatever proxy is set.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def answers(url: str, headers: dict[str, str] | None = None, timeout: float = 5.0) -> bool:
    """Whether a GET of ``url`` succeeds."""
    try:
        with _opener.open(urllib.request.Request(url, headers=headers or {}), timeout=timeout) as response:
            response.read()
    except OSError:
        return False
    return True


class LabelStudio:
    """A Label Studio server, with the legacy token of a user."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self.headers = {"Authorization": f"Token {token}"}

    def ready(self) -> bool:
        return answers(f"{self.url}/api/projects", self.headers)

    def get(self, path: str, **query: object) -> Any:
        return self._call("GET", path + (f"?{urlencode(query)}" if query else ""))

    def post(self, path: str, body: object) -> Any:
        return self._call("POST", path, json.dumps(body).encode(), "application/json")

    def patch(self, path: str, body: object) -> Any:
        return self._call("PATCH", path, json.dumps(body).encode(), "application/json")

    def upload(self, project: int, file: Path) -> None:
        """Import a file into a project, as dropping it on the page does."""
        boundary = secrets.token_hex(16)
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{file.name}"\r\n\r\n'
        body = head.encode() + file.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
        self._call("POST", f"/api/projects/{project}/import", body, f"multipart/form-data; boundary={boundary}")

    def tasks(self, project: int) -> list[dict[str, Any]]:
        """The first 100 tasks of a project, oldest first, with all fields."""
        answer = self.get("/api/tasks", project=project, fields="all", page_size=100)
        return sorted(answer["tasks"], key=lambda task: task["id"])

    def projects(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        page = 1
        while True:
            answer = self.get("/api/projects", page=page, page_size=100)
            found += answer["results"]
            if not answer["next"]:
                return found
            page += 1

    def create_project(self, title: str, label_config: str, **settings: object) -> int:
        return int(self.post("/api/projects", {"title": title, "label_config": label_config, **settings})["id"])

    def delete_project(self, project: int) -> None:
        self._call("DELETE", f"/api/projects/{project}")

    def connect_backend(self, project: int, url: str) -> None:
        """Connect an ML backend for smart clicks. Raises DevError when Label Studio cannot use it."""
        made = self.post("/api/ml", {"project": project, "url": url, "title": "Track anything", "is_interactive": True})
        if made["state"] != "CO":
            raise DevError(f"Label Studio could not connect to {url}: {made.get('error_message') or made['state']}")

    def _call(self, method: str, path: str, body: bytes | None = None, content_type: str = "") -> Any:
        headers = {**self.headers, **({"Content-Type": content_type} if content_type else {})}
        request = urllib.request.Request(self.url + path, body, headers, method=method)
        try:
            with _opener.open(request, timeout=60) as response:
                text = response.read()
        except urllib.error.HTTPError as e:
            detail = e.read().decode(errors="replace")[:1000]
            raise DevError(f"Label Studio refused {method} {path} ({e.code}): {detail}") from e
        except OSError as e:
            raise DevError(f"Label Studio does not answer {method} {path}: {e}") from e
        return json.loads(text) if text else None
