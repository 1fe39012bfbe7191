"""New tasks get the frames of their videos, and what their seeds say is tracked."""

from __future__ import annotations

import contextlib
import logging
import threading
from concurrent.futures import Future, ThreadPoolExecutor

from tam_backend.errors import TamError
from tam_backend.labelstudio.clips import ClipFiller, project_of
from tam_backend.labelstudio.config import LabelConfig
from tam_backend.labelstudio.connections import Client, Connection, Connections
from tam_backend.labelstudio.library import VideoLibrary
from tam_backend.labelstudio.requests import Json
from tam_backend.labelstudio.seeds import SEEDS_KEY, seeded_anchors
from tam_backend.logfacts import log_about
from tam_backend.sessions.jobs import BackgroundJobs
from tam_backend.sessions.tracks import Track, TrackTable, Work

log = logging.getLogger(__name__)


class NewTasks:
    """Thread-safe. The work is done by ``workers``."""

    def __init__(
        self,
        clips: ClipFiller,
        library: VideoLibrary,
        connections: Connections,
        tracks: TrackTable,
        jobs: BackgroundJobs,
        workers: ThreadPoolExecutor,
    ) -> None:
        self._clips, self._library, self._connections = clips, library, connections
        self._tracks, self._jobs, self._workers = tracks, jobs, workers
        self._filling: dict[tuple[str, int], Future[None]] = {}
        self._lock = threading.Lock()

    def filling(self) -> list[tuple[str, int]]:
        """Address of Label Studio and id of the tasks that get their frames now."""
        with self._lock:
            return list(self._filling)

    def fill(self, task: Json, project: str | None, config: LabelConfig, base: str) -> Future[None] | None:
        """Begin to give a task its frames, if it needs them. One worker a task, however many ask. What fails is in the
        log."""
        if not self._clips.needs_frames(task["data"], config, base) and not self._unseeded(task):
            return None
        connection = self._connections.current()
        task_id = task.get("id")
        if not base:  # under the server of Label Studio's library, which serves no frames
            log.warning("task %s: no frames, TAM_PUBLIC_URL must say where `tam serve` serves them", task_id)
            return None
        if connection is None or not isinstance(task_id, int):
            log.warning("task %s: no frames yet, the address of Label Studio is not known", task_id)
            return None
        project_id = project_of(task, project)
        key = (connection.url, task_id)
        with self._lock:
            future = self._filling.get(key)
            if future is None:
                future = self._workers.submit(self._fill_now, key, project_id, config, connection, base)
                self._filling[key] = future
        return future

    def _fill_now(
        self, key: tuple[str, int], project: int, config: LabelConfig, connection: Connection, base: str
    ) -> None:
        with log_about(project=project, task=key[1]):
            try:
                self._clips.fill(key[1], project, config, connection, base)
                self._start_seeds(key[1], project, config, connection)
            except TamError as e:
                log.warning("task %s: %s", key[1], e)
                raise
            except Exception:
                log.exception("task %s: could not get its frames", key[1])
                raise
            finally:
                with self._lock:
                    self._filling.pop(key, None)

    def _unseeded(self, task: Json) -> bool:
        """Whether a task has seeds of which nothing was begun yet."""
        connection, number = self._connections.current(), task.get("id")
        if not task["data"].get(SEEDS_KEY) or connection is None or not isinstance(number, int):
            return False
        return not self._tracks.of_task(connection.url, number)

    def _start_seeds(self, task_id: int, project: int, config: LabelConfig, connection: Connection) -> None:
        """Begin to track what the seeds of a task say, for labels that nobody has begun. Raises TamError."""
        data = Client(connection).task(project, task_id)["data"]
        if not data.get(SEEDS_KEY):
            return
        clip = self._clips.find(data, config, connection, project=project)
        with contextlib.closing(self._library.open(clip.video)) as reader:
            frames = self._clips.numbers_of(data, config, clip)
            seeded = seeded_anchors(data, config, frames, reader.height, reader.width)
        work = Work(clip.label_studio, project, task_id)
        begun = {(t.tag, t.label) for t in self._tracks.of_task(work.label_studio, work.task)}
        for (control, label), anchors in seeded.items():
            if (control.name, label) not in begun:
                track = Track(work, control.name, label, clip.video, clip.frames, min(anchors), anchors)
                self._jobs.release(self._jobs.begin(track))
                log.info("task %s: %s is tracked from %d seed(s)", task_id, label, len(anchors))
