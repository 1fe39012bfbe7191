"""The masks that people accepted in Label Studio, as objects by frame of a video: of a task, or of an exported file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tam_backend.errors import BadInput, NotFound
from tam_backend.inpainting.objects import Ids
from tam_backend.labelstudio.config import LabelConfig, parse_label_config
from tam_backend.labelstudio.cuts import SOURCE_KEY, Cut, short_name
from tam_backend.labelstudio.instances import Vocabulary
from tam_backend.labelstudio.projects import ProjectClient
from tam_backend.labelstudio.prompts import Json, frame_index
from tam_backend.labelstudio.requests import decode_region_mask, mask_labels
from tam_backend.labelstudio.submitted import choose_annotation, is_by_hand, mask_regions, region_labels
from tam_backend.tracking.objects import MAX_ID
from tam_backend.video.base import Reader


@dataclass(frozen=True, slots=True)
class Accepted:
    """What counts of one task: the frames that it shows, and the annotation. title: of the task, for messages."""

    title: str
    cut: Cut
    annotation: Json


class StudioTask:
    """A task with a submitted annotation, as Label Studio has it now."""

    def __init__(self, client: ProjectClient, number: int) -> None:
        """Raises BadInput if there is no such task, if nobody has submitted it, or if no objects can be taken out."""
        title = f"task {number}"
        try:
            task = client.any_task(number)
        except NotFound:
            raise BadInput(f"{title}: there is no such task on {client.connection.url}") from None
        self.data: Json = task["data"]
        self.project = int(task["project"])
        self.config: LabelConfig = parse_label_config(client.project(self.project)["label_config"])
        annotation = choose_annotation(client.annotations(number))
        if annotation is None:
            raise BadInput(f"{title}: nobody has submitted an annotation of this task; drafts do not count")
        cut = Cut.of_task(self.data, self.config)
        if cut is None:
            raise BadInput(f"{title}: the task has no frames yet; open it once in Label Studio")
        self.accepted = Accepted(title, cut, annotation)

    @property
    def labels(self) -> dict[str, int]:
        """Label -> number of the object, in the order of the project's labels."""
        return {i.label: i.object_id for i in Vocabulary.of_config(self.config)}

    def masks(self, video: Reader) -> AcceptedMasks:
        """Raises BadInput if the annotation does not fit the video."""

        def labels_of(region: Json, index: int) -> list[str]:
            return region_labels(region, self.config, index)

        return AcceptedMasks(self.accepted.title, [self.accepted], video, self.labels, labels_of)


def read_json_export(path: Path, video: Reader, name: str) -> AcceptedMasks:
    """The masks in a file of Label Studio's export "JSON". name: of the video's file: of tasks of several videos
    those count whose video is called so.

    Objects are numbered in the order of their labels' names. Raises BadInput.
    """
    try:
        tasks = json.loads(path.read_bytes())
    except (OSError, ValueError) as e:
        raise BadInput(f"{path} cannot be read as JSON: {e}") from e
    if not isinstance(tasks, list) or not all(isinstance(t, dict) and isinstance(t.get("data"), dict) for t in tasks):
        raise BadInput(f"{path} is not an export of Label Studio: in its dialog Export choose JSON")
    if any("annotations" not in t for t in tasks):
        raise BadInput(f"{path} has no annotations: in Label Studio's dialog Export choose JSON, not JSON-MIN")
    by_video: dict[str, list[Json]] = {}
    for task in tasks:
        by_video.setdefault(_video_in(task["data"]), []).append(task)
    if len(by_video) > 1:
        if short_name(name) not in by_video:
            known = ", ".join(sorted(by_video))
            raise BadInput(f"{path} has tasks of {len(by_video)} videos ({known}), and none of them is called {name}")
        by_video = {name: by_video[short_name(name)]}
    accepted = [found for task in next(iter(by_video.values()), []) if (found := _exported(task))]
    if not accepted:
        raise BadInput(f"{path} has no task of this video that was submitted")
    labels = {label for a in accepted for r in mask_regions(a.annotation) for label in mask_labels(r)}
    if len(labels) > MAX_ID:
        raise BadInput(f"{path} has {len(labels)} labels; there is room for {MAX_ID} objects")
    numbers = {label: i for i, label in enumerate(sorted(labels), 1)}
    return AcceptedMasks(str(path), accepted, video, numbers, lambda region, index: mask_labels(region))


class AcceptedMasks:
    """See ``inpainting.objects.Masks``. On a frame that two clips share a mask made by hand counts, else the newer."""

    def __init__(
        self,
        title: str,
        accepted: Iterable[Accepted],
        video: Reader,
        labels: Mapping[str, int],
        labels_of: Callable[[Json, int], list[str]],
    ) -> None:
        """labels: label -> number of the object. labels_of: the labels of a region on a frame (item_index).

        Raises BadInput if the annotations do not fit the video.
        """
        self.title, self._video = title, video
        self._known: set[int] = set()
        self._regions: dict[int, dict[str, list[Json]]] = {}
        for task in sorted(accepted, key=lambda a: str(a.annotation.get("updated_at") or "")):
            self._add(task, labels_of)
        self._labels = labels
        found = {label for by_label in self._regions.values() for label in by_label}
        self.names: Mapping[int, str] = {i: label for label, i in labels.items() if label in found}

    def _add(self, task: Accepted, labels_of: Callable[[Json, int], list[str]]) -> None:
        cut, last = task.cut, len(self._video) - 1
        if cut.every > 1:
            raise BadInput(
                f"{task.title} shows one of {cut.every} frames, and the frames between have no masks: import the video "
                "without --every to take objects out"
            )
        if cut.frames[-1] > last:
            raise BadInput(
                f"{task.title} shows frames {cut.first} to {cut.frames[-1]}, but the video has frames 0 to {last}: it "
                "is not the video of this task"
            )
        self._known.update(cut.frames)
        here: dict[tuple[int, str], list[Json]] = {}
        for region in mask_regions(task.annotation):
            index = frame_index(region, cut.count, f"{task.title}: region {region.get('id')!r}")
            for label in labels_of(region, index):
                here.setdefault((cut.frames[index], label), []).append(region)
        for (frame, label), regions in here.items():
            there = self._regions.setdefault(frame, {})
            if label not in there or any(map(is_by_hand, regions)) or not any(map(is_by_hand, there[label])):
                there[label] = regions

    def missing(self, frames: range) -> list[int]:
        return [f for f in frames if f not in self._known]

    def read(self, frame: int) -> Ids:
        ids = np.zeros((self._video.height, self._video.width), np.uint8)
        for label, regions in self._regions.get(frame, {}).items():
            for region in regions:
                try:
                    ids[decode_region_mask(region, *ids.shape)] = self._labels[label]
                except BadInput as e:
                    raise BadInput(f"{self.title}, frame {frame}: {e}") from e
        return ids


def _exported(task: Json) -> Accepted | None:
    """What counts of a task in an exported file. Raises BadInput if it does not say which frames it shows."""
    title = f"task {task.get('id')}"
    annotation = choose_annotation(a for a in task["annotations"] if isinstance(a, dict))
    if annotation is None:
        return None
    frames = next((v for v in task["data"].values() if isinstance(v, list) and v), None)
    if frames is None:
        raise BadInput(f"{title} in the file has no list of frames")
    return Accepted(title, Cut.of_frames(task["data"], frames), annotation)


def _video_in(data: Mapping[str, Any]) -> str:
    """What says of which video a task is. Its key is in the configuration, which is not in the file; ``video`` is what
    projects have that were made for this backend."""
    source = data.get(SOURCE_KEY)
    return short_name(str(source).partition("#")[0] if source else str(data.get("video") or ""))
