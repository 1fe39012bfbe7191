"""``tam import``: videos become tasks with frames, in clips that a browser can bear."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

import defusedxml.ElementTree as SafeElementTree

from tam_backend.commands.import_frames import FrameStore, LocalFiles, Uploads
from tam_backend.commands.import_seeds import Seeds, read_seeds, seed_path
from tam_backend.commands.import_sources import UPLOADABLE, VideoSource, find_sources
from tam_backend.commands.studio import EPILOG, add_connection_options, add_project, connect, resumable
from tam_backend.commands.track_progress import progress
from tam_backend.errors import BadInput, LabelStudioError, MediaError
from tam_backend.labelstudio.clips import NOTE_KEY
from tam_backend.labelstudio.config import LabelConfig, parse_label_config
from tam_backend.labelstudio.cuts import CUT_KEY, PLAN_KEY, SOURCE_KEY, Cut, CutPlan
from tam_backend.labelstudio.instances import Vocabulary
from tam_backend.labelstudio.projects import Json, ProjectClient
from tam_backend.labelstudio.seeds import SEEDS_KEY
from tam_backend.video import ImageReader, VideoReader, open_source

#: Until a backend that has not begun with a task is asked by opening the task, and until we stop waiting for it.
_NUDGE_SECONDS, _POLL_SECONDS = 10.0, 1.0

_DESCRIPTION = """\
Make tasks of videos. VIDEO is a file, a folder (of videos, or of pictures as the frames of one), a pattern in quotes,
or an address: http(s)://, s3://, gs://, azure-blob://, /data/local-files/?d=...

Long videos become several tasks (clips). What is tracked in one clip goes on in the next ones.
"""

_EPILOG = f"""\
examples:
  All videos of a folder, in clips of 100 frames that share their border frame:
      tam import Street videos/
  Look first: what would be made, and nothing is.
      tam import Street videos/*.mp4 --dry-run
  Every 5th frame of a minute, with the boxes of a detector as a start:
      tam import Street day.mp4 --every 5 --start 0 --end 1799 --seed detections.json
  Label Studio serves the frames itself, from a disk that it shares with this machine:
      tam import Street video.mov --frames-from local-files --local-root /srv/label-studio

where frames come from (--frames-from):
  backend      the backend decodes them when a browser asks: nothing to wait for, no disk. Browsers must reach it.
               mp4 and webm are uploaded; others have to be converted, or named by an address.
  upload       they are decoded here and uploaded as JPEG, with the video beside them if it is mp4 or webm
  local-files  they are decoded here and written below --local-root, which Label Studio serves (it must be started with
               LOCAL_FILES_SERVING_ENABLED=true and LOCAL_FILES_DOCUMENT_ROOT)

seeds (--seed): a file, or a folder with a file or folder for each video, named as the video. Files and pictures are
named with their frame number, such as street_00012.
  COCO         .json with images, categories, annotations; segmentation before bbox; track_id if there is one
  YOLO         .txt for each frame: boxes or polygons; classes.txt for the names, else the project's classes in order
  DAVIS        .png for each frame: pixel value 1 is the project's first label, and so on; they stay as they are
Without track ids the first frame counts on which a class is seen.

Run it again after whatever happened: videos that are there already are recognised by their content, and what is missing
is added.

{EPILOG}"""


@dataclass(frozen=True, slots=True)
class _Project:
    """config: None for a project with <Video>, which shows videos and no frames. video_key: of task data."""

    id: int
    title: str
    config: LabelConfig | None
    vocabulary: Vocabulary
    video_key: str


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "import",
        help="bring videos into a Label Studio project: frames, clips, first masks",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_project(parser)
    parser.add_argument("videos", nargs="+", metavar="VIDEO", help="file, folder, pattern or address")
    parser.add_argument(
        "--frames-from", choices=["backend", "upload", "local-files"], default="backend",
        help="who shows frames to browsers (default: backend); see below",
    )  # fmt: skip
    cut = parser.add_argument_group("clips")
    cut.add_argument("--clip", type=int, default=100, metavar="N", help="frames of a clip (default: 100)")
    cut.add_argument(
        "--overlap", type=int, default=1, metavar="N", help="frames that a clip shares with the one before (default: 1)"
    )
    cut.add_argument("--every", type=int, default=1, metavar="N", help="only every N-th frame (default: all)")
    cut.add_argument("--start", type=int, default=0, metavar="FRAME", help="first frame (default: 0)")
    cut.add_argument("--end", type=int, metavar="FRAME", help="last frame (default: the last one)")
    seeds = parser.add_argument_group("first boxes and masks")
    seeds.add_argument("--seed", type=Path, metavar="PATH", help="start tracks with these, without clicks; see below")
    seeds.add_argument(
        "--seed-class", action="append", default=[], type=_parse_pair, metavar="NAME=CLASS",
        help="a class of the seeds is this class of the project",
    )  # fmt: skip
    pictures = parser.add_argument_group("pictures (upload, local-files)")
    pictures.add_argument("--quality", type=int, default=90, metavar="1-100", help="JPEG quality (default: 90)")
    pictures.add_argument("--local-root", type=Path, metavar="DIR", help="LOCAL_FILES_DOCUMENT_ROOT on this machine")
    pictures.add_argument(
        "--local-root-there", metavar="DIR", help="the same folder as Label Studio sees it (default: as --local-root)"
    )
    parser.add_argument(
        "--frames-wait", type=float, default=120.0, metavar="SECONDS",
        help="how long to wait for the backend to make clips (default: 120; it goes on without us)",
    )  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and change nothing")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    add_connection_options(parser)


def run(args: argparse.Namespace) -> int:
    """Import, and return 0; 1 if a video could not be. Raises TamError."""
    try:
        plan = CutPlan(args.clip, args.overlap, args.every, args.start, args.end)
    except BadInput as e:
        raise BadInput(f"--clip, --overlap, --every, --start, --end: {e}") from e
    if not 1 <= args.quality <= 100:
        raise BadInput(f"--quality {args.quality}: it is a number from 1 to 100")
    if (args.frames_from == "local-files") != (args.local_root is not None):
        raise BadInput("--frames-from local-files and --local-root go together")
    sources = find_sources(args.videos)
    seeds_of = {s.source: seed_path(args.seed, Path(s.shown).stem, len(sources)) for s in sources} if args.seed else {}
    client = connect(args)
    project = _project(client, args.project)
    with resumable():
        return _Import(client, args, plan, project, seeds_of).run(sources)


class _Import:
    """One call. seeds_of: source -> where its seeds are."""

    def __init__(
        self, client: ProjectClient, args: argparse.Namespace, plan: CutPlan, project: _Project,
        seeds_of: Mapping[str, Path | None],
    ) -> None:  # fmt: skip
        self._client = client
        self._args = args
        self._plan = plan
        self._project = project
        self._seeds_of = seeds_of
        self._there: dict[str, list[Json]] = {}
        for task in client.tasks(project.id):
            if isinstance(source := task["data"].get(SOURCE_KEY), str):
                self._there.setdefault(source, []).append(task)
        if args.frames_from == "backend" and project.config and not client.backends(project.id):
            raise BadInput(
                f"project {project.id} has no backend that could make frames: connect one (tam project create), or say "
                "--frames-from upload"
            )
        self._store: FrameStore | None = None

    def run(self, sources: list[VideoSource]) -> int:
        if self._args.dry_run:
            print(f"Nothing is changed (--dry-run). Project {self._project.id}, {self._project.title!r}:")
        failed, waiting = 0, []
        for number, source in enumerate(sources, 1):
            print(f"[{number}/{len(sources)}] {source.shown}", flush=True)
            try:
                if self._one(source):
                    waiting.append(source)
            except (BadInput, MediaError) as e:
                failed += 1
                print(f"tam import: {source.shown}: {e}", file=sys.stderr)
        return int(bool(failed + self._wait(waiting)))

    def _one(self, source: VideoSource) -> bool:
        """Import a video. Returns whether the backend has to make its clips."""
        there = self._there.get(source.source, [])
        if self._project.config is None:
            self._whole(source, there)
            return False
        with contextlib.closing(open_source(source.path)) if source.path else contextlib.nullcontext() as reader:
            count = len(reader) if reader else None
            cuts = self._plan.cuts(count) if count is not None else None
            seeds = self._seeds(source, reader, cuts)
            if cuts is not None and count is not None:
                print(f"  {count} frames, {len(cuts)} clip{'s' * (len(cuts) > 1)}: {_described(cuts)}")
            if self._args.frames_from == "backend":
                return self._by_backend(source, there, seeds)
            if reader is None or cuts is None or count is None:
                raise BadInput(f"--frames-from {self._args.frames_from} needs a file on this machine, not an address")
            self._as_pictures(source, reader, cuts, count, there, seeds)
        return False

    # ---- the ways

    def _by_backend(self, source: VideoSource, there: list[Json], seeds: Seeds) -> bool:
        if there:
            self._say_there(there)
            return not self._args.dry_run
        if source.path is not None and source.path.is_dir():
            raise BadInput("the backend makes frames of videos; for a folder of pictures say --frames-from upload")
        if source.path is not None and not source.uploadable:
            kinds = " and ".join(sorted(UPLOADABLE))
            raise BadInput(
                f"Label Studio takes {kinds} as uploads. Convert it, as with ffmpeg -i {source.shown} -c copy new.mp4, "
                "or say --frames-from upload or local-files"
            )
        if self._args.dry_run:
            print(f"  would be {'uploaded, and ' if source.path else ''}cut by the backend")
            return False
        address = source.address or self._uploads().video(source)
        data: Json = {self._project.video_key: address, SOURCE_KEY: source.source, PLAN_KEY: self._plan.as_json()}
        if seeds.seeds:
            data[SEEDS_KEY] = [s.as_json() for s in seeds.seeds]
        self._client.import_tasks(self._project.id, [data])
        return True

    def _as_pictures(
        self, source: VideoSource, reader: VideoReader | ImageReader, cuts: list[Cut], count: int, there: list[Json],
        seeds: Seeds,
    ) -> None:  # fmt: skip
        config = self._project.config
        assert config is not None
        known = {Cut.of_task(task["data"], config) for task in there}
        missing = [cut for cut in cuts if cut not in known]
        if there and len(known - set(cuts)):
            raise BadInput(
                f"it is in the project already, cut in another way (task {there[0]['id']}): delete its tasks first"
            )
        numbers = sorted({n for cut in missing for n in cut.frames})
        if not missing:
            self._say_there(there)
            return
        if self._args.dry_run:
            print(f"  {len(numbers)} pictures and {len(missing)} task(s) would be made")
            return
        store = self._pictures()
        with progress(None, len(numbers), "  frames", quiet=self._args.quiet) as bar:
            frames = store.frames(source, reader, numbers, bar.update)
        video = store.video(source)
        if "/" not in video or video == source.shown:
            print("  NOTE: only the pictures are in Label Studio, so nothing is tracked across its clips' borders")
        tasks = []
        for cut in missing:
            seeded = [s.as_json() for s in seeds.on(cut.frames).seeds]
            every = f", every {cut.every}" if cut.every > 1 else ""
            tasks.append(
                {
                    self._project.video_key: video,
                    config.frames_key(): [frames[n] for n in cut.frames],
                    SOURCE_KEY: source.source,
                    CUT_KEY: cut.as_json(),
                    NOTE_KEY: f"frames {cut.first} to {cut.frames[-1]} of {count}{every}",
                    **({SEEDS_KEY: seeded} if seeded else {}),
                }
            )
        self._client.import_tasks(self._project.id, tasks)
        print(f"  {len(tasks)} task{'s' * (len(tasks) > 1)} made")

    def _whole(self, source: VideoSource, there: list[Json]) -> None:
        """A video for <Video>: as it is."""
        if self._args.seed or self._plan != CutPlan(self._args.clip, self._args.overlap):
            raise BadInput("a project with <Video> shows whole videos: no --seed, --every, --start, --end")
        if there:
            self._say_there(there)
            return
        if source.path is None or not source.uploadable:
            raise BadInput("for a project with <Video> give mp4 or webm files: their frame rate has to be read")
        with contextlib.closing(open_source(source.path)) as reader:
            fps = round(reader.fps, 4)
        if self._args.dry_run:
            print(f"  would be uploaded as one task, {fps} frames a second")
            return
        data = {self._project.video_key: self._uploads().video(source), "fps": str(fps), SOURCE_KEY: source.source}
        self._client.import_tasks(self._project.id, [data])
        print("  1 task made")

    # ---- parts of them

    def _seeds(self, source: VideoSource, reader: VideoReader | ImageReader | None, cuts: list[Cut] | None) -> Seeds:
        path = self._seeds_of.get(source.source)
        if path is None:
            if self._seeds_of:
                print("  no seeds for this video")
            return Seeds((), ())
        if reader is None or cuts is None:
            raise BadInput("--seed needs the video as a file on this machine: boxes and masks are checked against it")
        names = dict(self._args.seed_class)
        seeds = read_seeds(path, self._project.vocabulary, names, reader.width, reader.height)
        seeds = seeds.on({n for cut in cuts for n in cut.frames})
        labels = len({s.label for s in seeds.seeds})
        print(f"  {len(seeds.seeds)} seed{'s' * (len(seeds.seeds) != 1)} for {labels} object{'s' * (labels != 1)}")
        for sentence in seeds.dropped:
            print(f"  not used: {sentence}")
        return seeds

    def _uploads(self) -> Uploads:
        if not isinstance(self._store, Uploads):
            self._store = Uploads(self._client, self._project.id, self._args.quality)
        return self._store

    def _pictures(self) -> FrameStore:
        if self._args.frames_from == "upload":
            return self._uploads()
        if self._store is None:
            root = self._args.local_root.resolve()
            there = self._args.local_root_there or str(root)
            self._store = LocalFiles(self._client, self._project.id, self._args.quality, root, there)
        return self._store

    @staticmethod
    def _say_there(there: list[Json]) -> None:
        ids = ", ".join(str(task["id"]) for task in there[:5]) + (", ..." if len(there) > 5 else "")
        print(f"  is in the project already: task{'s' * (len(there) > 1)} {ids}")

    def _wait(self, sources: list[VideoSource]) -> int:
        """Until the backend has cut these videos, or has said what is wrong. Returns how many it could not."""
        config, pending, failed = self._project.config, list(sources), 0
        began, nudged = time.monotonic(), set[int]()
        bar = progress(None, len(sources), "clips by the backend", unit="video", quiet=self._args.quiet)
        with bar:
            while pending and config is not None:
                for source in list(pending):
                    tasks = self._client.tasks_with(self._project.id, SOURCE_KEY, source.source)
                    wrong = [n for t in tasks if (n := str(t["data"].get(NOTE_KEY, ""))).startswith("ERROR")]
                    ready = tasks and all(t["data"].get(config.frames_key()) for t in tasks)
                    late = time.monotonic() - began > _NUDGE_SECONDS
                    for task in tasks if (late and not ready) or wrong else []:
                        if task["id"] not in nudged:  # opening a task asks the backend, whatever became of the event
                            nudged.add(task["id"])
                            self._client.open_task(self._project.id, task["id"])
                            wrong, ready = [], []
                    if wrong:
                        print(f"tam import: {source.shown}: {wrong[0].removeprefix('ERROR: ')}", file=sys.stderr)
                        failed += 1
                    elif ready and not wrong:
                        shown = f"{len(tasks)} task{'s' * (len(tasks) > 1)}"
                        bar.write(f"{source.shown}: {shown}, the first is {tasks[0]['id']}", file=sys.stdout)
                    if wrong or ready:
                        pending.remove(source)
                        bar.update(1)
                if pending and time.monotonic() - began > self._args.frames_wait:
                    names = ", ".join(s.shown for s in pending)
                    raise LabelStudioError(
                        f"the backend has not made the clips of {names} within {self._args.frames_wait:g} s. It may "
                        "be at it still: see its page /status and its log, and run this command again to look"
                    )
                if pending:
                    time.sleep(_POLL_SECONDS)
        return failed


def _project(client: ProjectClient, text: str) -> _Project:
    found = client.find_project(text)
    number, title, xml = int(found["id"]), str(found["title"]), str(found.get("label_config", ""))
    if labels := _video_labels(xml):
        return _Project(number, title, None, Vocabulary(labels), "video")
    config = parse_label_config(xml)
    return _Project(number, title, config, Vocabulary.of_config(config), config.video_key)


def _video_labels(xml: str) -> list[str]:
    """The labels of a configuration for boxes on a <Video>; [] if it is another one."""
    try:
        root = SafeElementTree.fromstring(xml)
    except (ParseError, ValueError):
        return []
    if root.find(".//Video") is None or root.find(".//VideoRectangle") is None or root.find(".//Image") is not None:
        return []
    return [value for label in root.iter("Label") if (value := label.get("value"))]


def _described(cuts: list[Cut]) -> str:
    first, last = cuts[0], cuts[-1]
    text = f"{first.first} to {first.frames[-1]}"
    between = ", ..." if len(cuts) > 2 else ""
    return text if len(cuts) == 1 else f"{text}{between}, {last.first} to {last.frames[-1]}"


def _parse_pair(text: str) -> tuple[str, str]:
    name, equals, category = text.partition("=")
    if not (equals and name.strip() and category.strip()):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=CLASS, such as person=Person")
    return name.strip(), category.strip()
