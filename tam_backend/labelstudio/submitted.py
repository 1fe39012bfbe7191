"""What people submitted in a project, as a data set: which annotation of a task counts, and its masks by frame.

Everything is fetched first, task by task, into files; then masks are decoded from those, one task at a time. So a
project of any size takes little memory, and a run that was cut off fetches only what is missing.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tam_backend.errors import BadInput, MediaError
from tam_backend.export.dataset import Dataset, MaskedFrame, Pictures, Track, Video, distinct
from tam_backend.labelstudio.config import LabelConfig, parse_label_config
from tam_backend.labelstudio.cuts import CUT_KEY, Cut, video_name, video_of
from tam_backend.labelstudio.instances import Vocabulary
from tam_backend.labelstudio.library import VideoLibrary
from tam_backend.labelstudio.links import frame_of
from tam_backend.labelstudio.media import absolute_url
from tam_backend.labelstudio.projects import ProjectClient
from tam_backend.labelstudio.prompts import frame_index
from tam_backend.labelstudio.requests import BY_HAND, MASK_TYPES, Json, decode_region_mask, is_mask, mask_labels
from tam_backend.prompts import Mask
from tam_backend.tracking.filestore import write_atomically
from tam_backend.video.base import Reader

#: What is taken of a task: annotations, predictions, or predictions of those tasks that have no annotation.
Kind = Literal["annotations", "predictions", "either"]
KINDS: tuple[Kind, ...] = ("annotations", "predictions", "either")


@dataclass(frozen=True, slots=True)
class Chosen:
    """The annotation or prediction of a task that counts. name: for people, such as ``annotation 12``. updated: when
    it was saved last, as Label Studio writes it. size: (height, width) of its pictures; None if it has no mask."""

    task: int
    name: str
    updated: str
    path: Path
    size: tuple[int, int] | None

    def regions(self) -> list[Json]:
        """Those that hold masks."""
        return list(json.loads(self.path.read_bytes())["regions"])


@dataclass(frozen=True, slots=True)
class TaskPart:
    """A task and the frames of the original video that it shows."""

    task: Json
    cut: Cut
    chosen: Chosen


@dataclass(frozen=True, slots=True)
class Submitted:
    """A project as it is exported. skipped: task -> why it is left out."""

    dataset: Dataset
    parts: tuple[TaskPart, ...]
    skipped: Mapping[int, str]
    notes: tuple[str, ...] = field(default=())


def fetch(
    client: ProjectClient,
    project: int,
    kind: Kind,
    folder: Path,
    config: LabelConfig,
    progress: Callable[[Iterable[Json]], Iterable[Json]] = lambda tasks: tasks,
) -> tuple[list[TaskPart], dict[int, str]]:
    """Bring what counts of each task into ``folder``: (tasks that have something, task -> why it has nothing).

    What a file there has already, of the same state of the task, is not fetched again. Raises LabelStudioError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts: list[TaskPart] = []
    skipped: dict[int, str] = {}
    for task in progress(client.tasks(project)):
        number = int(task["id"])
        try:
            cut = Cut.of_task(task["data"], config)
        except BadInput as e:
            skipped[number] = str(e)
            continue
        if cut is None:
            skipped[number] = "it has no frames yet"
            continue
        chosen = find_work(client, task, kind, folder)
        if isinstance(chosen, str):
            skipped[number] = chosen
        else:
            parts.append(TaskPart(task, cut, chosen))
    return parts, skipped


def find_work(client: ProjectClient, task: Json, kind: Kind, folder: Path, but_not: str = "") -> Chosen | str:
    """What counts of a task, as in ``fetch``; or why it has nothing.

    but_not: predictions whose version begins so do not count, if this is not empty. Raises LabelStudioError.
    """
    return _known(task, kind, folder) or _fetch(client, task, kind, folder, but_not)


def choose_annotation(annotations: Iterable[Json]) -> Json | None:
    """The ground truth if one is marked so, else the one that was saved last. Skipped ones do not count."""
    counting = [a for a in annotations if not a.get("was_cancelled")]
    return max(counting, key=lambda a: (bool(a.get("ground_truth")), _saved(a)), default=None)


def choose_prediction(predictions: Iterable[Json]) -> Json | None:
    """The newest."""
    return max(predictions, key=lambda p: (_saved(p), int(p.get("id") or 0)), default=None)


def _saved(work: Json) -> str:
    return str(work.get("updated_at") or work.get("created_at") or "")


def _state(task: Json, kind: Kind) -> list[Any] | None:
    """Names the state of a task; None if that cannot be known."""
    if not task.get("updated_at"):
        return None
    return [kind, task["updated_at"], task.get("total_annotations"), task.get("total_predictions")]


def _known(task: Json, kind: Kind, folder: Path) -> Chosen | None:
    path = folder / f"{task['id']}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        content = json.loads(path.read_bytes())
        state = _state(task, kind)
        if state is not None and content["state"] == state:
            return _chosen(task["id"], content, path)
    return None


def _fetch(client: ProjectClient, task: Json, kind: Kind, folder: Path, but_not: str) -> Chosen | str:
    number = int(task["id"])
    work, name = None, ""
    if kind != "predictions" and task.get("total_annotations") != 0:
        work = choose_annotation(client.annotations(number))
        name = f"annotation {work['id']}" if work else ""
    if work is None and kind != "annotations" and task.get("total_predictions") != 0:
        found = client.predictions(number)
        work = choose_prediction(
            p for p in found if not but_not or not str(p.get("model_version", "")).startswith(but_not)
        )
        name = f"prediction {work['id']}" if work else ""
    if work is None:
        return {
            "annotations": "nothing was submitted",
            "predictions": "it has no prediction",
            "either": "it has neither annotation nor prediction",
        }[kind]
    content = {"state": _state(task, kind), "name": name, "updated": _saved(work), "regions": mask_regions(work)}
    path = folder / f"{number}.json"
    write_atomically(path, json.dumps(content).encode())
    return _chosen(number, content, path)


def _chosen(task: int, content: Json, path: Path) -> Chosen:
    return Chosen(int(task), str(content["name"]), str(content["updated"]), path, picture_size(content["regions"]))


def mask_regions(work: Json) -> list[Json]:
    """The regions of an annotation or prediction that hold masks."""
    return [r for r in work.get("result") or [] if isinstance(r, dict) and is_mask(r) and mask_labels(r)]


def picture_size(regions: Iterable[Json]) -> tuple[int, int] | None:
    """(height, width) of the pictures that masks were made on, None without a mask."""
    sizes = [(r.get("original_height"), r.get("original_width")) for r in regions]
    return next(((h, w) for h, w in sizes if isinstance(h, int) and isinstance(w, int) and h > 0 and w > 0), None)


def collect(
    client: ProjectClient,
    project: Json,
    kind: Kind,
    folder: Path,
    library: VideoLibrary | None,
    progress: Callable[[Iterable[Json]], Iterable[Json]] = lambda tasks: tasks,
) -> Submitted:
    """A project as a data set. folder: for what is fetched. library: where videos are opened for their pictures; None:
    none are wanted.

    Raises BadInput if there is nothing to export, LabelStudioError, and MediaError for a video that cannot be read.
    """
    config = parse_label_config(str(project["label_config"]))
    vocabulary = Vocabulary.of_config(config)
    tracks = tuple(Track(i.object_id, i.label, i.category) for i in vocabulary)
    parts, skipped = fetch(client, int(project["id"]), kind, folder, config, progress)
    groups: dict[str, list[TaskPart]] = {}
    for part in parts:
        groups.setdefault(source_of(part.task, config), []).append(part)
    for of_video in groups.values():
        of_video.sort(key=lambda p: (p.cut.first, p.task["id"]))
    names = distinct(video_name(g[0].task["data"], config) for g in groups.values())
    videos, notes = [], []
    for name, of_video in zip(names, groups.values(), strict=True):
        pictures = None
        if library is not None:
            pictures = _Pictures(of_video, config, client, int(project["id"]), library)
        size = next((p.chosen.size for p in of_video if p.chosen.size), pictures.size if pictures else None)
        if size is None:
            notes.append(f"{name}: left out, because it has no mask, and without pictures nothing says how large it is")
            continue
        videos.append(merged_video(name, of_video, config, size, tracks, pictures))
    if not videos:
        title = project.get("title") or project["id"]
        why = next(iter(skipped.values()), "it has no tasks")
        raise BadInput(f"there is nothing to export in project {title!r} ({why}); see --from")
    origin = f"project {project['id']}, {project.get('title')}, of {client.connection.url}"
    return Submitted(Dataset(tuple(videos), tracks, origin), tuple(parts), skipped, tuple(notes))


def source_of(task: Json, config: LabelConfig) -> str:
    """The same for tasks of one video."""
    data = task["data"]
    first = data[config.frames_key()][0]
    ours = frame_of(first)
    return video_of(data, config) or (ours[0] if ours else json.dumps([task["id"], str(first)]))


def shows_video(data: Mapping[str, Any], config: LabelConfig) -> bool:
    """Whether the frames of a task are those of the video that it names, and are to be read there."""
    address = data.get(config.video_key)
    # Pictures that tam import made are of the video beside them, packed once more.
    ours = CUT_KEY in data or frame_of(data[config.frames_key()][0]) is not None
    return isinstance(address, str) and "/" in address and ours


def merged_video(
    name: str,
    parts: Sequence[TaskPart],
    config: LabelConfig,
    size: tuple[int, int],
    tracks: tuple[Track, ...],
    pictures: _Pictures | None,
) -> Video:
    """The masks of the clips of a video, by the frames of the video. size: (height, width). parts: by first frame."""
    ids = {t.label: t.id for t in tracks}
    places: dict[int, list[tuple[int, int]]] = {}
    for place, part in enumerate(parts):
        for index, frame in enumerate(part.cut.frames):
            places.setdefault(frame, []).append((place, index))
    frames = sorted(places)

    def read() -> Iterator[MaskedFrame]:
        loaded: dict[int, TaskMasks] = {}
        for frame in frames:
            here = places[frame]
            for place in [p for p in loaded if parts[p].cut.frames[-1] < frame]:
                del loaded[place]
            for place, _ in here:
                if place not in loaded:
                    chosen, count = parts[place].chosen, len(parts[place].cut.frames)
                    where = f"task {chosen.task}, {chosen.name}"
                    loaded[place] = TaskMasks(chosen.regions(), where, config, count, size)
            several = [loaded[place].at(index) for place, index in here]
            yield _merged(frame, several, [parts[place].chosen.updated for place, _ in here], ids)

    given = parts[0].task["data"].get(config.video_key) if parts else None
    address = given if isinstance(given, str) else ""
    if pictures is None:
        return Video(name, *size, frames, tracks, read, address=address)
    return Video(name, *size, frames, tracks, read, pictures.open, pictures.fps, pictures.length, address)


@dataclass(frozen=True, slots=True, eq=False)
class LabelMask:
    """The mask of one label on one frame of a task. quality: as estimated when it was made, None if unknown."""

    mask: Mask
    by_hand: bool
    quality: float | None


class TaskMasks:
    """The masks of one annotation or prediction, decoded frame by frame."""

    def __init__(
        self, regions: Iterable[Json], where: str, config: LabelConfig, frames: int, size: tuple[int, int]
    ) -> None:
        """regions: those that hold masks. where: for errors. frames: number of frames of the task. size: (height,
        width). Raises BadInput."""
        self._size = size
        self._where = where
        self._by_frame: dict[int, dict[str, list[Json]]] = {}
        for region in regions:
            index = frame_index(region, frames, f"{self._where}: region {region.get('id')!r}")
            for label in region_labels(region, config, index):
                self._by_frame.setdefault(index, {}).setdefault(label, []).append(region)

    def at(self, index: int) -> dict[str, LabelMask]:
        """Label -> its mask, without empty ones. Raises BadInput for a mask that cannot be read."""
        found = {}
        for label, regions in self._by_frame.get(index, {}).items():
            try:
                mask = np.logical_or.reduce([decode_region_mask(r, *self._size) for r in regions])
            except BadInput as e:
                raise BadInput(f"{self._where}: {e}") from e
            if mask.any():
                found[label] = LabelMask(mask, any(is_by_hand(r) for r in regions), region_quality(regions[0]))
        return found


def is_by_hand(region: Json) -> bool:
    """Whether a person drew or changed a mask."""
    return region.get("origin", "manual") in BY_HAND


def region_labels(region: Json, config: LabelConfig, index: int) -> list[str]:
    """The labels whose mask this is. A mask of ours that shows another one by mistake is known by its id."""
    if region.get("type") not in MASK_TYPES:
        return []
    for control in config.masks:
        if control.image == region.get("to_name"):
            if not is_by_hand(region):
                owners = [label for label in control.labels if control.region_id(label, index) == region.get("id")]
                if owners:
                    return owners
            shown = [label for label in mask_labels(region) if label in control.labels]
            if shown:
                return shown
    return []


def region_quality(region: Json) -> float | None:
    """What was noted when the mask was made."""
    meta = region.get("meta")
    value = meta.get("quality") if isinstance(meta, dict) else region.get("score")
    return float(value) if isinstance(value, int | float) and 0 <= value <= 1 else None


def _merged(
    frame: int, several: Sequence[Mapping[str, LabelMask]], saved: Sequence[str], ids: Mapping[str, int]
) -> MaskedFrame:
    """A frame that several clips show: of each object the mask made by hand, and among those the one saved last; else
    that of the earlier clip."""
    best: dict[str, LabelMask] = {}
    since: dict[str, str] = {}
    for masks, when in zip(several, saved, strict=True):
        for label, found in masks.items():
            known = best.get(label)
            better = known is None or (found.by_hand and (not known.by_hand or when > since[label]))
            if better and label in ids:
                best[label], since[label] = found, when
    return MaskedFrame(
        frame,
        {ids[label]: found.mask for label, found in best.items()},
        frozenset(ids[label] for label, found in best.items() if found.by_hand),
        {ids[label]: found.quality for label, found in best.items() if found.quality is not None},
    )


class _Pictures:
    """The frames of a video: of its file, where tasks say which of its frames they show, else of the pictures that they
    list."""

    def __init__(
        self,
        parts: Sequence[TaskPart],
        config: LabelConfig,
        client: ProjectClient,
        project: int,
        library: VideoLibrary,
    ) -> None:
        """Opens the video, or the first pictures, to see that they can be read. Raises MediaError."""
        self._library = library
        data = parts[0].task["data"]
        whole = shows_video(data, config)
        self._videos: list[tuple[str, Mapping[int, int] | None]] = []
        if whole:
            url = absolute_url(data[config.video_key], client.connection, project)
            self._videos.append((library.register("video", [url], client.connection), None))
        else:
            for part in parts:
                listed = part.task["data"][config.frames_key()]
                urls = [absolute_url(u, client.connection, project) for u in listed]
                video = library.register("images", urls, client.connection)
                self._videos.append((video, {frame: i for i, frame in enumerate(part.cut.frames)}))
        with contextlib.closing(library.open(self._videos[0][0])) as reader:
            self.size = reader.height, reader.width
            self.fps = float(getattr(reader, "fps", 24.0))
            self.length = len(reader) if whole else 0
            last = parts[-1].cut.frames[-1]
            if whole and last >= len(reader):
                raise MediaError(f"a task shows frame {last}, but its video has {len(reader)} frames")

    @contextlib.contextmanager
    def open(self) -> Iterator[Pictures]:
        opened: dict[str, Reader] = {}

        def picture(frame: int) -> np.ndarray:
            video, places = next((v, p) for v, p in self._videos if p is None or frame in p)
            if video not in opened:
                while opened:
                    opened.popitem()[1].close()
                opened[video] = self._library.open(video)
            return opened[video][frame if places is None else places[frame]]

        try:
            yield picture
        finally:
            for reader in opened.values():
                reader.close()
