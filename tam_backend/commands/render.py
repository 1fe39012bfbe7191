"""``tam render``: masks drawn on their frames, for people to look at."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tam_backend.commands.sources import add_source, find_folder, open_folder, open_project, with_progress
from tam_backend.commands.studio import EPILOG
from tam_backend.errors import BadInput
from tam_backend.export.dataset import Dataset, Video
from tam_backend.export.render import write_overlay, write_side_by_side, write_worst
from tam_backend.quality import NEEDS_A_LOOK

_LOOKS = {
    "overlay": "a video: masks, names, quality, and a bar below that shows the quality of all frames",
    "side-by-side": "a video: before on the left, after on the right",
    "worst": "a picture: the frames of lowest quality, worst first",
}

_DESCRIPTION = """\
Draw masks on their frames: a video or a sheet for each video of a project, or of a folder of tam track or tam export.

The bar below a video stands for its frames from left to right. Blue: a person made a mask there. Green: good. Red:
needs a look. Grey: not known.
"""

_EPILOG = f"""\
kinds:
{"".join(f"  {name:<13} {text}{chr(10)}" for name, text in _LOOKS.items())}
examples:
  What was submitted in a project:
      tam render 12 --out videos
  What people changed: predictions on the left, what was submitted on the right:
      tam render 12 --as side-by-side --out changes
  Two runs of tam track:
      tam render second --video video.mp4 --as side-by-side --before first --out compared
  Where to look first:
      tam render masks --video video.mp4 --as worst --out sheets

{EPILOG}"""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "render",
        help="videos and sheets with the masks drawn in",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--as", dest="look", choices=list(_LOOKS), default="overlay", help="default: overlay")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write to; it is made")
    parser.add_argument(
        "--before", type=Path, metavar="DIR",
        help="for side-by-side: folder of tam track or tam export with the masks on the left (default: of a project "
        "its predictions, of a folder no masks)",
    )  # fmt: skip
    parser.add_argument("--count", type=int, default=12, metavar="N", help="for worst: frames on a sheet (default: 12)")
    parser.add_argument("--force", action="store_true", help="replace files of the same names in DIR")
    parser.add_argument("--dry-run", action="store_true", help="say what would be written, and write nothing")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    add_source(parser)


def run(args: argparse.Namespace) -> int:
    """Draw and write. Raises TamError."""
    if args.before is not None and args.look != "side-by-side":
        raise BadInput("--before goes with --as side-by-side")
    if not 1 <= args.count <= 100:
        raise BadInput(f"--count {args.count}: a sheet has 1 to 100 frames")
    with ExitStack() as stack:
        work = Path(stack.enter_context(TemporaryDirectory(prefix="tam-render-")))
        folder = find_folder(args)
        before: Dataset | None = open_folder(args.before, None) if args.before is not None else None
        if folder is not None:
            dataset = open_folder(folder, args.video)
        else:
            dataset = open_project(args, work / "after", pictures=not args.dry_run, command="render")[2].dataset
            if args.look == "side-by-side" and before is None:
                before = open_project(
                    args, work / "before", pictures=False, kind="predictions", command="render"
                )[2].dataset  # fmt: skip
        files = {
            v.name: args.out / f"{v.name}{'-worst.jpg' if args.look == 'worst' else '.mp4'}" for v in dataset.videos
        }
        _refuse(dataset, files, args)
        if args.dry_run:
            for video in dataset.videos:
                print(f"{files[video.name]}: {len(video.frames)} frames")
            print("nothing is written: this was a dry run")
            return 0
        args.out.mkdir(parents=True, exist_ok=True)
        for video in with_progress(dataset, args.look, quiet=args.quiet).videos:
            print(_look(args, before)(video, files[video.name]))
    return 0


def _look(args: argparse.Namespace, before: Dataset | None) -> Callable[[Video, Path], str]:
    """What writes one file, and says what it has written."""

    def overlay(video: Video, path: Path) -> str:
        write_overlay(video, path)
        return f"{path}: {len(video.frames)} frames"

    def side_by_side(video: Video, path: Path) -> str:
        left = _same(before, video) if before is not None else None
        write_side_by_side(left, video, path)
        return f"{path}: {len(video.frames)} frames"

    def worst(video: Video, path: Path) -> str:
        chosen = write_worst(video, path, args.count)
        if not chosen:
            return f"{video.name}: no sheet, because the quality of its masks is not known"
        poor = sum(1 for _, found in chosen if found.quality is not None and found.quality < NEEDS_A_LOOK)
        return f"{path}: {len(chosen)} frames, {poor} of them need a look; the worst is {chosen[0][0]}"

    return {"overlay": overlay, "side-by-side": side_by_side, "worst": worst}[args.look]


def _same(before: Dataset, video: Video) -> Video | None:
    """The video of the same name, or the only one, with tracks numbered by the labels of ``video``."""
    found = next((v for v in before.videos if v.name == video.name), None)
    if found is None and len(before.videos) == 1:
        found = before.videos[0]
    if found is None:
        print(f"tam render: note: {video.name} has no masks before", file=sys.stderr)
        return None
    if (found.height, found.width) != (video.height, video.width):
        raise BadInput(f"--before: {found.name} is {found.width}x{found.height}, not {video.width}x{video.height}")
    return replace(found, tracks=video.tracks)


def _refuse(dataset: Dataset, files: dict[str, Path], args: argparse.Namespace) -> None:
    """Raises BadInput where there are no pictures, or files in the way."""
    for video in dataset.videos:
        if video.pictures is None and not args.dry_run:
            raise BadInput(
                f"there are no pictures of {video.name} to draw on: give --video, or run tam track with --pictures"
            )
    there = [p for p in files.values() if p.exists()]
    if there and not args.force:
        raise BadInput(f"{there[0]} exists; choose another --out, or --force to replace it")
