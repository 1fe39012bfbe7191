"""PROJECT or FOLDER: where the commands that give masks out take them from."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from tam_backend.commands.studio import add_connection_options, connect, resumable
from tam_backend.commands.track_progress import progress
from tam_backend.errors import BadInput, MediaError
from tam_backend.export.dataset import Dataset, MaskedFrame, Video
from tam_backend.export.formats import read_export
from tam_backend.export.tracked import is_tracked, read_tracked
from tam_backend.labelstudio.connections import Connections
from tam_backend.labelstudio.library import VideoLibrary
from tam_backend.labelstudio.media import Downloader
from tam_backend.labelstudio.projects import ProjectClient
from tam_backend.labelstudio.submitted import KINDS, Json, Kind, Submitted, collect
from tam_backend.settings import Settings


def add_source(parser: argparse.ArgumentParser) -> None:
    """The argument PROJECT|DIR, and the options about it."""
    parser.add_argument(
        "source", metavar="PROJECT|DIR",
        help="a project of Label Studio: its id, its address, or its title; or a folder that tam track or tam export "
        "wrote",
    )  # fmt: skip
    group = parser.add_argument_group("which masks")
    group.add_argument(
        "--from", dest="kind", choices=KINDS, default="annotations",
        help="annotations (default): what people submitted, of each task the ground truth, else the one saved last; "
        "predictions: the newest of each task; either: predictions where nothing was submitted",
    )  # fmt: skip
    group.add_argument(
        "--video", type=Path, metavar="FILE", help="of a folder of tam track: the video, for its pictures"
    )
    add_connection_options(parser)


def find_folder(args: argparse.Namespace) -> Path | None:
    """The folder that the source names; None if it names a project. Raises BadInput for a folder of something else."""
    folder = Path(args.source)
    if not folder.is_dir():
        if "/" in args.source and "://" not in args.source:
            raise BadInput(f"there is no folder {args.source}")
        if args.video is not None:
            raise BadInput("--video is for a folder of tam track; a project names its videos itself")
        return None
    if args.kind != "annotations":
        raise BadInput(f"--from {args.kind} is for projects; {folder} is a folder")
    return folder


def open_folder(folder: Path, video: Path | None) -> Dataset:
    """Raises BadInput."""
    if is_tracked(folder):
        return read_tracked(folder, video)
    if video is not None:
        raise BadInput(f"--video is for a folder of tam track, which {folder} is not")
    dataset = read_export(folder)
    if dataset is None:
        raise BadInput(
            f"{folder} is a folder, but neither tam track nor tam export wrote it; a project of that name can be given "
            "by its id or address"
        )
    return dataset


def open_project(
    args: argparse.Namespace, work: Path, *, pictures: bool, kind: Kind | None = None, command: str = "export"
) -> tuple[ProjectClient, Json, Submitted]:
    """work: where what was fetched is kept. Raises TamError."""
    with resumable():
        client = connect(args)
        project = client.find_project(args.source)

        def shown(tasks: Iterable[Json]) -> Iterator[Json]:
            total = project.get("task_number")
            yield from progress(tasks, total, "tasks", unit="task", quiet=getattr(args, "quiet", False))

        library = video_library(client) if pictures else None
        try:
            submitted = collect(client, project, kind or args.kind, work / "tasks", library, shown)
        except MediaError as e:
            raise MediaError(f"{e}. Without pictures: --no-pictures" if command == "export" else str(e)) from e
    for note in submitted.notes:
        print(f"tam {command}: note: {note}", file=sys.stderr)
    return client, project, submitted


def video_library(client: ProjectClient) -> VideoLibrary:
    """Videos of a project, kept where ``tam serve`` on this machine keeps them."""
    settings = replace(
        Settings.from_env(os.environ),
        label_studio_url=client.connection.url,
        label_studio_token=client.connection.token,
    )
    return VideoLibrary(
        settings.data_dir / "videos",
        Downloader.from_settings(settings),
        Connections(settings),
        settings.media_cache_mb * 1_000_000,
    )


def with_progress(dataset: Dataset, title: str, *, quiet: bool) -> Dataset:
    """The data set, showing how far its frames are read."""

    def shown(video: Video) -> Video:
        def read() -> Iterator[MaskedFrame]:
            with contextlib.closing(progress(video.read(), len(video.frames), title, quiet=quiet)) as bar:
                bar.set_postfix_str(video.name)
                yield from bar

        return replace(video, read=read)

    return replace(dataset, videos=tuple(map(shown, dataset.videos)))


def without_pictures(dataset: Dataset) -> Dataset:
    return replace(dataset, videos=tuple(replace(v, pictures=None) for v in dataset.videos))
