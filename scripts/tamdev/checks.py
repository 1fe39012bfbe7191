"""`test`: everything a change must pass, quickest first. `test-fast`: without a browser and Prometheus."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from tamdev import ROOT, DevError
from tamdev.environment import BACKEND, DEVELOPMENT, LABEL_STUDIO

_DRIVER = ROOT / "tests" / "browser" / "js"


def lint() -> int:
    """Style and types."""
    BACKEND.install()
    # on a clean checkout this runs before the test tools are there, which would bring along what requirements.txt lacks
    _stage(
        "imports", [BACKEND.program("python"), "-c", "import model, tam_backend.cli, tam_backend.server.app, waitress"]
    )
    DEVELOPMENT.install()
    _stage("ruff", [DEVELOPMENT.program("ruff"), "check", "."])
    _stage("mypy", [DEVELOPMENT.program("mypy")])
    _stage("mypy of scripts", [DEVELOPMENT.program("mypy"), "tamdev", "dev.py"], ROOT / "scripts")
    return 0


def fuzz(arguments: Sequence[str]) -> int:
    """Random requests to a server of the tests' own."""
    DEVELOPMENT.install()
    _stage("fuzzing", [DEVELOPMENT.program("python"), "-m", "tests.hostile.fuzzing", *arguments])
    return 0


def test_fast(arguments: Sequence[str]) -> int:
    """Lint, and all tests that need neither a browser nor other programs of the system."""
    lint()
    kinds = "not browser and not system"
    _stage("pytest", [DEVELOPMENT.program("python"), "-m", "pytest", "-m", kinds, *arguments])
    return 0


def test(arguments: Sequence[str]) -> int:
    """Lint and all tests, those in the browser last."""
    started = time.monotonic()
    test_fast(arguments)
    if shutil.which("prometheus") is None:
        raise DevError("the tests of the figures need prometheus: apt-get install prometheus; or make test-fast")
    _stage("system tests", [DEVELOPMENT.program("python"), "-m", "pytest", "-m", "system", *arguments])
    LABEL_STUDIO.install()
    npm = shutil.which("npm")
    if npm is None:
        raise DevError("the browser tests need npm and node 20 or newer, and there is no npm")
    _stage("npm ci", [npm, "ci", "--no-audit", "--no-fund", "--loglevel=error"], _DRIVER)
    _stage("browser tests", [DEVELOPMENT.program("python"), "-m", "pytest", "-m", "browser", *arguments])
    print(f"All passed in {time.monotonic() - started:.0f} s.")
    return 0


def crash_test(arguments: Sequence[str]) -> int:
    """What the tests do with a few kills, with as many as one asks for."""
    DEVELOPMENT.install()
    _stage("crash test", [DEVELOPMENT.program("python"), "-m", "tests.server.crash", *arguments])
    return 0


def _stage(name: str, command: Sequence[str | Path], directory: Path = ROOT) -> None:
    print(f"== {name}", flush=True)
    started = time.monotonic()
    code = subprocess.run([str(c) for c in command], cwd=directory).returncode
    print(f"== {name}: {'ok' if code == 0 else f'failed (exit code {code})'}, {time.monotonic() - started:.0f} s")
    if code:
        raise DevError(f"{name} failed")
