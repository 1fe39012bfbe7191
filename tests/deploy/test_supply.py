"""What `make audit` and `make sbom` say. The audit itself needs a database on the network, and is no test."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from tamdev import DevError, supply  # noqa: E402
from tamdev.environment import Environment  # noqa: E402

SAFE = {"name": "flask", "version": "3.1.3", "vulns": []}
UNSAFE = {"name": "jinja2", "version": "3.0.3", "vulns": [{"id": "PYSEC-2026-1"}]}
UNKNOWN = {"name": "av", "version": "18.1.0", "skip_reason": "not found"}


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch):
    """The tests run in the environment that these commands would make."""
    monkeypatch.setattr(Environment, "install", lambda self: None)


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[dict] | None]:
    """What the databases say of packages; None where one does not answer."""
    said: dict[str, list[dict] | None] = {"pypi": None, "osv": None}
    monkeypatch.setattr(supply, "_ask", lambda service: said[service] and {"dependencies": said[service]})
    return said


def test_no_answer_is_said_and_does_not_fail(answers, capsys):
    answers["osv"] = [UNKNOWN, UNKNOWN]  # an index that is no database knows no package
    assert supply.audit() == 0
    assert "SKIPPED, nothing was looked up" in capsys.readouterr().out


@pytest.mark.parametrize("service", ["pypi", "osv"])
def test_known_vulnerabilities_fail(answers, service):
    answers[service] = [SAFE, UNSAFE, UNKNOWN]
    with pytest.raises(DevError, match=r"jinja2 3\.0\.3: PYSEC-2026-1"):
        supply.audit()


def test_what_was_looked_up_is_counted(answers, capsys):
    answers["pypi"] = [SAFE, SAFE, UNKNOWN]
    assert supply.audit() == 0
    said = capsys.readouterr().out
    assert "2 packages looked up, 0 known vulnerabilities" in said
    assert "not in the database: av" in said
    assert "SKIPPED" not in said


def test_the_list_of_software_has_every_locked_package(tmp_path, capsys):
    target = tmp_path / "list.json"
    assert supply.sbom([str(target)]) == 0
    listed = json.loads(target.read_text())
    assert listed["bomFormat"] == "CycloneDX"
    names = {(c["name"], c["version"]) for c in listed["components"]}
    lines = [line.split(" ")[0] for line in supply.LOCK.read_text().splitlines() if "==" in line and line[0] != "#"]
    assert names == {tuple(line.split("==")) for line in lines}
    assert all(c["externalReferences"][0]["hashes"] for c in listed["components"])
