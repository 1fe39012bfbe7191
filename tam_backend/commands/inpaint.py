"""``tam inpaint``: take tracked objects out of a video."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

from tam_backend.commands import inpaint_remote
from tam_backend.commands.inpaint_masks import MaskFolder
from tam_backend.commands.inpaint_output import WorkFolder, check_place, work_folder
from tam_backend.commands.studio import EPILOG, add_connection_options, connect, resumable
from tam_backend.commands.track_progress import Interruption, progress
from tam_backend.errors import BadInput, MediaError
from tam_backend.inpainting.base import Filling, Inpainter
from tam_backend.inpainting.engines import load_inpainter
from tam_backend.inpainting.objects import DILATE, MAX_DILATE, Masks, ObjectHoles, choose_frames, choose_objects
from tam_backend.inpainting.output import Source, write_result
from tam_backend.labelstudio.accepted import StudioTask, read_json_export
from tam_backend.labelstudio.connections import Connection
from tam_backend.labelstudio.media import Downloader, absolute_url
from tam_backend.settings import INPAINT_ENGINES, Settings
from tam_backend.video import open_source

_DESCRIPTION = """\
Take objects out of a video, and fill what was behind them. The masks of the objects come from `tam track`, from a task
in Label Studio, from a file that Label Studio exported, or from any folder of PNG files named by the numbers of their
frames.
"""

_EPILOG = f"""\
examples:
  Track an object, and take it out:
      tam track video.mp4 --click 0,320,240 --out masks
      tam inpaint video.mp4 masks --out without.mp4
  Of several tracked objects only the second one, with a video to compare:
      tam inpaint video.mp4 masks --object 2 --out without.mp4 --compare
  Frames in place of a video; outside the holes they are exactly those of the video:
      tam inpaint video.mp4 masks --out without
  With the masks that people accepted in task 17 of Label Studio:
      tam inpaint video.mp4 --task 17 --out without.mp4
  The same computed by the server, which has the video and perhaps a GPU; only the result is fetched:
      tam inpaint --task 17 --backend http://backend.internal:9090/SECRET --out without.mp4
  With a file of Label Studio (project > Export > JSON):
      tam inpaint video.mp4 project-3.json --object "Person 1" --out without.mp4

what is written:
  FILE.mp4            the video, with the times of its frames and its sound as they were; or the folder of PNG frames
  FILE-compare.mp4    with --compare: before and after, side by side
  .FILE.tam/          finished work, beside it, while there is some to do. The same command goes on where it was
                      stopped, by Ctrl-C or otherwise. It is removed when FILE is complete.
FILE appears when it is complete, never in part.

engines:
  embedded            carries the background there from other frames. No download, no GPU. The default
  e2fgvi              E2FGVI-HQ, a network. Its weights are licensed CC BY-NC 4.0: no commercial use. Needs PyTorch and
                      `tam checkpoints download e2fgvi_hq`; slow without a GPU

{EPILOG}"""


class _Stopped(Exception):
    """Ctrl-C came while output was written."""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "inpaint",
        help="take tracked objects out of a video",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "video", type=Path, nargs="?", metavar="VIDEO_OR_FOLDER",
        help="a video, or a folder of images as frames; with --task it may be left out: then the task's is downloaded",
    )  # fmt: skip
    parser.add_argument(
        "masks", type=Path, nargs="?", metavar="MASKS",
        help="a folder of masks, one PNG a frame, or a JSON file that Label Studio exported; or give --task",
    )  # fmt: skip
    parser.add_argument(
        "--task", type=_task_number, metavar="ID", help="use the accepted masks of this task in Label Studio"
    )
    parser.add_argument(
        "--backend", metavar="URL",
        help="with --task: have it done by the backend at this address, as in Settings > Model. With basic auth also "
        "set TAM_BASIC_AUTH_USER and _PASSWORD",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE",
        help="what to write: a video (FILE.mp4), or, without an ending, a folder of PNG frames",
    )  # fmt: skip
    parser.add_argument(
        "--object", action="append", default=[], metavar="ID",
        help="an object to take out: its number, or its label where masks come from Label Studio; may be given many "
        "times (default: all). The other objects stay, and are not taken for background",
    )  # fmt: skip
    parser.add_argument(
        "--start", type=int, metavar="FRAME", help="first frame to write (default: 0, or the first one of the task)"
    )
    parser.add_argument(
        "--end", type=int, metavar="FRAME", help="last frame to write (default: the last one, of the task if there is)"
    )
    parser.add_argument(
        "--engine", metavar="NAME", choices=INPAINT_ENGINES,
        help=f"{' or '.join(INPAINT_ENGINES)} (default: TAM_INPAINT, which is embedded)",
    )  # fmt: skip
    parser.add_argument(
        "--dilate", type=int, default=DILATE, metavar="PX",
        help=f"pixels by which masks grow, so that no rim of the object stays (default: {DILATE})",
    )  # fmt: skip
    parser.add_argument(
        "--keep-audio", action=argparse.BooleanOptionalAction, default=True, help="keep the sound (default: yes)"
    )
    parser.add_argument("--compare", action="store_true", help="write before and after side by side as well")
    parser.add_argument("--force", action="store_true", help="replace FILE, and compute everything anew")
    parser.add_argument("--dry-run", action="store_true", help="say what would be filled, and write nothing")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    add_connection_options(parser)


def run(args: argparse.Namespace) -> int:
    """Fill, write, report. Returns 0, or 130 if Ctrl-C stopped it. Raises TamError."""
    settings = Settings.from_env(os.environ)
    _check_options(args)
    if args.backend is not None:
        return inpaint_remote.run(args)
    with contextlib.ExitStack() as stack:
        task = None
        if args.task is not None:
            with resumable():
                client = connect(args)
                task = StudioTask(client, args.task)
            if args.video is None:
                work = work_folder(args.out)
                if args.dry_run:
                    work = Path(stack.enter_context(TemporaryDirectory(prefix="tam-inpaint-")))
                args.video = _fetch_video(task, client.connection, work, settings)
        video = stack.enter_context(contextlib.closing(_open(args.video)))
        masks = task.masks(video) if task is not None else _masks(args.masks, video, args.video)
        usual = task.accepted.cut.frames if task is not None else range(len(video))
        frames = choose_frames(args.start, args.end, usual, len(video))
        holes = ObjectHoles(masks, frames, choose_objects(args.object, masks), args.dilate)
        engine = load_inpainter(args.engine or settings.inpaint, settings)
        for note in (video.warning, engine.terms):
            if note:
                print(f"tam inpaint: note: {note}", file=sys.stderr)
        if args.dry_run:
            print(_plan(args.out, video, holes, frames, engine))
            return 0
        return _work(args, video, frames, holes, engine)


def _work(args: argparse.Namespace, video: Source, frames: range, holes: ObjectHoles, engine: Inpainter) -> int:
    described = {
        "video": video.key,
        "masks": holes.key,
        "frames": [frames.start, frames.stop],
        "engine": f"{engine.name}-{engine.version}",
    }
    began = time.monotonic()
    with (
        WorkFolder(work_folder(args.out), args.out, described, force=args.force) as work,
        Interruption() as interruption,
    ):
        filling = engine.begin(video, holes, frames, work.store)
        try:
            _fill(filling, interruption, args.quiet)
            seconds = time.monotonic() - began
            _write(args, video, frames, holes, filling, engine.terms, interruption)
        except _Stopped:
            print("tam inpaint: stopped; the same command goes on from here", file=sys.stderr)
            return 130
        print(_report(args.out, holes, filling, seconds))
        work.remove()
    return 0


def _task_number(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text}: a task is a number, as the column ID of the project shows it")
    return int(text)


def _check_options(args: argparse.Namespace) -> None:
    if (args.masks is None) == (args.task is None):
        raise BadInput("say where the masks are: VIDEO and MASKS, or --task ID (one of the two)")
    if not 0 <= args.dilate <= MAX_DILATE:
        raise BadInput(f"--dilate {args.dilate}: give a number of pixels from 0 to {MAX_DILATE}")
    check_place(args.out, [p for p in (args.video, args.masks) if p is not None], args.force)
    compare = _compare_path(args.out)
    if args.compare and compare.exists() and not args.force:
        raise BadInput(f"--compare: {compare} is there already; choose another --out, or --force to replace it")


def _compare_path(out: Path) -> Path:
    return out.with_name(f"{out.stem}-compare.mp4")


def _open(path: Path) -> Source:
    if not path.exists():
        raise BadInput(f"there is no file or folder {path}")
    try:
        return open_source(path)
    except MediaError as e:
        raise BadInput(str(e)) from e


def _fetch_video(task: StudioTask, connection: Connection, folder: Path, settings: Settings) -> Path:
    """The video of the task, downloaded into a folder. Raises MediaError if it cannot be had."""
    url = absolute_url(task.data.get(task.config.video_key), connection, task.project)
    target = folder / f"video{Path(urlsplit(url).path).suffix}"
    if not target.exists():
        Downloader.from_settings(settings).fetch(url, connection, target)
    return target


def _masks(path: Path, video: Source, video_path: Path) -> Masks:
    if path.is_dir():
        return MaskFolder(path, video)
    if path.suffix.lower() == ".json" and path.exists():
        return read_json_export(path, video, video_path.name)
    what = "is neither a folder nor a .json file" if path.exists() else "does not exist"
    raise BadInput(
        f"MASKS: {path} {what}; give the folder that tam track wrote, one of PNG files, or an export of Label Studio"
    )


def _fill(filling: Filling, interruption: Interruption, quiet: bool) -> None:
    """All of the engine's work. Raises _Stopped on Ctrl-C."""
    with progress(None, filling.total, "filling", unit="step", quiet=quiet) as bar:
        for done in filling.steps():
            bar.update(done - bar.n)
            if interruption.requested:
                raise _Stopped


def _write(
    args: argparse.Namespace,
    video: Source,
    frames: range,
    holes: ObjectHoles,
    filling: Filling,
    terms: str,
    interruption: Interruption,
) -> None:
    """The output, and the comparison where it is asked for. Raises _Stopped on Ctrl-C: then there is neither."""
    compare = _compare_path(args.out) if args.compare else None
    written = write_result(args.out, compare, video, frames, holes, filling, terms, keep_audio=args.keep_audio)
    with contextlib.closing(written):
        for _ in progress(written, len(frames), "writing", quiet=args.quiet):
            if interruption.requested:
                raise _Stopped


def _plan(out: Path, video: Source, holes: ObjectHoles, frames: range, engine: Inpainter) -> str:
    """What would be done."""
    report = holes.report
    share = sum(report.pixels.values()) / (report.total * len(frames))
    return (
        f"{len(frames)} frames ({frames[0]} to {frames[-1]}) of {video.width}x{video.height} pixels would be written "
        f"to {out} by the engine {engine.name}: holes on {len(report.with_hole)} of them, {100 * share:.1f} % of all "
        "pixels\nnothing is written: this was a dry run"
    )


def _report(out: Path, holes: ObjectHoles, filling: Filling, seconds: float) -> str:
    """What was done, and how much of it is invented."""
    summary = holes.report.summary(filling)
    text = f"{summary.frames} frames in {out}: holes on {summary.with_hole} of them filled in {seconds:.1f} s"
    return text + f" ({1000 * seconds / summary.frames:.0f} ms a frame).{summary.sentences()}"
