"""What the image is made of: `lock` pins it with hashes, `audit` looks for known vulnerabilities, `sbom` lists it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tamdev import ROOT, RUN_DIR, DevError
from tamdev.environment import DEVELOPMENT

LOCK, BUILD_LOCK = ROOT / "requirements.lock", ROOT / "requirements-build.lock"
_HEAD = """\
# Made by `make lock` from {sources}:
# {what}, with the hashes of the files. pip install --no-deps --only-binary :all: --require-hashes -r {name}
"""
#: uv finds versions for the image: Python 3.11 on Linux, whatever this machine has. Its hashes are of all platforms.
_COMPILE = [
    "pip", "compile", "--generate-hashes", "--python-version", "3.11.9", "--python-platform", "linux", "--no-header",
    "--no-annotate", "--no-emit-index-url", "--no-emit-find-links", "--quiet",
]  # fmt: skip
_SERVICES = ("pypi", "osv")


def lock() -> int:
    """Write the lock files anew."""
    DEVELOPMENT.install()
    packages = _compiled("requirements.txt") + _compiled("requirements-nodeps.txt", "--no-deps")
    sources, what = "requirements.txt and requirements-nodeps.txt", "all Python packages of the image"
    LOCK.write_text(_HEAD.format(sources=sources, what=what, name=LOCK.name) + packages)
    sources, what = "requirements-build.txt", "what makes a wheel of this repository"
    BUILD_LOCK.write_text(_HEAD.format(sources=sources, what=what, name=BUILD_LOCK.name) + _compiled(sources))
    return 0


def audit() -> int:
    """Ask the databases of known vulnerabilities. Where none answers, that is said, and is no failure."""
    DEVELOPMENT.install()
    for service in _SERVICES:
        report = _ask(service)
        packages = report["dependencies"] if report else []
        known = [p for p in packages if "skip_reason" not in p]
        if not known:
            continue
        found = [f"{p['name']} {p['version']}: {v['id']}" for p in known for v in p["vulns"]]
        unknown = [p["name"] for p in packages if "skip_reason" in p]
        print(f"audit ({service}): {len(known)} packages looked up, {len(found)} known vulnerabilities")
        if unknown:
            print(f"audit: not in the database: {', '.join(unknown)}")
        if found:
            raise DevError("known vulnerabilities:\n  " + "\n  ".join(found))
        return 0
    print(f"audit: SKIPPED, nothing was looked up: no database of vulnerabilities answers ({', '.join(_SERVICES)})")
    return 0


def sbom(arguments: Sequence[str]) -> int:
    """Write the image's list of software as CycloneDX JSON, to a file that may be named."""
    DEVELOPMENT.install()
    target = Path(arguments[0]) if arguments else RUN_DIR / "software.cdx.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    _tool("cyclonedx-py", ["requirements", "--output-reproducible", "--of", "JSON", "-o", str(target), str(LOCK)])
    print(f"{len(json.loads(target.read_text())['components'])} packages: {target}")
    return 0


def _compiled(source: str, *options: str) -> str:
    return _tool("uv", [*_COMPILE, *options, source])


def _ask(service: str) -> dict | None:
    """pip-audit's report; None where the service does not answer."""
    command = ["-r", str(LOCK), "--no-deps", "--disable-pip", "--require-hashes", "-f", "json", "-s", service]
    command += ["--progress-spinner", "off", "--timeout", "15"]
    done = subprocess.run(
        [str(DEVELOPMENT.program("pip-audit")), *command], cwd=ROOT, capture_output=True, text=True
    )
    try:
        return json.loads(done.stdout)
    except ValueError:
        return None


def _tool(name: str, arguments: Sequence[str]) -> str:
    done = subprocess.run([str(DEVELOPMENT.program(name)), *arguments], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise DevError(f"{name} failed:\n{(done.stdout + done.stderr).strip()}")
    return done.stdout
