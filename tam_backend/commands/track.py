"""``tam track``: objects through a video, from the command line."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tam_backend.commands.track_explain import (
    begin_folder,
    refuse_foreign,
    rows_of,
    write_pictures,
    write_tables,
)
from tam_backend.commands.track_output import OVERLAY, PICTURES, OutputFolder
from tam_backend.commands.track_predictions import REGION_TYPES, Naming, name_objects
from tam_backend.commands.track_progress import Interruption, progress
from tam_backend.commands.track_prompts import collect_prompts, parse_click, parse_label, parse_mask
from tam_backend.commands.track_work import Work
from tam_backend.drawing import draw_objects
from tam_backend.engines import load_engine
from tam_backend.errors import BadInput, MediaError
from tam_backend.settings import Settings
from tam_backend.tracking.tracker import Tracker
from tam_backend.video import open_source
from tam_backend.video.images import ImageReader
from tam_backend.video.reader import VideoReader
from tam_backend.video.write import VideoWriter

Source = VideoReader | ImageReader

_DESCRIPTION = """\
Track objects through a video. Say where each object is on some frame, by clicks or by a mask, and get its mask on every
frame, before and after.

Positions are pixels of the frame as it is shown: x to the right and y downwards from the top left corner. Frames are
counted from 0, also in the names of the files. An object is a number from 1 to 255.
"""

_EPILOG = """\
examples:
  One click on the first frame, and a video to look at the result:
      tam track video.mp4 --click 0,320,240 --out masks --overlay
  Two objects, the second one clicked twice, the last time to say "this is not it":
      tam track video.mp4 --click 0,320,240:1 --click 0,500,200:2 --click 0,540,260,-:2 --out masks
  A first mask drawn in another program (indexed: pixel value = object; or black and white):
      tam track frames/ --mask 0=first.png --out masks
  Correct a result: frame 40 has a leak, frame 90 lost the object. Only the frames around them are computed again:
      tam track video.mp4 --click 0,320,240 --click 40,100,80,- --click 90,300,210 --out masks --overlay
  Frames 200 to 299 for Label Studio, with the frames themselves:
      tam track video.mp4 --start 200 --end 299 --click 210,320,240 --label 1=Person --out person --pictures

what is written to DIR:
  00000.png ...       a mask for every frame: indexed PNG, pixel value = object, 0 = background
  overlay.mp4         with --overlay
  explain/            with --explain
  predictions.json    the masks as a task for Label Studio, with label_config.xml for its project
  .tam/               finished work. The same command goes on where it was stopped, by Ctrl-C or otherwise; other
                      prompts compute only what they change. Delete it to save space.

to import into Label Studio:
  1. Run with --pictures and have DIR/frames served: put DIR into a folder that is connected as local storage (the
     addresses then are /data/local-files/?d=DIR/frames/00000.jpg), or give another address with --pictures-url.
  2. Make a project with label_config.xml as its labeling configuration, and import predictions.json.
  For more than 100 frames a task use --region-type bitmask: the page stays quick.
  For a task that exists, with the same frames: POST /api/predictions with its id and "result" of predictions.json.
"""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "track",
        help="track objects through a video",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("video", type=Path, metavar="VIDEO_OR_FOLDER", help="a video, or a folder of images as frames")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write to; it is made")
    prompts = parser.add_argument_group("what to track (at least one; each may be given many times)")
    prompts.add_argument(
        "--click", action="append", default=[], type=parse_click, metavar="FRAME,X,Y[,-][:OBJECT]",
        help="a point on the object; with ,- a point that is not on it. On a frame that has such points only, they "
        "take away from the mask that the other prompts give there. OBJECT: default 1",
    )  # fmt: skip
    prompts.add_argument(
        "--mask", action="append", default=[], type=parse_mask, metavar="FRAME=PNG[:OBJECT]",
        help="the mask on a frame, which stays as it is: an indexed PNG (each value is an object) or a black and white "
        "one (of object OBJECT, default 1). An empty mask with OBJECT: the object is not on this frame",
    )  # fmt: skip
    prompts.add_argument(
        "--refine-masks", action="store_true",
        help="the masks given are rough ones: draw their outlines anew, near to where they are, and let clicks on the "
        "same frame change them",
    )  # fmt: skip
    parser.add_argument("--start", type=int, default=0, metavar="FRAME", help="first frame to track (default: 0)")
    parser.add_argument("--end", type=int, metavar="FRAME", help="last frame to track (default: the last one)")
    parser.add_argument(
        "--engine", metavar="NAME",
        help="what tracks: embedded (CPU, no download), sam-xmem (needs checkpoints: see `tam checkpoints`), or auto, "
        "the default: sam-xmem if its checkpoints are there, else embedded. The options TAM_ENGINE, TAM_SAM, "
        "TAM_DEVICE and others of `tam serve --help` count here as well",
    )  # fmt: skip
    parser.add_argument(
        "--finish", action="store_true",
        help="when all frames are done, track once more with all frames that have prompts in memory, and keep what is "
        "better. Useful for objects with prompts on several frames",
    )  # fmt: skip
    parser.add_argument("--overlay", action="store_true", help="write overlay.mp4: the video with the masks drawn in")
    parser.add_argument(
        "--explain", action="store_true",
        help="write explain/frames.csv: on which frames masks were refined, or were not, and why; with pictures of the "
        "points",
    )  # fmt: skip
    parser.add_argument("--force", action="store_true", help="replace files in DIR, and compute everything anew")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    studio = parser.add_argument_group("for Label Studio")
    studio.add_argument(
        "--label", action="append", default=[], type=parse_label, metavar="OBJECT=NAME",
        help="label of an object (default: Object 1, ...)",
    )  # fmt: skip
    studio.add_argument("--from-name", default="mask", metavar="NAME", help="name of the mask tag (default: mask)")
    studio.add_argument("--to-name", default="image", metavar="NAME", help="name of the Image tag (default: image)")
    studio.add_argument(
        "--region-type", choices=sorted(REGION_TYPES), default="brush", help="brush (default) or bitmask: the mask tag"
    )
    studio.add_argument("--pictures", action="store_true", help="write the frames as DIR/frames/00000.jpg")
    studio.add_argument(
        "--pictures-url", metavar="URL",
        help="address of the folder DIR/frames (default: /data/local-files/?d=NAME/frames, where NAME is DIR's name)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Track, write, report. Returns 0, or 130 if Ctrl-C stopped it. Raises TamError."""
    settings = Settings.from_env(os.environ)
    with contextlib.closing(_open(args.video)) as video:
        frames = _frames(args, len(video))
        prompts = collect_prompts(args.click, args.mask, video, frames, args.refine_masks)
        naming = Naming(args.from_name, args.to_name, args.region_type, name_objects(prompts, args.label))
        _protect_inputs(args)
        if args.explain:
            refuse_foreign(args.out)
        engine = load_engine(args.engine or settings.engine, settings)
        if video.warning:
            print(f"tam track: note: {video.warning}", file=sys.stderr)
        described = {
            "video": video.key,
            "name": args.video.name,
            "engine": engine.id,
            "frames": [frames.start, frames.stop],
            "objects": {str(i): {str(f): p.digest() for f, p in on.items()} for i, on in prompts.items()},
        }
        with (
            OutputFolder(args.out, described, pictures=args.pictures, force=args.force) as out,
            Tracker(engine, video, frames, out.store) as tracker,
            Interruption() as interruption,
        ):
            if out.other_engine:
                print(
                    f"tam track: note: {args.out} has masks of the engine {out.other_engine}; now it is "
                    f"{described['engine']}, so all masks are computed anew",
                    file=sys.stderr,
                )
            focus = (args.click or args.mask)[0].frame
            work = Work(tracker, prompts, out, interruption, quiet=args.quiet)
            work.track(focus)
            if args.finish and not work.stopped:
                work.finish(focus)
            _write_task(args, naming, work, engine.name)
            interruption.rearm()
            _write_pictures(args, video, work)
            if args.explain:
                _write_explanation(args.out, video, work)
            print(work.report(args.out))
            if work.failure is not None:
                raise work.failure
            if work.stopped or interruption.requested:
                print("tam track: stopped; the same command goes on from here", file=sys.stderr)
                return 130
    return 0


def _open(path: Path) -> Source:
    if not path.exists():
        raise BadInput(f"there is no file or folder {path}")
    try:
        return open_source(path)
    except MediaError as e:
        raise BadInput(str(e)) from e


def _frames(args: argparse.Namespace, length: int) -> range:
    last = length - 1 if args.end is None else args.end
    for option, frame in (("--start", args.start), ("--end", last)):
        if not 0 <= frame < length:
            raise BadInput(f"{option} {frame}: there is no such frame, the video has frames 0 to {length - 1}")
    if args.start > last:
        raise BadInput(f"--start {args.start} is after --end {last}")
    return range(args.start, last + 1)


def _protect_inputs(args: argparse.Namespace) -> None:
    """Nothing that was given as input may be where output is replaced. Raises BadInput."""
    out = args.out.resolve()
    if args.video.resolve() == out / OVERLAY:
        raise BadInput(f"--out {args.out}: {OVERLAY} there is the video itself; choose another folder")
    if args.video.resolve() in (out, out / PICTURES):
        raise BadInput(f"--out {args.out} is the folder of the frames; choose another one, such as {args.out}/masks")
    for option in args.mask:
        if option.path.resolve().parent == out:
            raise BadInput(
                f"--mask {option.text}: the file is in the folder of --out, where files are replaced; "
                "move it to another folder"
            )


def _write_pictures(args: argparse.Namespace, video: Source, work: Work) -> None:
    """``overlay.mp4`` and the frames as JPEG, as far as they are asked for, in one pass over the video."""
    overlay_path = args.out / OVERLAY
    if not args.overlay and work.fresh:
        overlay_path.unlink(missing_ok=True)  # of an earlier call: it lacks the frames that this one has computed
    if not work.finished or not (args.overlay or args.pictures):
        return
    finished = set(work.finished)
    frames = work.finished if work.stopped or not args.pictures else list(work.tracker.frames)
    title = "overlay" if args.overlay else "pictures"
    with contextlib.ExitStack() as stack:
        overlay = None
        if args.overlay:
            overlay = stack.enter_context(VideoWriter(overlay_path, video.fps, (video.width, video.height)))
        bar = stack.enter_context(progress(frames, len(frames), title, quiet=args.quiet))
        for frame in work.interruption.stoppable(bar):
            picture = video[frame]
            if args.pictures:
                work.out.write_picture(frame, picture)
            if overlay is not None and frame in finished:
                overlay.write(draw_objects(picture, work.out.read_ids(frame), frame))


def _write_explanation(out: Path, video: Source, work: Work) -> None:
    folder, rows = begin_folder(out), []
    for frame in work.interruption.stoppable(work.finished):
        qualities = {i: q for i, q in work.qualities[frame].items() if frame not in work.anchors[i]}
        here = rows_of(frame, qualities, work.decisions(frame))
        rows += here
        if any(row.decision is not None and row.decision.points for row in here):
            write_pictures(folder, video[frame], work.out.read_ids(frame), here)
    write_tables(folder, rows)


def _write_task(args: argparse.Namespace, naming: Naming, work: Work, engine: str) -> None:
    """``predictions.json`` and ``label_config.xml``."""
    if work.finished:
        pictures = args.pictures_url or f"/data/local-files/?d={quote(args.out.resolve().name)}/{PICTURES}"
        work.write_task(args.video.name, pictures, naming, engine)
