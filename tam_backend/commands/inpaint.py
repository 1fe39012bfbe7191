"""``tam inpaint``: take tracked objects out of a video."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tam_backend.commands.inpaint_masks import MaskFolder, Masks, ObjectHoles
from tam_backend.commands.inpaint_output import (
    FrameFolder,
    Times,
    WorkFolder,
    beside,
    beside_size,
    check_place,
    work_folder,
)
from tam_backend.commands.inpaint_task import StudioTask, TaskMasks
from tam_backend.commands.studio import add_connection_options, connect
from tam_backend.commands.track_progress import Interruption, progress
from tam_backend.errors import BadInput, MediaError
from tam_backend.inpainting.base import Filling, filled
from tam_backend.inpainting.engines import load_inpainter
from tam_backend.settings import INPAINT_ENGINES, Settings
from tam_backend.video import open_source
from tam_backend.video.audio import Sound
from tam_backend.video.base import Frame
from tam_backend.video.images import ImageReader
from tam_backend.video.reader import VideoReader
from tam_backend.video.write import VideoWriter

Source = VideoReader | ImageReader

_DESCRIPTION = """\
Take objects out of a video, and fill what was behind them. The masks of the objects come from `tam track`, from a task
in Label Studio, or from any folder of PNG files named by the numbers of their frames.
"""

_EPILOG = """\
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

Exit codes: 0 done, 1 failed, 2 something given cannot be used, 130 stopped by Ctrl-C.
"""


MAX_DILATE = 200


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
        "masks", type=Path, nargs="?", metavar="MASKS", help="a folder of masks, one PNG a frame; or give --task"
    )
    parser.add_argument(
        "--task",
        metavar="ID",
        help="use the accepted masks of this task in Label Studio",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE",
        help="what to write: a video (FILE.mp4), or, without an ending, a folder of PNG frames",
    )  # fmt: skip
    parser.add_argument(
        "--object", action="append", default=[], metavar="ID",
        help="an object to take out: its number, or its label with --task; may be given many times (default: all). "
        "The other objects stay, and are not taken for background",
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
        "--dilate", type=int, default=6, metavar="PX",
        help="pixels by which masks grow, so that no rim of the object stays (default: 6)",
    )  # fmt: skip
    parser.add_argument(
        "--keep-audio", action=argparse.BooleanOptionalAction, default=True, help="keep the sound (default: yes)"
    )
    parser.add_argument("--compare", action="store_true", help="write before and after side by side as well")
    parser.add_argument("--force", action="store_true", help="replace FILE, and compute everything anew")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    add_connection_options(parser)


def run(args: argparse.Namespace) -> int:
    """Fill, write, report. Returns 0, or 130 if Ctrl-C stopped it. Raises TamError."""
    settings = Settings.from_env(os.environ)
    _check_options(args)
    work_path = work_folder(args.out)
    task = None if args.task is None else StudioTask(connect(args), args.task)
    if args.video is None:
        assert task is not None
        args.video = task.fetch_video(work_path, settings)
    with contextlib.closing(_open(args.video)) as video:
        masks: Masks = _folder(args.masks, video) if task is None else TaskMasks(task, video)
        frames = _frames(args, range(len(video)) if task is None else task.cut.frames, len(video))
        holes = ObjectHoles(masks, frames, _objects(args.object, masks), args.dilate)
        engine = load_inpainter(args.engine or settings.inpaint, settings)
        for note in (video.warning, engine.terms):
            if note:
                print(f"tam inpaint: note: {note}", file=sys.stderr)
        described = {
            "video": video.key,
            "masks": holes.key,
            "frames": [frames.start, frames.stop],
            "engine": f"{engine.name}-{engine.version}",
        }
        began = time.monotonic()
        with (
            WorkFolder(work_path, args.out, described, force=args.force) as work,
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
            print(_report(args.out, holes, filling, frames, seconds))
            work.remove()
    return 0


def _check_options(args: argparse.Namespace) -> None:
    if (args.masks is None) == (args.task is None):
        raise BadInput("say where the masks are: VIDEO and a folder MASKS, or --task ID (one of the two)")
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


def _frames(args: argparse.Namespace, default: range, length: int) -> range:
    """default: the frames to work on where nothing is said."""
    first = default[0] if args.start is None else args.start
    last = default[-1] if args.end is None else args.end
    for option, frame in (("--start", first), ("--end", last)):
        if not 0 <= frame < length:
            raise BadInput(f"{option} {frame}: there is no such frame, the video has frames 0 to {length - 1}")
    if first > last:
        raise BadInput(f"--start {first} is after --end {last}")
    return range(first, last + 1)


def _folder(path: Path, video: Source) -> MaskFolder:
    if not path.is_dir():
        what = "is not a folder" if path.exists() else "does not exist"
        raise BadInput(f"MASKS: {path} {what}; give the folder that tam track wrote, or one of PNG files")
    return MaskFolder(path, video)


def _objects(given: list[str], masks: Masks) -> list[int]:
    numbers = {name: i for i, name in masks.names.items()}
    result = []
    for text in given:
        if text in numbers:
            result.append(numbers[text])
        elif text.isdecimal() and 1 <= int(text) <= 255:
            result.append(int(text))
        else:
            known = f"; the labels there are {', '.join(numbers)}" if numbers else ""
            raise BadInput(f"--object {text}: an object is a number from 1 to 255{known}")
    return result


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
    times = Times(args.video, video, frames)
    comment = f"Objects were taken out of this video with tam inpaint. {terms}".strip()
    size = (video.width, video.height)
    with contextlib.ExitStack() as stack:
        write: list[Callable[[int, Frame, Frame], None]] = []

        def add_video(path: Path, size: tuple[int, int], picture: Callable[[Frame, Frame], Frame]) -> None:
            sound = None
            if args.keep_audio and isinstance(video, VideoReader):
                sound = stack.enter_context(Sound(args.video, times.start, times.end))
            writer = stack.enter_context(
                VideoWriter(path, video.fps, size, time_base=times.base, sound=sound, comment=comment)
            )
            write.append(lambda frame, before, after: writer.write(picture(before, after), times.of(frame)))

        if args.compare:
            add_video(_compare_path(args.out), beside_size(size), beside)
        if args.out.suffix:
            add_video(args.out, size, lambda before, after: after)
        else:
            folder = stack.enter_context(FrameFolder(args.out, terms))
            write.append(lambda frame, before, after: folder.write(frame, after))
        bar = stack.enter_context(progress(frames, len(frames), "writing", quiet=args.quiet))
        for frame in bar:
            after = filled(video, holes, filling, frame)
            before = video[frame] if args.compare else after
            for one in write:
                one(frame, before, after)
            if interruption.requested:
                raise _Stopped


def _report(out: Path, holes: ObjectHoles, filling: Filling, frames: range, seconds: float) -> str:
    """What was done, and how much of it is invented."""
    report = holes.report
    with_hole = report.with_hole
    text = f"{len(frames)} frames in {out}: holes on {len(with_hole)} of them filled in {seconds:.1f} s"
    text += f" ({1000 * seconds / len(frames):.0f} ms a frame)."
    unseen = {f: n for f in with_hole if (n := filling.unseen(f)) is not None}
    if unseen:
        share = sum(unseen.values()) / sum(report.pixels.values())
        worst = max(unseen, key=lambda f: unseen[f] / report.pixels[f])
        text += f"\nNever seen on any frame, and so invented: {100 * share:.1f} % of the holes"
        if share:
            text += f"; most on frame {worst}, {100 * unseen[worst] / report.pixels[worst]:.0f} %"
        text += "."
    if report.covered:
        text += f"\nOn {len(report.covered)} frames the mask covers everything (first: {report.covered[0]})."
    return text
