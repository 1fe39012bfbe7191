"""``tam storage``: what the server's data directory holds, and how to make it smaller."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tam_backend.engines import last_engine
from tam_backend.errors import BadInput
from tam_backend.sessions.database import FILE, Database
from tam_backend.sessions.storage import Storage, Wish, days_ago
from tam_backend.settings import Settings

_EPILOG = """\
examples:
  tam storage show
  tam storage prune --older-than 30 --dry-run
      What would go if masks that nobody used for 30 days were dropped.
  tam storage prune --max-mb 5000 && tam storage compact
      Keep 5 GB of masks, those used last, and give the space back to the disk.
  tam storage prune --project 12 --videos
      All of a project that is done: masks, downloaded videos, what was noted of its tasks.

Never dropped: what unfinished work goes on from, and what belongs to prompts that nobody has submitted yet. Whatever
else is dropped is computed, or fetched, again when somebody needs it. show and prune may run beside the server;
for compact stop it first.

TAM_DATA_DIR: the directory. Exit codes: 0 done, 1 it cannot be done now, 2 something given cannot be used.
"""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "storage",
        help="see what the server keeps on disk, and drop what is not needed",
        description="What the server keeps in TAM_DATA_DIR: see it, make it smaller.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True, title="actions")
    show = actions.add_parser("show", help="sizes, by kind and by project")
    show.add_argument("--json", action="store_true", help="for programs")
    prune = actions.add_parser("prune", help="drop masks by age, size or project; of several conditions all must hold")
    prune.add_argument("--older-than", type=float, metavar="DAYS", help="what was not used for so many days")
    prune.add_argument("--max-mb", type=float, metavar="MB", help="masks beyond so much, those unused longest first")
    prune.add_argument("--project", type=int, metavar="ID", help="what belongs to this project and to no other")
    prune.add_argument("--label-studio", default="", metavar="URL", help="the Label Studio of --project, if several")
    prune.add_argument("--videos", action="store_true", help="downloaded videos, too (with --older-than or --project)")
    prune.add_argument("--dry-run", action="store_true", help="change nothing; say what would go")
    actions.add_parser("compact", help="give space inside the database back to the disk (server stopped)")


def run(args: argparse.Namespace) -> int:
    """Raises BadInput for conditions that make no sense or a directory that holds nothing."""
    settings = Settings.from_env(os.environ)
    if args.action == "prune":
        _check(args)
    with _opened(settings.data_dir) as storage:
        if args.action == "show":
            return _show(storage, settings.data_dir, as_json=args.json)
        if args.action == "compact":
            print(f"{_megabytes(storage.compact())} given back to the disk")
            return 0
        return _prune(storage, settings, args)


def _check(args: argparse.Namespace) -> None:
    if args.older_than is None and args.max_mb is None and args.project is None:
        raise BadInput("say what may go: --older-than DAYS, --max-mb MB, --project ID, or several of them")
    for name, value in (("--older-than", args.older_than), ("--max-mb", args.max_mb)):
        if value is not None and not value >= 0:
            raise BadInput(f"{name} must be 0 or more, not {value:g}")
    if args.videos and args.older_than is None and args.project is None:
        raise BadInput("--videos needs --older-than or --project; TAM_MEDIA_CACHE_MB bounds their size")
    if args.label_studio and args.project is None:
        raise BadInput("--label-studio goes with --project")


@contextmanager
def _opened(folder: Path) -> Iterator[Storage]:
    path = folder / FILE
    if not path.is_file():
        raise BadInput(f"{folder} holds no {FILE}: set TAM_DATA_DIR to the directory that the server works in")
    with closing(Database(path)) as database:
        yield Storage(database, last_engine(folder).replace(" ", "-"))


def _show(storage: Storage, folder: Path, *, as_json: bool) -> int:
    masks, mask_bytes = storage.masks()
    parts = {entry.name: _size(entry) for entry in sorted(folder.iterdir())}
    projects = storage.projects()
    if as_json:
        facts = {
            "directory": str(folder), "bytes": parts, "masks": masks, "mask_bytes": mask_bytes,
            "free_bytes": storage.free_bytes(), "projects": [asdict(p) for p in projects],
        }  # fmt: skip
        print(json.dumps(facts, indent=2))
        return 0
    print(folder.absolute())
    for name, size in parts.items():
        if size >= 50_000 or name == FILE:
            print(f"  {name:<22}{_megabytes(size):>12}")
    print(f"  {'together':<22}{_megabytes(sum(parts.values())):>12}")
    print(
        f"\n{masks} finished masks and states, {_megabytes(mask_bytes)}; "
        f"free inside the file: {_megabytes(storage.free_bytes())}"
    )
    for p in projects:
        print(
            f"project {p.project} of {p.label_studio or 'an unknown Label Studio'}: {p.tasks} tasks, {p.masks} masks, "
            f"{_megabytes(p.mask_bytes)}; {p.unfinished} unfinished jobs, {p.unsubmitted} objects not submitted"
        )
    return 0


def _prune(storage: Storage, settings: Settings, args: argparse.Namespace) -> int:
    before = None if args.older_than is None else days_ago(args.older_than)
    project = None if args.project is None else (args.label_studio.rstrip("/"), args.project)
    # Which videos a project alone uses is asked before its tasks are forgotten.
    videos = storage.videos_of(project) if project else None
    needed = storage.needed_videos()
    wish = Wish(before, None if args.max_mb is None else round(args.max_mb * 1e6), project)
    done = storage.prune(wish, dry_run=args.dry_run)
    would = "would go: " if args.dry_run else "dropped: "
    print(f"{would}{done.masks} masks and states, {_megabytes(done.mask_bytes)}")
    if done.kept:
        print(
            f"kept: {done.kept} masks and states, {_megabytes(done.kept_bytes)}, which unfinished work or prompts not "
            "submitted yet need"
        )
    if project:
        print(f"{would}what was noted of {done.tasks} tasks")
        if not args.dry_run:
            _drop_frames(settings.data_dir / "frames", videos or frozenset())
    if args.videos:
        _prune_videos(settings, videos, before, needed, would, dry_run=args.dry_run)
    if done.masks and not args.dry_run:
        print("the file keeps its size, and has room for new masks; `tam storage compact` gives it back to the disk")
    return 0


def _prune_videos(
    settings: Settings,
    videos: frozenset[str] | None,
    before: float | None,
    needed: frozenset[str],
    would: str,
    *,
    dry_run: bool,
) -> None:
    """videos: those that may go; None: all that were not used since ``before``."""
    from tam_backend.labelstudio.mediacache import MediaCache

    cache = MediaCache(settings.data_dir / "videos", settings.media_cache_mb * 1_000_000, lambda video: None)
    old = {v: size for v, size in cache.sizes(before).items() if size and (videos is None or v in videos)}
    chosen = {v: size for v, size in old.items() if v not in needed}
    gone = chosen if dry_run else {v: size for v, size in chosen.items() if cache.drop(v)}
    print(f"{would}{len(gone)} downloaded videos, {_megabytes(sum(gone.values()))}")
    if len(gone) < len(old):
        print(f"kept: {len(old) - len(gone)} downloaded videos that are needed or in use")


def _drop_frames(folder: Path, videos: frozenset[str]) -> None:
    """The served pictures of some videos."""
    import diskcache

    if folder.is_dir():
        with diskcache.Cache(str(folder)) as cache:
            for key in list(cache):
                if str(key).partition("/")[0] in videos:
                    cache.delete(key)


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(f.stat().st_size for f in files if f.is_file() and not f.is_symlink())


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
