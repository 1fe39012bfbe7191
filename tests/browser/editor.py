"""The browser, from Python: starts js/driver.mjs and calls the methods of its pages."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

_DRIVER = Path(__file__).parent / "js"
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_chromium() -> str:
    """Path of Chromium: the variable CHROMIUM, else what is on the PATH. Raises RuntimeError if there is none."""
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)
    if not found:
        raise RuntimeError("the browser tests need Chromium: install it, or name it in the variable CHROMIUM")
    return found


class Browser:
    """A browser with one page. kind: the class in js/ whose methods are its commands."""

    kind: ClassVar[str]

    def __init__(self, url: str, other_servers: Sequence[str] = ()) -> None:
        if not (_DRIVER / "node_modules" / "playwright-core").is_dir():
            raise RuntimeError(f"playwright-core is not installed: run `npm ci` in {_DRIVER}")
        options = {"kind": self.kind, "url": url, "allowedOrigins": list(other_servers), "executable": find_chromium()}
        self._process = subprocess.Popen(
            ["node", str(_DRIVER / "driver.mjs"), json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._count = 0
        assert self._read() == {"ready": True}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()  # ends the driver, which closes the browser
        self._process.wait(30)
        self._process.stdout.close()

    def call(self, command: str, *arguments: Any) -> Any:
        """Run one command and return its result. Raises AssertionError with the driver's message when it fails."""
        assert self._process.stdin
        self._count += 1
        message = {"id": self._count, "call": command, "args": arguments}
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()
        answer = self._read()
        assert answer["id"] == self._count
        if "error" in answer:
            raise AssertionError(f"{command}{arguments}: {answer['error']}")
        return answer["result"]

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the browser's driver ended with exit code {self._process.wait()}")
        return dict(json.loads(line))


class Editor(Browser):
    """Label Studio at ``url``. Commands, such as ``editor.call("openTask", 1, 2)``, are in js/editor.mjs."""

    kind = "Editor"


class StatusPage(Browser):
    """The page /status of the backend at ``url``. Its commands are in js/status.mjs."""

    kind = "StatusPage"


class FilePage(Browser):
    """An HTML file: ``url`` begins with file://. Its commands are in js/pages.mjs."""

    kind = "FilePage"


class VideoTask(Browser):
    """Label Studio at ``url``, with tasks that show a video. Its commands are in js/pages.mjs."""

    kind = "VideoTask"
