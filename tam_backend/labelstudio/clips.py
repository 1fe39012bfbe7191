"""Upload -> frames: a task that has a video gets the list of frame URLs that Label Studio's editor needs."""

from __future__ import annotations

import json
import logging
import threading
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tam_backend.errors import BadInput, LabelStudioError, MediaError
from tam_backend.labelstudio.config import LabelConfig
from tam_backend.labelstudio.connections import Client, Connection
from tam_backend.labelstudio.cuts import CUT_KEY, PLAN_KEY, Cut, CutPlan
from tam_backend.labelstudio.library import VideoLibrary
from tam_backend.labelstudio.links import FrameLinks
from tam_backend.labelstudio.media import absolute_url
from tam_backend.labelstudio.seeds import SEEDS_KEY, seeds_within

log = logging.getLogger(__name__)

Json = dict[str, Any]

#: Key of task data with a sentence for people: which part of the video this task is, or what is wrong with the video.
NOTE_KEY = "clip"


@dataclass(frozen=True, slots=True)
class Clip:
    """The frames of one task: ``frames`` (a range with step 1) of a registered video. item_index i is frames[i].

    label_studio: the address under which its Label Studio was known when the video was registered.
    """

    video: str
    frames: range
    label_studio: str


class ClipFiller:
    """Writes frame lists into tasks, once, whoever asks and however often.

    root: a directory for notes about tasks whose video is being split, so that a crash between creating the further
    tasks and updating the first one does not create them again.
    """

    def __init__(self, library: VideoLibrary, links: FrameLinks, clip_length: int, root: Path) -> None:
        self._library = library
        self._links = links
        self._clip_length = clip_length
        self._root = root
        self._locks: defaultdict[tuple[str, int], threading.Lock] = defaultdict(threading.Lock)
        self._lock = threading.Lock()

    def find(
        self,
        data: Json,
        config: LabelConfig,
        connection: Connection | None,
        image: str | None = None,
        project: int | None = None,
    ) -> Clip:
        """The clip that a task's data describes. project: its id, for images in cloud storage.

        Raises BadInput or MediaError if there is none.
        """
        frames = data.get(config.frames_key(image))
        if not isinstance(frames, list) or not frames:
            raise BadInput(
                f"the task's data has no list of frames under {config.frames_key(image)!r} yet: close the task and "
                "open it again in a moment"
            )
        parsed = [self._links.parse(url) for url in frames]
        first = parsed[0]
        if first is None:
            if any(parsed):
                raise BadInput(f"{config.frames_key(image)!r} mixes our frames with others; import the task again")
            if shown := self._pictures_of_video(data, config, connection, project):
                return shown
            urls = [absolute_url(url, connection, project) for url in frames]
            video = self._library.register("images", urls, connection)
            return Clip(video, range(len(urls)), connection.url if connection else "")
        expected = [(first[0], first[1] + i) for i in range(len(frames))]
        if parsed != expected:
            raise BadInput(f"{config.frames_key(image)!r} is not one unbroken range of frames; import the task again")
        return Clip(first[0], range(first[1], first[1] + len(frames)), self._library.host(first[0]))

    def _pictures_of_video(
        self, data: Json, config: LabelConfig, connection: Connection | None, project: int | None
    ) -> Clip | None:
        """The part of a video that a task shows as pictures made elsewhere; None if it does not say so.

        Then the video is what is read: it is the same for all its tasks, and its pixels were not packed twice.
        """
        cut, address = Cut.of_task(data, config), data.get(config.video_key)
        if CUT_KEY not in data or cut is None or not isinstance(address, str) or "/" not in address:
            return None
        url = absolute_url(address, connection, project)
        video = self._library.register("video", [url], connection, cut.every, cut.first)
        first = cut.first // cut.every
        return Clip(video, range(first, first + cut.count), connection.url if connection else "")

    def numbers_of(self, data: Json, config: LabelConfig, clip: Clip) -> dict[int, int]:
        """Frame number in the original video -> frame as the engines count, of those that a task shows."""
        cut = Cut.of_task(data, config)
        return dict(zip(cut.frames, clip.frames, strict=True)) if cut else {}

    def base_of(self, data: Json, config: LabelConfig) -> str:
        """The address of this server in a task's frames, "" if they are not ours."""
        frames = data.get(config.frames_key())
        first = frames[0] if isinstance(frames, list) and frames else None
        return str(first).partition("/frames/")[0] if self._links.parse(first) else ""

    def needs_frames(self, data: Json, config: LabelConfig, base: str) -> bool:
        """Whether this is a task with a video whose frames are missing, moved to another address, or a placeholder."""
        if not data.get(config.video_key):
            return False
        frames = data.get(config.frames_key())
        if not isinstance(frames, list) or not frames or not all(isinstance(f, str) for f in frames):
            return True
        if self._links.parse(frames[0]) is None:
            return False
        return _is_error(data) or self.is_moved(data, config, base)

    def is_moved(self, data: Json, config: LabelConfig, base: str) -> bool:
        """Whether a task has a video's frames under addresses that we would not give them now."""
        frames = data.get(config.frames_key())
        if not isinstance(frames, list) or not frames or _is_error(data):
            return False
        ours = self._links.parse(frames[0])
        return ours is not None and frames[0] != self._links.url(base, *ours)

    def fill(self, task_id: int, project_id: int, config: LabelConfig, connection: Connection, base: str) -> None:
        """Give a task its frames. Reads the task anew, so a task that was filled meanwhile is left as it is.

        base: address of this server as browsers reach it. Raises LabelStudioError when Label Studio cannot be asked;
        everything that is wrong with the video goes into the task as a frame that says so.
        """
        with self._lock:
            lock = self._locks[connection.url, task_id]
        with lock:
            client = Client(connection)
            data = client.task(project_id, task_id)["data"]
            if not self.needs_frames(data, config, base):
                return
            key = config.frames_key()
            moved = self._moved(data.get(key), base)
            if moved and not _is_error(data):
                client.replace_task_data(task_id, {**data, key: moved})
                return
            video = ""
            try:
                plan = CutPlan.of_task(data) or CutPlan(self._clip_length)
                url = absolute_url(data[config.video_key], connection, project_id)
                video = self._library.register("video", [url], connection)
                reader = self._library.open(video)
                count, warning = len(reader), getattr(reader, "warning", None)
                reader.close()
                if plan.every > 1:
                    video = self._library.register("video", [url], connection, plan.every, plan.first)
                tasks = [self._clip_data(data, key, cut, video, base, count, warning) for cut in plan.cuts(count)]
            except (MediaError, BadInput) as e:
                log.warning("task %s: %s", task_id, e)
                if not video:  # there is no address to register; its text stands for it
                    video = self._library.register("error", [str(data[config.video_key])[:2000]], connection)
                self._library.set_error(video, str(e))
                frames = [self._links.url(base, video, 0)]
                client.replace_task_data(task_id, {**data, key: frames, NOTE_KEY: f"ERROR: {e}"})
                return
            if len(tasks) > 1:
                self._create_once(client, task_id, project_id, tasks[1:], key)
            client.replace_task_data(task_id, tasks[0])
            log.info("task %s: %d frames in %d task(s)", task_id, count, len(tasks))

    def _clip_data(
        self, data: Json, key: str, cut: Cut, video: str, base: str, count: int, warning: str | None
    ) -> Json:
        """Data of the task that shows a part of a video with ``count`` frames."""
        first = cut.first // cut.every
        note = f"frames {cut.first} to {cut.frames[-1]} of {count}"
        clip = {
            **{k: v for k, v in data.items() if k not in (PLAN_KEY, SEEDS_KEY)},
            key: [self._links.url(base, video, i) for i in range(first, first + cut.count)],
            NOTE_KEY: note + (f", every {cut.every}" if cut.every > 1 else "") + (f"; {warning}" if warning else ""),
            CUT_KEY: cut.as_json(),
        }
        seeds = seeds_within(data, cut.frames)
        return clip | ({SEEDS_KEY: seeds} if seeds else {})

    def _moved(self, frames: object, base: str) -> list[str]:
        """The frames under the present address of this server, if they are all ours; else []."""
        if not isinstance(frames, list):
            return []
        parsed = [self._links.parse(f) for f in frames]
        return [self._links.url(base, *p) for p in parsed if p] if all(parsed) else []

    def _create_once(self, client: Client, task_id: int, project_id: int, tasks: list[Json], key: str) -> None:
        note = self._root / f"{project_id}-{task_id}.json"
        wanted = {task[key][0].partition("?")[0].partition("/frames/")[2] for task in tasks}
        if note.exists():  # an earlier attempt began: create what did not arrive
            arrived = set()
            for task in client.project_tasks(project_id):
                frames = task["data"].get(key)
                if isinstance(frames, list) and frames and (ours := self._links.parse(frames[0])):
                    arrived.add(f"{ours[0]}/{ours[1]}.jpg")
            wanted -= arrived
            tasks = [t for t in tasks if t[key][0].partition("?")[0].partition("/frames/")[2] in wanted]
        else:
            note.parent.mkdir(parents=True, exist_ok=True)
            note.write_text(json.dumps({"clips": len(tasks) + 1}))
        if tasks:
            client.import_tasks(project_id, tasks)


def _is_error(data: Json) -> bool:
    """Whether a task has the picture that is shown in place of a video."""
    return str(data.get(NOTE_KEY, "")).startswith("ERROR")


def project_of(task: Json, project: str | None) -> int:
    """The project id of a task: from the task itself, or from a request's ``project`` ("12.1795364937")."""
    number = task.get("project") or (project or "").partition(".")[0]
    try:
        return int(number)
    except (TypeError, ValueError) as e:
        raise LabelStudioError(f"the request names no project ({number!r:.40})") from e
