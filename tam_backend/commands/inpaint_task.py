"""The masks of ``tam inpaint --task``: those that people accepted in a task of Label Studio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tam_backend.commands.inpaint_masks import Ids
from tam_backend.errors import BadInput, NotFound
from tam_backend.labelstudio.config import LabelConfig, parse_label_config
from tam_backend.labelstudio.cuts import Cut
from tam_backend.labelstudio.instances import Vocabulary
from tam_backend.labelstudio.media import Downloader, absolute_url
from tam_backend.labelstudio.projects import Json, ProjectClient
from tam_backend.labelstudio.prompts import frame_index
from tam_backend.labelstudio.requests import decode_region_mask, is_mask, mask_labels
from tam_backend.settings import Settings
from tam_backend.video.base import Reader


class StudioTask:
    """A task with a submitted annotation, as Label Studio has it now."""

    def __init__(self, client: ProjectClient, text: str) -> None:
        """text: its number. Raises BadInput if there is no such task, or if nobody has submitted it."""
        if not text.isdecimal():
            raise BadInput(f"--task {text}: a task is a number, as the column ID of the project shows it")
        self.title = f"task {text}"
        self._client = client
        try:
            self._task = client.any_task(int(text))
        except NotFound:
            raise BadInput(f"--task {text}: there is no such task on {client.connection.url}") from None
        self.config: LabelConfig = parse_label_config(client.project(self._task["project"])["label_config"])
        self.annotation = _accepted(client.annotations(int(text)), text)
        cut = Cut.of_task(self._task["data"], self.config)
        if cut is None:
            raise BadInput(f"--task {text}: the task has no frames yet; open it once in Label Studio")
        self.cut = cut

    def fetch_video(self, folder: Path, settings: Settings) -> Path:
        """The video of the task, downloaded into a folder. Raises MediaError if it cannot be had."""
        address = self._task["data"].get(self.config.video_key)
        url = absolute_url(address, self._client.connection, self._task["project"])
        target = folder / f"video{Path(url.partition('?')[0]).suffix}"
        if not target.exists():
            Downloader.from_settings(settings).fetch(url, self._client.connection, target)
        return target


class TaskMasks:
    """See ``inpaint_masks.Masks``. Objects are numbered in the order of the project's labels."""

    def __init__(self, task: StudioTask, video: Reader) -> None:
        """Raises BadInput if the annotation does not fit the video."""
        self.title, self._video, self._cut = task.title, video, task.cut
        if task.cut.frames[-1] >= len(video):
            raise BadInput(
                f"{task.title} shows frames {task.cut.first} to {task.cut.frames[-1]}, but the video has frames 0 to "
                f"{len(video) - 1}: it is not the video of this task"
            )
        self.names: Mapping[int, str] = {}
        vocabulary = Vocabulary.of_config(task.config)
        self._regions: dict[int, list[tuple[int, Json]]] = {}
        for region in task.annotation["result"]:
            label = _label(region)
            instance = vocabulary.find(label) if label is not None else None
            if instance is not None:
                index = frame_index(region, task.cut.count, f"region {region.get('id')!r}")
                self.names = {**self.names, instance.object_id: instance.label}
                self._regions.setdefault(task.cut.frames[index], []).append((instance.object_id, region))

    def missing(self, frames: range) -> list[int]:
        return [f for f in frames if f not in self._cut.frames]

    def read(self, frame: int) -> Ids:
        ids = np.zeros((self._video.height, self._video.width), np.uint8)
        for object_id, region in self._regions.get(frame, ()):
            ids[decode_region_mask(region, *ids.shape)] = object_id
        return ids


def _label(region: Any) -> str | None:
    """The label of a mask, None of anything else."""
    labels = mask_labels(region) if isinstance(region, dict) and is_mask(region) else []
    return str(labels[0]) if labels else None


def _accepted(annotations: Sequence[Json], task: str) -> Json:
    """The annotation to go by: of those submitted and not skipped the ground truth, else the newest."""
    submitted = [a for a in annotations if not a.get("was_cancelled")]
    if not submitted:
        raise BadInput(f"--task {task}: nobody has submitted an annotation of this task; drafts do not count")
    return max(submitted, key=lambda a: (bool(a.get("ground_truth")), str(a.get("updated_at") or ""), a.get("id", 0)))
