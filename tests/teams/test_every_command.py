"""What every command that talks to Label Studio owes: help, a dry run, and an answer to whatever goes wrong there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from tam_backend.labelstudio.fetching import Patience
from tests.cli.conftest import Result, Tam
from tests.fakes import make_video
from tests.teams.masks import CONFIG, HEIGHT, WIDTH, annotation, blob, clip, region
from tests.teams.standin import LEGACY, PERSONAL, StandIn


@dataclass(frozen=True)
class Command:
    """given: what is typed. missing: the same about a project or task that is not there, and what is said of it.
    unknown: the same with a format that is not known, and what is said of it. OUT: the folder to write to."""

    given: str
    missing: tuple[str, str] | None
    unknown: tuple[str, str]


NOWHERE = "there is no project 'Nowhere'"
COMMANDS = {
    "project create": Command(
        "project create New --label Dog --backend http://backend.test",
        None,  # what is missing it makes
        ("project create New --label Dog --control polygon", "invalid choice: 'polygon'"),
    ),
    "import": Command(
        "import Crossing VIDEO --frames-from upload --clip 4",
        ("import Nowhere VIDEO", NOWHERE),
        ("import Crossing VIDEO --frames-from ftp", "invalid choice: 'ftp'"),
    ),
    "export": Command(
        "export Crossing --format coco --out OUT/set --no-pictures",
        ("export Nowhere --format coco --out OUT/set", NOWHERE),
        ("export Crossing --format kitti --out OUT/set", "there is no format 'kitti'; the formats are davis"),
    ),
    "render": Command(
        "render Crossing --out OUT/videos",
        ("render Nowhere --out OUT/videos", NOWHERE),
        ("render Crossing --as gif --out OUT/videos", "invalid choice: 'gif'"),
    ),
    "review": Command(
        "review Crossing --out OUT/report.html",
        ("review Nowhere --out OUT/report.html", NOWHERE),
        ("review Crossing --out OUT/report.pdf", "the report is an HTML file; name it .html"),
    ),
    "batch": Command(
        "batch --project Crossing --out OUT/masks",
        ("batch --project Nowhere --out OUT/masks", NOWHERE),
        ("batch --project Crossing --from drafts --out OUT/masks", "invalid choice: 'drafts'"),
    ),
    "inpaint": Command(
        "inpaint --task 1 --out OUT/without",
        ("inpaint --task 99 --out OUT/without", "task 99: there is no such task on http://127.0.0.1"),
        ("inpaint --task 1 --out OUT/without.avi", "a video is written as .mp4"),
    ),
}
every_command = pytest.mark.parametrize("name", COMMANDS)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.fixture
def typed(studio: StandIn, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """A project of two clips that were submitted; and what is typed, with its files."""
    monkeypatch.setenv("TAM_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.delenv("TAM_LABEL_STUDIO_URL", raising=False)
    monkeypatch.delenv("TAM_LABEL_STUDIO_TOKEN", raising=False)
    monkeypatch.setattr("tam_backend.labelstudio.projects._PAUSES", (0.05,))
    monkeypatch.setattr("tam_backend.labelstudio.media.Patience", partial(Patience, attempts=2, pause=0.05))
    made = studio.add_project("Crossing", CONFIG)
    submitted = make_video(tmp_path / "street.mp4", 8, WIDTH, HEIGHT).read_bytes()
    studio.uploads["00000000-street.mp4"] = submitted
    for first in (0, 4):
        regions = [region("Person 1", i, blob(first + i)) for i in range(4)]
        clip(studio, made["id"], first, 4, annotations=[annotation(11 + first, regions)])
    make_video(tmp_path / "new.mp4", 6, WIDTH, HEIGHT)
    files = {"VIDEO": str(tmp_path / "new.mp4"), "OUT": str(out)}

    def words(text: str) -> list[str]:
        for name, path in files.items():
            text = text.replace(name, path)
        return text.split()

    return words


def changes(studio: StandIn) -> list[tuple[str, str]]:
    """Requests that may have changed something."""
    return [(method, path) for method, path in studio.requests if method != "GET" and "/token/refresh" not in path]


def left_in(out: Path) -> list[str]:
    """What people see there."""
    return [p.name for p in out.iterdir() if not p.name.startswith(".")]


def refused(result: Result, code: int, message: str, out: Path) -> None:
    assert (result.code, message in result.err) == (code, True), result.err
    assert "Traceback" not in result.err
    assert left_in(out) == []


@every_command
def test_the_help_says_what_to_do(name, tam):
    result = tam(*name.split(), "--help")
    assert result.code == 0
    for part in ("examples:", f"tam {name}", "where Label Studio is:", "TAM_LABEL_STUDIO_TOKEN", "Exit codes:"):
        assert part in result.out, part
    assert max(map(len, result.out.splitlines())) <= 120


@every_command
@pytest.mark.parametrize("by", ["option", "environment"])
@pytest.mark.parametrize(
    ("token", "message"), [("f" * 40, "refuses the token"), (PERSONAL + "x", "refuses the personal")]
)
def test_a_wrong_token(name, by, token, message, tam, typed, studio, out, monkeypatch):
    given = typed(COMMANDS[name].given)
    if by == "option":
        given += ["--url", studio.url, "--token", token]
    else:
        monkeypatch.setenv("TAM_LABEL_STUDIO_URL", studio.url)
        monkeypatch.setenv("TAM_LABEL_STUDIO_TOKEN", token)
    result = tam(*given)
    refused(result, 1, message, out)
    assert token not in result.err
    assert changes(studio) == []


@every_command
@pytest.mark.parametrize("token", [LEGACY, PERSONAL])
def test_the_token_of_the_environment_is_enough(name, token, tam, typed, studio, monkeypatch):
    monkeypatch.setenv("TAM_LABEL_STUDIO_URL", studio.url)
    monkeypatch.setenv("TAM_LABEL_STUDIO_TOKEN", token)
    result = tam(*typed(COMMANDS[name].given), "--wait", "1")
    assert result.code == 0, result.err


@every_command
def test_no_address_and_no_token(name, tam, typed, studio, out, monkeypatch):
    given = typed(COMMANDS[name].given)
    refused(tam(*given), 2, "say where Label Studio is", out)
    refused(tam(*given, "--url", studio.url), 2, "say who you are", out)
    monkeypatch.setenv("TAM_LABEL_STUDIO_URL", "http://other.test")
    monkeypatch.setenv("TAM_LABEL_STUDIO_TOKEN", LEGACY)
    refused(tam(*given, "--url", studio.url), 2, "say who you are", out)  # that token is for the other one
    assert studio.requests == []


@pytest.mark.parametrize("name", [n for n, c in COMMANDS.items() if c.missing])
def test_a_project_or_task_that_is_not_there(name, ask, typed, studio, out):
    given, message = COMMANDS[name].missing
    refused(ask(*typed(given)), 2, message, out)
    assert changes(studio) == []


@every_command
def test_an_unknown_format(name, ask, typed, studio, out):
    given, message = COMMANDS[name].unknown
    refused(ask(*typed(given)), 2, message, out)
    assert changes(studio) == []


@every_command
def test_a_dry_run_says_what_would_be_and_changes_nothing(name, ask, typed, studio, out):
    result = ask(*typed(COMMANDS[name].given), "--dry-run")
    assert result.code == 0, result.err
    assert result.out
    assert changes(studio) == []
    assert list(out.iterdir()) == []


@pytest.mark.parametrize(
    "name", [n for n in COMMANDS if n != "batch"]
)  # what it has tracked by then stays in its folder
@pytest.mark.parametrize("part", [0.0, 0.3, 0.6, 0.9])
def test_a_server_that_vanishes_in_the_middle(name, part, ask: Tam, typed, studio, out, tmp_path):
    """After some part of the requests that it takes. The same command then goes on, and nothing is there twice."""
    given = typed(COMMANDS[name].given)
    before = {i: dict(t) for i, t in studio.tasks.items()}, dict(studio.uploads)
    assert ask(*given).code == 0
    needed, whole = len(studio.requests), (len(studio.tasks), len(studio.projects), len(studio.uploads), content(out))
    studio.tasks, studio.uploads = before
    studio.projects = {1: studio.projects[1]}
    studio.backends.clear()
    studio.webhooks.clear()
    studio.upload_ids.clear()
    remove(out)
    remove(tmp_path / "data")

    studio.answers = round(part * needed)
    broken = ask(*given, "--wait", "0.1")
    refused(broken, 1, "cannot download" if "cannot download" in broken.err else "does not answer", out)
    studio.answers = None
    assert ask(*given).code == 0
    assert (len(studio.tasks), len(studio.projects), len(studio.uploads), content(out)) == whole


def content(out: Path) -> dict[str, bytes]:
    """Name -> content of pictures and masks; of other files, which carry times, the name alone."""
    return {
        str(p.relative_to(out)): p.read_bytes() if p.suffix == ".png" else b"" for p in out.rglob("*") if p.is_file()
    }


def remove(out: Path) -> None:
    for path in sorted(out.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
