"""``tam review``: a report about a project for whoever looks after its quality."""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tam_backend.commands.backend import basic_auth, shown
from tam_backend.commands.studio import EPILOG, add_connection_options, add_project, connect, resumable
from tam_backend.commands.track_progress import progress
from tam_backend.errors import BadInput, LabelStudioError
from tam_backend.labelstudio.config import parse_label_config
from tam_backend.labelstudio.projects import ProjectClient
from tam_backend.labelstudio.prompts import Json
from tam_backend.labelstudio.transport import ask_label_studio
from tam_backend.review.page import render_page
from tam_backend.review.project import TaskFigures, review_project
from tam_backend.sessions.outcomes import Outcome
from tam_backend.tracking.filestore import hold_lock, write_atomically

_EPILOG = f"""\
what the report has:
  - the frames to fix next, with links that open their tasks
  - how many masks of each version of the engine were accepted, fixed and rejected
  - where annotators of one task disagree
  - of every task: quality over time, frames without a mask, tiny masks, jumps, how many masks people changed and by how
    much, clicks, minutes
It is one HTML file that needs no network. Nothing is written to Label Studio.

examples:
  tam review 12 --out crossings.html
  What would be read:
      tam review "Street crossings" --dry-run

{EPILOG}"""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "review",
        help="a report about a project: what to fix next, where people disagree",
        description="Write a report about the quality of a project's masks, as one HTML file.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_project(parser)
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="file to write (default: review-ID.html); an older one is replaced"
    )
    parser.add_argument(
        "--backend", metavar="URL",
        help="address of the backend, as in Settings > Model, to ask what became of its masks (default: those that are "
        "connected). With it, TAM_BASIC_AUTH_USER and TAM_BASIC_AUTH_PASSWORD are sent there, if they are set",
    )  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="say what would be read, and write nothing")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    add_connection_options(parser)


def run(args: argparse.Namespace) -> int:
    """Read, count, write. Raises TamError."""
    if args.out is not None and args.out.suffix.lower() not in (".html", ".htm"):
        raise BadInput(f"--out {args.out}: the report is an HTML file; name it .html")
    with resumable():
        client = connect(args)
        project = client.find_project(args.project)
        config = parse_label_config(str(project["label_config"]))
        if args.dry_run:
            tasks = list(client.tasks(int(project["id"])))
            submitted = sum(bool(t.get("total_annotations")) for t in tasks)
            print(f"project {project['id']}, {project.get('title')}: {len(tasks)} tasks, {submitted} submitted")
            print("nothing is written: this was a dry run")
            return 0
        out = (args.out or Path(f"review-{project['id']}.html")).resolve()
        if out.is_dir():
            raise BadInput(f"--out {out} is a folder; name a file in it")
        with _work_folder(out) as work:
            total = project.get("task_number")

            def shown(tasks: Iterable[Json]) -> Iterator[Json]:
                yield from progress(tasks, total, "tasks", unit="task", quiet=args.quiet)

            figures = review_project(client, project, config, work, shown)
            if not figures:
                raise BadInput(f"project {project.get('title')!r} has no tasks with frames yet")
            outcomes, counted_by = _outcomes(args, client, project, figures)
            page = render_page(project, client.connection.url, figures, outcomes, counted_by)
            write_atomically(out, page.encode())
    look = sum(track.review().look for task in figures for track in task.tracks)
    print(f"{len(figures)} tasks, {look} masks need a look")
    print(f"written to {out}")
    return 0


@contextlib.contextmanager
def _work_folder(out: Path) -> Iterator[Path]:
    """Keeps what was fetched until the report is there, so that a run that was cut off goes on."""
    hidden = out.parent / f".{out.name}.partial"
    try:
        hidden.mkdir(parents=True, exist_ok=True)
        lock = hold_lock(hidden / "lock", f"another tam review is writing {out}; wait for it")
    except OSError as e:
        raise BadInput(f"--out {out} cannot be written: {e.strerror}") from e
    with lock:
        yield hidden
    shutil.rmtree(hidden, ignore_errors=True)


def _outcomes(
    args: argparse.Namespace, client: ProjectClient, project: Json, figures: list[TaskFigures]
) -> tuple[dict[str, Outcome], str]:
    """(by version, where they come from): what the backend has counted, else what the annotations say now."""
    urls = [args.backend] if args.backend else [str(b.get("url")) for b in client.backends(int(project["id"]))]
    for url in urls:
        try:
            rows = _ask_backend(url, args.backend is not None)
        except LabelStudioError as e:
            print(f"tam review: note: not asked what became of its masks: {shown(url)} {e}", file=sys.stderr)
            continue
        mine = [r for r in rows if r.get("project") == project["id"] and _same_host(r, client)]
        if mine:
            counted = {
                str(r["version"]): Outcome(*(int(r[k]) for k in ("accepted", "fixed", "rejected", "drawn")))
                for r in mine
            }
            return counted, "Counted by the backend whenever somebody submitted."
    sums: dict[str, Outcome] = {}
    for task in figures:
        for version, outcome in task.outcomes.items():
            sums[version] = sums.get(version, Outcome()) + outcome
    return sums, (
        "Counted from the annotations and predictions that there are now: masks that were deleted, and were in no "
        "prediction, are not seen."
    )


def _ask_backend(url: str, trusted: bool) -> list[Json]:
    """The sums of ``/status.json``. trusted: the user named this address. Raises LabelStudioError."""
    headers = {"Accept": "application/json"} | (basic_auth() if trusted else {})
    try:
        status, _, body = ask_label_studio("GET", f"{url.rstrip('/')}/status.json", headers, (2.0, 5.0))
    except LabelStudioError as e:
        raise LabelStudioError("does not answer") from e
    if status != 200:
        raise LabelStudioError(f"answers {status}")
    try:
        rows = json.loads(body).get("outcomes", [])
    except (ValueError, AttributeError) as e:
        raise LabelStudioError("does not answer as tam serve does") from e
    return [r for r in rows if isinstance(r, dict)]


def _same_host(row: Json, client: ProjectClient) -> bool:
    """Whether a row is about this Label Studio. Backends may know it under another name: then the port must do."""
    ours, theirs = urlsplit(client.connection.url), urlsplit(str(row.get("label_studio")))
    return ours.netloc == theirs.netloc or ours.port == theirs.port
