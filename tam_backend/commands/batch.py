"""``tam batch``: many videos, in this process or on a cluster."""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from tam_backend.cluster.executors import Executor, InProcess
from tam_backend.cluster.places import Place
from tam_backend.commands.batch_manifest import Item, read_manifest
from tam_backend.commands.batch_run import Batch
from tam_backend.commands.batch_work import start_worker, track_item
from tam_backend.engines import Engine, load_engine
from tam_backend.errors import BadInput
from tam_backend.settings import Settings

_DESCRIPTION = """\
Track objects through many videos, from prompts that a manifest names. Without --address one after the other, here;
with it on Ray, by workers that each load the engine once: one for each GPU, or for every --cores cores.
"""

_EPILOG = """\
the manifest: JSON, one line for each video. What an option of tam track says is said in the same words:
  {"video": "street/a.mp4", "click": ["0,320,240"]}
  {"video": "s3://films/b.mp4", "name": "b", "mask": ["0=masks/b.png"], "label": ["1=Person"], "start": 0, "end": 499}
Keys: video, name (of the output; default: that of the file), click, mask, label, refine_masks, start, end. Paths count
from the manifest's folder. Every worker must be able to read them: a shared disk, or an address that fsspec knows
(s3:// needs the package s3fs, gs:// gcsfs).

what is written to --out, a folder or an address:
  NAME/                 as tam track writes it; tam export takes it. In a bucket: NAME.zip
  NAME.report.json      what became of the video: frames, speed, quality of each object, frames to look at
  report.csv            the same of all videos, a line for each, with attempts, workers and errors
  dead-letters.jsonl    the videos that failed, and why. It is a manifest: give it to tam batch to try them again
  .unfinished/          of videos under way: what is finished, every few seconds

A worker that dies costs the seconds since then: its video goes to the next that is free. A video that fails is tried
again (--retries), unless the video or its prompts cannot be used. The same command goes on where it was stopped, and
does nothing for videos that are done with the same prompts and the same engine.

examples:
  tam batch manifest.jsonl --out masks
  tam batch manifest.jsonl --out masks --address local --workers 4
  ray start --head        (on the first machine; it says what to start on the others)
  tam batch manifest.jsonl --out s3://bucket/masks --address auto

Exit codes: 0 all done, 1 some failed, 2 something given cannot be used, 130 stopped.
"""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "batch",
        help="track objects through many videos, also on several machines or GPUs",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("manifest", type=Path, metavar="MANIFEST", help="a file with a line for each video; see below")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder, or address of one in a bucket")
    parser.add_argument(
        "--address", metavar="ADDRESS",
        help="work on Ray: local (a cluster of this machine alone, for this call), auto (the one started here), or "
        "HOST:PORT of its head",
    )  # fmt: skip
    parser.add_argument("--workers", type=int, metavar="N", help="how many (default: as many as there is room for)")
    parser.add_argument("--cores", type=int, metavar="N", help="cores for each worker (default: 1)")
    parser.add_argument(
        "--gpus", action=argparse.BooleanOptionalAction, default=None,
        help="a GPU for each worker (default: for the engine sam-xmem, if the cluster has any)",
    )  # fmt: skip
    parser.add_argument(
        "--return-masks", action="store_true",
        help="workers cannot reach --out: masks come back through Ray and are written here. Then a video whose worker "
        "dies begins anew",
    )  # fmt: skip
    parser.add_argument("--engine", metavar="NAME", help="as for tam track: embedded, sam-xmem or auto")
    parser.add_argument(
        "--retries", type=int, default=2, metavar="N", help="so often a video is tried once more (default: 2)"
    )
    parser.add_argument("--force", action="store_true", help="do also what is done already")
    parser.add_argument("--quiet", action="store_true", help="no progress")


def run(args: argparse.Namespace) -> int:
    """Track all videos, and write the reports. Raises TamError."""
    for option, value in (("--workers", args.workers), ("--cores", args.cores)):
        if value is not None and value < 1:
            raise BadInput(f"{option} must be 1 or more, not {value}")
        if value is not None and args.address is None:
            raise BadInput(f"{option} goes with --address: without it there is one worker, this process")
    if args.retries < 0:
        raise BadInput(f"--retries must be 0 or more, not {args.retries}")
    if args.return_masks and args.address is None:
        raise BadInput("--return-masks goes with --address")
    settings = Settings.from_env(os.environ)
    items = read_manifest(args.manifest)
    place = Place(args.out)
    out = args.out if place.folder is None else str(place.folder)
    name = args.engine or settings.engine
    engine = load_engine(name, settings)  # so that what is wrong with it shows at once, and what is done is recognised
    batch = Batch(items, place, engine.id, args.retries, quiet=args.quiet, force=args.force)
    start = functools.partial(start_worker, settings.without_secrets(), engine.name, None if args.return_masks else out)
    code = 0
    try:
        if batch.left:
            with _stopping(), contextlib.closing(_executor(args, start, engine, place)) as executor:
                batch.run(executor)
    except KeyboardInterrupt:
        print("tam batch: stopped; the same command goes on from here", file=sys.stderr)
        code = 130
    finally:
        batch.write_reports()
    print(batch.summary())
    return code or int(batch.counts["failed"] > 0)


def _executor(args: argparse.Namespace, start: Callable[[], Any], engine: Engine, place: Place) -> Executor[Item]:
    if args.address is None:
        return InProcess(lambda: lambda item: track_item(engine, item, place))
    from tam_backend.cluster.on_ray import RayWorkers

    gpus = args.gpus
    if gpus is None:
        gpus = None if engine.name == "sam-xmem" else False
    return RayWorkers(start, args.address, args.workers or 0, args.cores or 1, gpus)


@contextlib.contextmanager
def _stopping() -> Iterator[None]:
    """SIGTERM ends it as Ctrl-C does: with reports, and with what is finished."""

    def stop(signum: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
