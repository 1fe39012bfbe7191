"""`run`: the whole product on this machine. `serve` and `demo`: parts of it."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tamdev import ROOT, RUN_DIR, DevError
from tamdev.environment import BACKEND, LABEL_STUDIO
from tamdev.processes import free_port, stop_on_signals
from tamdev.rest import answers
from tamdev.sample import ANIMAL, ensure_project, move_backend, sample_clip
from tamdev.servers import Account, start_backend, start_label_studio

LABEL_STUDIO_PORT, BACKEND_PORT = 8080, 9090
_STATE = RUN_DIR / "state.json"

_READY = """
Ready: {url}/projects/{project}/data
  login     {username}
  password  {password}

Open the task, then do three things:
  1. At the bottom of the page, switch on "Auto-Annotation", then "Auto-Accept Suggestions" (once per browser).
  2. Choose the magenta point tool, the last one beside the picture.
  3. Press 1 (the label "Animal 1") and click on the animal. Its masks appear, here and on the other frames.
Ctrl+click reaches through a mask that is there, and Ctrl+Alt+click says "this is not it".
Ctrl+Right is the next frame. Upload your own mp4 or webm with "Import".

The backend is {backend}, logs are in {logs}/. Ctrl-C stops both.
"""


def run() -> int:
    """Start Label Studio and the backend with the sample project, until Ctrl-C."""
    LABEL_STUDIO.install()
    BACKEND.install()
    stop_on_signals()
    with _only_one(), ExitStack() as running:
        state = _load_state()
        account = Account(**state["account"])
        ls_port = _port("Label Studio", LABEL_STUDIO_PORT, state.get("label_studio_port"))
        first = not (RUN_DIR / "label-studio").exists()
        print("Starting Label Studio" + (" (first start: it makes its database, about a minute)" if first else ""))
        program, label_studio = start_label_studio(
            RUN_DIR / "label-studio", ls_port, account, RUN_DIR / "logs" / "label-studio.log"
        )
        running.enter_context(program)
        sample_clip()
        program.wait_until(lambda: answers(f"{label_studio.url}/health"), 300, "still starting,")
        if not label_studio.ready():
            raise DevError(
                "Label Studio does not know the account in .run/state.json: its first start was cut off. "
                "Remove .run/label-studio and start again"
            )
        old = state.get("backend_port")
        backend_port = _port("the backend", old or BACKEND_PORT, BACKEND_PORT)
        print("Starting the backend", flush=True)
        backend = start_backend(
            RUN_DIR / "backend", backend_port, label_studio, account, RUN_DIR / "logs" / "backend.log"
        )
        running.enter_context(backend)
        url = f"http://127.0.0.1:{backend_port}"
        if old and old != backend_port:
            move_backend(label_studio, f"http://127.0.0.1:{old}", url)
        _save_state({**state, "label_studio_port": ls_port, "backend_port": backend_port})
        project = ensure_project(label_studio, url)
        print(
            _READY.format(
                url=label_studio.url,
                project=project,
                username=account.username,
                password=account.password,
                backend=url,
                logs=os.path.relpath(RUN_DIR / "logs"),
            ),
            flush=True,
        )
        try:
            while True:
                program.check()
                backend.check()
                time.sleep(1)
        except KeyboardInterrupt:
            print("\nStopping", flush=True)
    return 0


def serve(arguments: Sequence[str]) -> int:
    """Start the backend alone; it takes our place, so that signals reach it directly."""
    BACKEND.install()
    tam = str(BACKEND.program("tam"))
    os.execv(tam, [tam, "serve", *arguments])


def demo() -> int:
    """Track the animal of the sample clip without Label Studio."""
    LABEL_STUDIO.install()  # the video is in its package
    BACKEND.install()
    out = RUN_DIR / "demo"
    x, y = ANIMAL
    command = [BACKEND.program("tam"), "track", sample_clip(), "--click", f"0,{x},{y}", "--out", out, "--overlay"]
    code = subprocess.run([str(c) for c in command]).returncode
    if code == 0:
        print(f"The animal, marked on every frame: {os.path.relpath(out / 'overlay.mp4')}")
    return code


def _port(name: str, wanted: int, second: int | None) -> int:
    """The wanted port, else the second choice, else any free one; anything but the first is told."""
    port = free_port(*filter(None, [wanted, second]))
    if port != wanted:
        print(f"Port {wanted} is taken by another program, so {name} uses {port}.")
    return port


def _load_state() -> dict[str, Any]:
    """Account and ports of the last run; a new account at the first."""
    try:
        return dict(json.loads(_STATE.read_text()))
    except FileNotFoundError:
        account = Account("annotator@example.com", secrets.token_hex(6), secrets.token_hex(20))
        state = {"account": asdict(account)}
        _save_state(state)
        return state
    except ValueError as e:
        raise DevError(f"{_STATE} is damaged ({e}). Remove the folder .run to begin anew") from e


def _save_state(state: dict[str, Any]) -> None:
    _STATE.parent.mkdir(parents=True, exist_ok=True)
    part = _STATE.with_suffix(".part")
    part.touch(mode=0o600)  # it holds a password
    part.write_text(json.dumps(state, indent=1))
    part.replace(_STATE)


@contextmanager
def _only_one() -> Iterator[None]:
    """Refuse to run twice on the same data. Raises DevError."""
    try:
        import fcntl
    except ImportError:  # not on Windows
        yield
        return
    RUN_DIR.mkdir(exist_ok=True)
    with Path(RUN_DIR / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            raise DevError(f"it is running already, on the data in {RUN_DIR.relative_to(ROOT)}; stop that first") from e
        yield
