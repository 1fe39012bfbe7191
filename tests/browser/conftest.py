"""One Label Studio and one backend for all browser tests; a browser for each test."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.browser.editor import Editor
from tests.browser.scene import write_video

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from tamdev import RUN_DIR  # noqa: E402
from tamdev.processes import free_port  # noqa: E402
from tamdev.rest import LabelStudio, answers  # noqa: E402
from tamdev.servers import Account, start_backend, start_label_studio  # noqa: E402


@dataclass(frozen=True)
class Servers:
    """What runs: Label Studio, our backend's address, and the account that the tests use."""

    label_studio: LabelStudio
    backend: str
    account: Account


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    root = tmp_path_factory.mktemp("servers")
    account = Account("annotator@example.com", secrets.token_hex(8), secrets.token_hex(20))
    program, label_studio = start_label_studio(root / "label-studio", free_port(), account, root / "label-studio.log")
    with program:
        program.wait_until(lambda: answers(f"{label_studio.url}/health") and label_studio.ready(), 300)
        port = free_port()
        options = {"TAM_ENGINE": "embedded"}  # whatever checkpoints are there
        with start_backend(root / "backend", port, label_studio, account, root / "backend.log", options) as backend:
            yield Servers(label_studio, f"http://127.0.0.1:{port}", account)
            sys.stdout.write(f"\nthe backend's last lines:\n{backend.last_lines()}\n")


_failed = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    item.stash[_failed] = item.stash.get(_failed, False) or report.failed
    return report


@pytest.fixture
def open_editor(
    servers: Servers, screenshots: Path, request: pytest.FixtureRequest
) -> Iterator[Callable[[str], Editor]]:
    """Opens a fresh browser, logged in, for frames of a backend. A failed test leaves a picture of its page."""
    editors: list[Editor] = []

    with ExitStack() as opened:

        def open_for(backend: str) -> Editor:
            editor = opened.enter_context(Editor(servers.label_studio.url, [backend]))
            editor.call("login", servers.account.username, servers.account.password)
            editors.append(editor)
            return editor

        yield open_for
        for editor in editors:
            if request.node.stash.get(_failed, False):
                editor.call("screenshot", str(screenshots / "failed.png"))
            # The page of 1.23.2 throws errors of its own, now and then, around submit and reload, with all that the
            # tests look at being right; so they are shown to whoever reads the output, and do not decide.
            for failure in editor.call("takeFailures"):
                print(f"error on the page: {failure}")


@pytest.fixture
def editor(servers: Servers, open_editor: Callable[[str], Editor]) -> Editor:
    """A fresh browser, logged in."""
    return open_editor(servers.backend)


@pytest.fixture
def screenshots(request: pytest.FixtureRequest) -> Path:
    """A folder that stays, for pictures of this test."""
    folder = RUN_DIR / "screenshots" / request.node.name.replace("[", "-").rstrip("]")
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.png"):
        old.unlink()
    return folder


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The video of ``scene.py``."""
    path = tmp_path_factory.mktemp("scene") / "scene.mp4"
    write_video(path)
    return path
