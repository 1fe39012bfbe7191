"""The two virtual environments: .venv for us, .venv-ls for Label Studio, whose pinned packages clash with ours."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tamdev import ROOT, RUN_DIR, DevError

_INSTALL_LOG = RUN_DIR / "logs" / "install.log"
_NO_NETWORK = re.compile(
    r"Failed to establish a new connection|Temporary failure in name resolution|Name or service not known"
    r"|Network is unreachable|Max retries exceeded|ConnectTimeout|Connection refused|ProxyError",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Layer:
    """A set of packages in an environment, installed by pip with each of ``arguments`` in order.

    inputs: the files that decide what is installed. While they and the arguments stay the same, nothing is done.
    """

    name: str
    arguments: tuple[tuple[str, ...], ...]
    inputs: tuple[str, ...]

    def digest(self) -> str:
        h = hashlib.sha256(repr((self.name, self.arguments)).encode())
        for name in self.inputs:
            h.update((ROOT / name).read_bytes())
        return h.hexdigest()


@dataclass(frozen=True, slots=True)
class Environment:
    """A virtual environment in the repository."""

    path: Path
    layers: tuple[Layer, ...]

    def program(self, name: str) -> Path:
        """A console program of the environment."""
        return self.path / ("Scripts" if os.name == "nt" else "bin") / (name + (".exe" if os.name == "nt" else ""))

    def install(self) -> None:
        """Make the environment and bring its layers up to date. Quick when there is nothing to do.

        Raises DevError when the environment cannot be made or pip fails.
        """
        if not self.program("python").exists():
            self._create()
        for layer in self.layers:
            stamp = self.path / f".installed-{layer.name}"
            digest = layer.digest()
            if stamp.is_file() and stamp.read_text() == digest:
                continue
            stamp.unlink(missing_ok=True)
            print(f"Installing {layer.name} into {self.path.name} ...", flush=True)
            started = time.monotonic()
            for arguments in layer.arguments:
                self._pip(arguments)
            stamp.write_text(digest)
            print(f"  done in {time.monotonic() - started:.0f} s", flush=True)

    def _create(self) -> None:
        made = subprocess.run([sys.executable, "-m", "venv", "--clear", self.path], capture_output=True, text=True)
        if made.returncode:
            raise DevError(
                f"{sys.executable} cannot make a virtual environment in {self.path}. On Debian and Ubuntu, install the "
                f"package python3-venv. It said:\n{(made.stdout + made.stderr).strip()}"
            )

    def _pip(self, arguments: Sequence[str]) -> None:
        _INSTALL_LOG.parent.mkdir(parents=True, exist_ok=True)
        command = [str(self.program("python")), "-m", "pip", "--disable-pip-version-check", "install", *arguments]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        with _INSTALL_LOG.open("a") as log:
            log.write(f"$ {' '.join(command)}\n{done.stdout}\n")
        if done.returncode:
            last = "\n".join(done.stdout.strip().splitlines()[-8:])
            why = (
                "pip cannot reach a package index. Is there a network, and does it need a proxy (HTTPS_PROXY) or a "
                "mirror (PIP_INDEX_URL)?"
                if _NO_NETWORK.search(done.stdout)
                else "pip failed."
            )
            raise DevError(f"{why} Its last lines (all of them: {_INSTALL_LOG.relative_to(ROOT)}):\n{last}")


_RUNTIME = Layer(
    "backend",
    (
        ("-r", "requirements.txt"),
        # its own pins are of versions with published vulnerabilities; requirements.txt has what it imports
        ("--no-deps", "-r", "requirements-nodeps.txt"),
        ("--no-deps", "-e", "."),
    ),
    ("requirements.txt", "requirements-nodeps.txt", "pyproject.toml"),
)
_DEVELOPMENT = Layer(
    "test-tools",
    (("-r", "requirements-dev.txt"), ("--no-deps", "-r", "requirements-dev-nodeps.txt")),
    (
        "requirements.txt",
        "requirements-torch.txt",
        "requirements-cluster.txt",
        "requirements-evaluate.txt",
        "requirements-dev.txt",
        "requirements-dev-nodeps.txt",
    ),
)
#: What the engine sam-xmem needs, for those who want it: some GB.
_TORCH = Layer("torch", (("-r", "requirements-torch.txt"),), ("requirements-torch.txt",))
_LABEL_STUDIO = Layer("label-studio", (("-r", "requirements-label-studio.txt"),), ("requirements-label-studio.txt",))

BACKEND = Environment(ROOT / ".venv", (_RUNTIME,))
WITH_TORCH = Environment(ROOT / ".venv", (_RUNTIME, _TORCH))
DEVELOPMENT = Environment(ROOT / ".venv", (_RUNTIME, _DEVELOPMENT))
LABEL_STUDIO = Environment(ROOT / ".venv-ls", (_LABEL_STUDIO,))
