"""The tasks of a Label Studio project as items of ``tam batch``: an item is a video, with all its clips.

What decides the masks is what people gave: the masks that they submitted, and of tasks without any the seeds. They lie
beside the output while the video is worked on, so that every worker reaches them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tam_backend.cluster.places import Place
from tam_backend.commands.batch_manifest import GivenMask, Item, folder_name
from tam_backend.commands.batch_run import Aside
from tam_backend.commands.track_prompts import BoxOption
from tam_backend.drawing import encode_ids
from tam_backend.errors import BadInput, MediaError
from tam_backend.export.dataset import MaskedFrame, Track, distinct
from tam_backend.labelstudio.config import parse_label_config
from tam_backend.labelstudio.cuts import Cut, video_name
from tam_backend.labelstudio.instances import Vocabulary
from tam_backend.labelstudio.library import VideoLibrary
from tam_backend.labelstudio.media import absolute_url
from tam_backend.labelstudio.posting import OURS
from tam_backend.labelstudio.projects import ProjectClient
from tam_backend.labelstudio.requests import Json
from tam_backend.labelstudio.seeds import seeded_anchors, seeds_within
from tam_backend.labelstudio.submitted import (
    Chosen,
    Kind,
    TaskPart,
    find_work,
    merged_video,
    shows_video,
    source_of,
)
from tam_backend.prompts import FramePrompts
from tam_backend.video import VideoReader
from tam_backend.video.base import Reader

#: Where first masks lie in the place of the output.
GIVEN = ".given"
_NOTHING, _FAILED = "nothing to start from", "failed"


@dataclass(frozen=True, slots=True, eq=False)
class ProjectVideo:
    """A video of a project. tasks: (id, frames) of those that show it, by their first frame. submitted: those with
    masks. seeded: (data, frames) of those that have none, but seeds. data: of the first task."""

    name: str
    data: Json
    tasks: tuple[tuple[int, Cut], ...]
    submitted: tuple[TaskPart, ...]
    seeded: tuple[tuple[Json, Cut], ...]

    @property
    def frames(self) -> range:
        """From the first frame to the last that a task shows, with those between."""
        return range(min(cut.first for _, cut in self.tasks), max(cut.frames[-1] for _, cut in self.tasks) + 1)


@dataclass(slots=True)
class _Group:
    """The tasks of a video, as they come."""

    tasks: list[tuple[Json, Cut]] = field(default_factory=list)
    submitted: list[TaskPart] = field(default_factory=list)
    seeded: list[tuple[Json, Cut]] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)


class ProjectVideos:
    """videos: by name, those that have something to start from. aside: what is left out, and why."""

    def __init__(
        self,
        client: ProjectClient,
        project: Json,
        kind: Kind,
        folder: Path,
        shown: Callable[[Iterable[Json]], Iterable[Json]] = lambda tasks: tasks,
    ) -> None:
        """Ask Label Studio for all tasks. folder: for what is fetched.

        Raises BadInput if there is nothing to start from in the whole project, LabelStudioError.
        """
        self.client = client
        self.config = parse_label_config(str(project["label_config"]))
        self.tracks = tuple(Track(i.object_id, i.label, i.category) for i in Vocabulary.of_config(self.config))
        self.videos: dict[str, ProjectVideo] = {}
        self.aside: list[Aside] = []
        self._project = int(project["id"])
        self._held: dict[str, Reader] = {}
        groups: dict[str, _Group] = {}
        for task in shown(client.tasks(self._project)):
            self._sort(task, groups, kind, folder)
        named = (folder_name(video_name(g.tasks[0][0]["data"], self.config))[:140] for g in groups.values())
        for name, group in zip(distinct(named), groups.values(), strict=True):
            self._add(name, group)
        if not self.videos:
            why = self.aside[0].error if self.aside else "it has no tasks"
            raise BadInput(
                f"there is nothing to start from in project {project.get('title') or self._project!r} ({why}): submit "
                "masks on some frames of a video, or bring first ones along with tam import --seed"
            )

    def _sort(self, task: Json, groups: dict[str, _Group], kind: Kind, folder: Path) -> None:
        """Put a task where it belongs."""
        data, number = task["data"], int(task["id"])
        try:
            cut = Cut.of_task(data, self.config)
            if cut is None:
                raise BadInput("it has no frames yet; open it once in Label Studio, with the backend connected")
            if not shows_video(data, self.config):
                raise BadInput("its frames are not those of a video that its data names")
            seeds = seeds_within(data, cut.frames)
        except BadInput as e:
            self.aside.append(Aside(f"task-{number}", _NOTHING, str(e), (number,)))
            return
        group = groups.setdefault(source_of(task, self.config), _Group())
        group.tasks.append((task, cut))
        chosen = find_work(self.client, task, kind, folder, OURS)
        if isinstance(chosen, Chosen):
            if chosen.size:
                group.submitted.append(TaskPart(task, cut, chosen))
            else:
                group.reasons.append(f"{chosen.name} has no masks")
        elif seeds:
            group.seeded.append((data, cut))
        else:
            group.reasons.append(f"{chosen}, and it has no seeds")

    def _add(self, name: str, group: _Group) -> None:
        group.tasks.sort(key=lambda t: (t[1].first, t[0]["id"]))
        group.submitted.sort(key=lambda p: (p.cut.first, p.task["id"]))
        tasks = tuple((int(task["id"]), cut) for task, cut in group.tasks)
        data = group.tasks[0][0]["data"]
        if group.submitted or group.seeded:
            self.videos[name] = ProjectVideo(name, data, tasks, tuple(group.submitted), tuple(group.seeded))
            return
        why = "; ".join(dict.fromkeys(group.reasons))
        numbers = tuple(number for number, _ in tasks)
        self.aside.append(Aside(name, _NOTHING, why, numbers, str(data.get(self.config.video_key, ""))))

    # ---- items

    def items(self, library: VideoLibrary, out: str, shown: Callable[[Collection[str]], Iterable[str]]) -> list[Item]:
        """Fetch the videos; those that cannot be read, or whose masks do not fit, are set aside. out: the place of the
        output, as workers name it. Raises LabelStudioError if that has gone away."""
        found = []
        for name in shown(list(self.videos)):
            try:
                found.append(self._item(self.videos[name], library, out))
            except (BadInput, MediaError) as e:
                self.client.whoami()  # where Label Studio itself is gone, the others need not be tried
                video = self.videos.pop(name)
                numbers = tuple(number for number, _ in video.tasks)
                self.aside.append(Aside(name, _FAILED, str(e), numbers, str(video.data[self.config.video_key])))
        return found

    def _item(self, video: ProjectVideo, library: VideoLibrary, out: str) -> Item:
        url = absolute_url(video.data[self.config.video_key], self.client.connection, self._project)
        reader = library.open(library.register("video", [url], self.client.connection))
        reader.close()
        if not isinstance(reader, VideoReader):
            raise MediaError(f"{url} is not a video")
        self._held[video.name] = reader  # as long as somebody has it, its file is not dropped
        masks, boxes, used = [], [], set()
        for frame, track, prompts in self._given(video, reader.height, reader.width):
            used.add(track)
            if prompts.mask is not None:
                masks.append(GivenMask(frame, f"{out}/{_given_name(video.name, frame, track, prompts)}", track))
            elif (box := prompts.box) is not None:
                text = f"{frame},{box.left!r},{box.top!r},{box.right!r},{box.bottom!r}:{track}"
                boxes.append(BoxOption(text, frame, box, track))
        labels = tuple((t.id, t.label) for t in self.tracks if t.id in used)
        path, frames = str(reader.path.absolute()), video.frames
        line = {
            "video": path, "name": video.name, "mask": [m.text for m in masks],
            "box": [b.text for b in boxes], "label": [f"{i}={label}" for i, label in labels],
            "start": frames.start, "end": frames[-1],
        }  # fmt: skip
        return Item(video.name, path, (), tuple(masks), labels, frames.start, frames[-1], False, line, tuple(boxes))

    def give(self, name: str, place: Place) -> None:
        """Bring the first masks of a video to where its item says that they are."""
        reader = self._held[name]
        for frame, track, prompts in self._given(self.videos[name], reader.height, reader.width):
            if prompts.mask is not None:
                place.write(_given_name(name, frame, track, prompts), encode_ids(prompts.mask.astype(np.uint8)))

    def release(self, name: str, place: Place) -> None:
        """A video is done: nobody needs its file and its first masks any more."""
        self._held.pop(name, None)
        place.remove(f"{GIVEN}/{name}")

    # ---- what people gave

    def confirmed(self, video: ProjectVideo, height: int, width: int) -> Iterator[MaskedFrame]:
        """The masks that decide, frame by frame, those of the same frame in two clips put together. Raises BadInput."""
        yield from merged_video(video.name, video.submitted, self.config, (height, width), self.tracks, None).read()

    def _given(self, video: ProjectVideo, height: int, width: int) -> Iterator[tuple[int, int, FramePrompts]]:
        """(frame of the original video, track, what is known there), each once: submitted masks, then seeds."""
        there: set[tuple[int, int]] = set()
        for masked in self.confirmed(video, height, width):
            for track, mask in masked.masks.items():
                there.add((masked.frame, track))
                yield masked.frame, track, FramePrompts(mask=mask)
        ids: Mapping[str, int] = {t.label: t.id for t in self.tracks}
        for data, cut in video.seeded:
            anchors = seeded_anchors(data, self.config, {f: f for f in cut.frames}, height, width)
            for (_, label), on_frames in anchors.items():
                for frame, anchor in on_frames.items():
                    if (frame, ids[label]) not in there:
                        there.add((frame, ids[label]))
                        yield frame, ids[label], anchor.prompts


def _given_name(name: str, frame: int, track: int, prompts: FramePrompts) -> str:
    """Of a first mask in the place of the output. Another mask has another name, and so is another prompt."""
    digest = hashlib.blake2b(prompts.digest().encode(), digest_size=6).hexdigest()
    return f"{GIVEN}/{name}/{frame:05d}-{track}-{digest}.png"
