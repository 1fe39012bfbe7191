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
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any, NoReturn

from tam_backend.cluster.executors import Executor, InProcess
from tam_backend.cluster.places import Place
from tam_backend.commands.batch_manifest import Item, read_manifest
from tam_backend.commands.batch_project import ProjectVideos
from tam_backend.commands.batch_run import Batch, in_words
from tam_backend.commands.batch_send import Sender
from tam_backend.commands.batch_work import start_worker, track_item
from tam_backend.commands.sources import video_library
from tam_backend.commands.studio import EPILOG, add_connection_options, connect, resumable
from tam_backend.commands.track_progress import progress
from tam_backend.engines import Engine, load_engine
from tam_backend.errors import BadInput
from tam_backend.labelstudio.submitted import KINDS
from tam_backend.settings import Settings

_DESCRIPTION = """\
Track objects through many videos, from prompts that a manifest names, or from what people gave in a Label Studio
project. Without --address one after the other, here; with it on Ray, by workers that each load the engine once: one for
each GPU, or for every --cores cores.
"""

_EPILOG = f"""\
the manifest: JSON, one line for each video. What an option of tam track says is said in the same words:
  {{"video": "street/a.mp4", "click": ["0,320,240"]}}
  {{"video": "s3://films/b.mp4", "name": "b", "mask": ["0=masks/b.png"], "label": ["1=Person"], "start": 0, "end": 499}}
Keys: video, name (of the output; default: that of the file), click, box (FRAME,LEFT,TOP,RIGHT,BOTTOM[:OBJECT]), mask,
label, refine_masks, start, end. Paths count from the manifest's folder. Every worker must be able to read them: a
shared disk, or an address that fsspec knows (s3:// needs the package s3fs, gs:// gcsfs).

a project: its tasks in place of a manifest. The clips of a video are tracked as one, from the first frame that a task
shows to the last. What decides are the masks that were submitted (of each task the ground truth, else the newest),
which stay as they are, and of tasks without any the boxes and masks of tam import --seed. Each task gets a prediction
with the masks of its frames, of the same version as those of tam serve: one that is there is replaced. Videos come to
this machine first, into TAM_DATA_DIR, where workers on other machines must find them at the same path.

what is written to --out, a folder or an address:
  NAME/                 as tam track writes it; tam export takes it. In a bucket: NAME.zip
  NAME.report.json      what became of the video: frames, speed, quality of each object, frames to look at
  report.csv            the same of all videos, a line for each, with attempts, workers and errors; of a project also
                        what had nothing to start from, and which tasks have their prediction
  dead-letters.jsonl    the videos that failed, and why. It is a manifest: give it to tam batch to try them again. Of a
                        project the same command does that, and sends the masks
  .unfinished/          of videos under way: what is finished, every few seconds
  .given/               of videos of a project under way: the first masks

A worker that dies costs the seconds since then: its video goes to the next that is free. A video that fails is tried
again (--retries), unless the video or its prompts cannot be used. The same command goes on where it was stopped, and
does nothing for videos that are done with the same prompts and the same engine.

examples:
  tam batch manifest.jsonl --out masks
  tam batch manifest.jsonl --out masks --address local --workers 4
  ray start --head        (on the first machine; it says what to start on the others)
  tam batch manifest.jsonl --out s3://bucket/masks --address auto
  tam batch --project "Street crossings" --out masks --dry-run
  tam batch --project 12 --out masks --address auto

{EPILOG}"""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "batch",
        help="track objects through many videos, also on several machines or GPUs",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "manifest", nargs="?", type=Path, metavar="MANIFEST", help="a file with a line for each video; see below"
    )
    parser.add_argument(
        "--project", metavar="PROJECT", help="in place of it: a project of Label Studio, by its id, address or title"
    )
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
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and change nothing")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    group = parser.add_argument_group("a project")
    group.add_argument(
        "--from", dest="kind", choices=KINDS, default="annotations",
        help="what decides, before seeds: annotations (default), what people submitted; predictions: the newest of "
        "each task that is not ours; either: predictions where nothing was submitted",
    )  # fmt: skip
    group.add_argument("--no-send", action="store_true", help="only write to --out; Label Studio is not changed")
    add_connection_options(parser)


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
    if (args.manifest is None) == (args.project is None):
        raise BadInput("say which videos: a MANIFEST, or --project PROJECT")
    settings = Settings.from_env(os.environ)
    if args.project is not None:
        return _run_project(args, settings)
    if args.no_send or args.kind != "annotations":
        raise BadInput("--no-send and --from go with --project")
    items, place = read_manifest(args.manifest), Place(args.out)
    engine = load_engine(args.engine or settings.engine, settings)  # what is wrong with it shows at once
    batch = Batch(items, place, engine.id, args.retries, quiet=args.quiet, force=args.force)
    if args.dry_run:
        return _say_left(batch)
    code = _work(args, settings, engine, place, batch)
    batch.write_reports()
    print(batch.summary())
    return code or int(batch.counts["failed"] > 0)


def _run_project(args: argparse.Namespace, settings: Settings) -> int:
    if args.return_masks:
        raise BadInput("--return-masks goes with a MANIFEST: of a project, workers read the first masks from --out")
    place = Place(args.out)
    with TemporaryDirectory(prefix="tam-batch-") as fetched, resumable():
        client = connect(args)
        project = client.find_project(args.project)
        videos = ProjectVideos(
            client, project, args.kind, Path(fetched),
            lambda tasks: progress(tasks, project.get("task_number"), "tasks", unit="task", quiet=args.quiet),
        )  # fmt: skip
        if args.dry_run:
            return _say_project(args, videos)
        engine = load_engine(args.engine or settings.engine, settings)
        items = videos.items(
            video_library(client), _out(place),
            lambda names: progress(names, len(names), "fetching", unit="video", quiet=args.quiet),
        )  # fmt: skip
        sender = Sender(videos, items, place, engine)

        def done(item: Item) -> None:
            videos.release(item.name, place)
            if not args.no_send:
                sender.send(item.name)

        batch = Batch(
            items, place, engine.id, args.retries, quiet=args.quiet, force=args.force, aside=videos.aside, done=done
        )
        for item in batch.left:
            videos.give(item.name, place)
        code = _work(args, settings, engine, place, batch)
        if not args.no_send and code == 0:
            for item in batch.known:
                sender.send(item.name)
        batch.write_reports({v.name: [t for t, _ in v.tasks] for v in videos.videos.values()}, sender.sent)
        print(batch.summary())
        if sender.gone is not None:
            raise sender.gone
        if not args.no_send:
            print(f"{sum(map(len, sender.sent.values()))} tasks have their prediction in Label Studio.")
    return code or int(batch.counts["failed"] > 0 or bool(sender.refused))


def _say_left(batch: Batch) -> int:
    for item in batch.left:
        print(f"{item.name}: {item.video} would be tracked")
    print(f"{len(batch.known)} done already; nothing is done: this was a dry run")
    return 0


def _say_project(args: argparse.Namespace, videos: ProjectVideos) -> int:
    for video in videos.videos.values():
        tasks = ", ".join(str(task) for task, _ in video.tasks)
        begins = [p.chosen.name for p in video.submitted] + ["seeds"] * bool(video.seeded)
        print(
            f"{video.name}: frames {video.frames.start} to {video.frames[-1]} would be tracked, beginning with "
            f"{', '.join(begins)}; tasks {tasks}" + (" would get a prediction" if not args.no_send else "")
        )
    for line in in_words(videos.aside):
        print(line)
    print(f"nothing is done: this was a dry run for {args.out}")
    return 0


def _out(place: Place) -> str:
    """The place of the output as workers name it."""
    return place.url if place.folder is None else str(place.folder)


def _work(args: argparse.Namespace, settings: Settings, engine: Engine, place: Place, batch: Batch) -> int:
    """Do what is left. Returns 130 if it was stopped, else 0; what was done by then is in the reports in any case."""
    out = None if args.return_masks else _out(place)
    start = functools.partial(start_worker, settings.without_secrets(), engine.name, out)
    try:
        if batch.left:
            with _stopping(), contextlib.closing(_executor(args, start, engine, place)) as executor:
                batch.run(executor)
    except KeyboardInterrupt:
        print("tam batch: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    except BaseException:
        batch.write_reports()
        raise
    return 0


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
