"""``tam export``: finished masks as a data set that training code reads."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tam_backend.commands.sources import (
    add_source,
    find_folder,
    open_folder,
    open_project,
    with_progress,
    without_pictures,
)
from tam_backend.commands.studio import EPILOG
from tam_backend.errors import BadInput
from tam_backend.export import manifest
from tam_backend.export.dataset import Dataset
from tam_backend.export.folder import StagedFolder, refuse_foreign
from tam_backend.export.formats import FORMATS, find_format
from tam_backend.labelstudio.submitted import Submitted

_DESCRIPTION = """\
Write the masks of a project, or of a folder of tam track, as a data set.

Clips of one video become one video again, with the frame numbers of the original. A label is a track with the same
number everywhere; labels such as Person 1 and Person 2 are of one class, Person.
"""

_EXAMPLES = """\
examples:
  What would be exported, and what is still missing:
      tam export "Street crossings" --format coco --out crossings --dry-run
  Submitted masks of a project, by its number, as COCO with pictures:
      tam export 12 --format coco --out crossings
  The result of tam track for training a YOLO:
      tam export masks --video video.mp4 --format yolo-seg --out yolo
  A data set in another format:
      tam export crossings --format davis --out crossings-davis

"""


def _epilog() -> str:
    width = max(map(len, FORMATS))
    formats = "".join(f"  {name:<{width}}  {f.summary}\n" for name, f in FORMATS.items())
    return (
        f"formats (docs/formats.md has their files, and what becomes of empty frames):\n{formats}\n{_EXAMPLES}{EPILOG}"
    )


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "export",
        help="masks as a data set: COCO, DAVIS, YOLO and others",
        description=_DESCRIPTION,
        epilog=_epilog(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--format", required=True, metavar="FORMAT", help="one of those listed below")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR",
        help="folder to write; an earlier export there is replaced when the new one is complete",
    )  # fmt: skip
    parser.add_argument("--no-pictures", action="store_true", help="masks alone, without the frames as JPEG")
    parser.add_argument("--dry-run", action="store_true", help="say what would be written, and write nothing")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    add_source(parser)


def run(args: argparse.Namespace) -> int:
    """Fetch, write, report. Raises TamError."""
    format_ = find_format(args.format)
    if format_.needs_pictures and args.no_pictures:
        raise BadInput(f"--format {args.format} draws on the pictures; leave out --no-pictures")
    folder = find_folder(args)
    if folder is not None and folder.resolve() == args.out.resolve():
        raise BadInput(f"--out {args.out} is the folder that is read; choose another one")
    refuse_foreign(args.out)
    with ExitStack() as stack:
        staged = None
        if args.dry_run:
            work = Path(stack.enter_context(TemporaryDirectory(prefix="tam-export-")))
        else:
            args.out.resolve().parent.mkdir(parents=True, exist_ok=True)
            staged = stack.enter_context(StagedFolder(args.out.resolve()))
            work = staged.work
        submitted = None
        if folder is not None:
            dataset = open_folder(folder, args.video)
        else:
            wanted = not (args.no_pictures or args.dry_run)
            submitted = open_project(args, work, pictures=wanted)[2]
            dataset = submitted.dataset
        if args.no_pictures:
            dataset = without_pictures(dataset)
        missing = [v.name for v in dataset.videos if v.pictures is None]
        if format_.needs_pictures and missing and not args.dry_run:
            raise BadInput(
                f"there are no pictures of {missing[0]} to draw on: give --video, or run tam track with --pictures"
            )
        if staged is None:
            print(_summary(dataset, submitted))
            print(f"nothing is written: this was a dry run of --format {args.format} to {args.out}")
            return 0
        notes = format_.write(with_progress(dataset, args.format, quiet=args.quiet), staged.new)
        used = [] if submitted is None else [
            {"task": p.chosen.task, "used": p.chosen.name, "saved": p.chosen.updated} for p in submitted.parts
        ]  # fmt: skip
        text = manifest.describe(dataset, args.format, tasks=used)
        (staged.new / manifest.FILE).write_text(text, encoding="utf-8")
        staged.publish()
    for note in notes:
        print(f"tam export: note: {note}", file=sys.stderr)
    print(_summary(dataset, submitted))
    print(f"written to {args.out}")
    return 0


def _summary(dataset: Dataset, submitted: Submitted | None) -> str:
    lines = [f"from {dataset.origin}"]
    for video in dataset.videos:
        spans = ", ".join(f"{r.start} to {r.stop - 1}" for r in manifest.runs(video.frames)[:3])
        more = ", ..." if len(manifest.runs(video.frames)) > 3 else ""
        lines.append(f"  {video.name}: {len(video.frames)} frames of {video.width}x{video.height} ({spans}{more})")
    lines.append("  " + ", ".join(f"{t.id} = {t.label}" for t in dataset.tracks))
    if submitted is not None and submitted.skipped:
        reasons: dict[str, list[int]] = {}
        for task, why in submitted.skipped.items():
            reasons.setdefault(why, []).append(task)
        for why, tasks in reasons.items():
            some = ", ".join(map(str, tasks[:5])) + (", ..." if len(tasks) > 5 else "")
            lines.append(f"  {len(tasks)} task(s) left out, {why}: {some}")
    return "\n".join(lines)
