"""The backend behind the routes: requests of Label Studio in, regions out."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from tam_backend import __version__
from tam_backend.engines import Engine, load_engine
from tam_backend.errors import BadInput, TamError
from tam_backend.labelstudio.clips import Clip, ClipFiller, project_of
from tam_backend.labelstudio.config import LabelConfig, parse_label_config
from tam_backend.labelstudio.connections import Client, Connection, Connections
from tam_backend.labelstudio.library import VideoLibrary
from tam_backend.labelstudio.links import FrameLinks, load_secret
from tam_backend.labelstudio.media import Downloader
from tam_backend.labelstudio.regions import check_regions, echo_point, mask_region
from tam_backend.labelstudio.requests import Ask, Json, Point, check_size, decode_region_mask, parse_asks
from tam_backend.prompts import FramePrompts, Mask
from tam_backend.sessions.overtaking import Overtaking, Ticket
from tam_backend.sessions.seen import SeenMasks
from tam_backend.settings import Settings
from tam_backend.tracking.store import MemoryStore
from tam_backend.tracking.tracker import Anchor, TrackedFrame, Tracker
from tam_backend.video.base import Reader

log = logging.getLogger(__name__)

#: A batch request waits this long for a task's frames, then lets the work go on behind it.
BATCH_WAIT_SECONDS = 20.0
#: (connect, read) seconds for the look at the newest draft before an answer.
DRAFT_TIMEOUT = (1.0, 3.0)


class Service:
    """Everything the server knows. Thread-safe; one for each process."""

    def __init__(self, settings: Settings, engine: Engine | None = None) -> None:
        self.settings = settings
        self.engine = engine or load_engine(settings.engine)
        self.links = FrameLinks(load_secret(settings.data_dir))
        self.connections = Connections(settings)
        downloader = Downloader(settings.media_hosts, settings.max_video_mb * 1_000_000)
        self.library = VideoLibrary(settings.data_dir / "videos", downloader, self.connections)
        self._clips = ClipFiller(self.library, self.links, settings.clip_length, settings.data_dir / "splits")
        self._store = MemoryStore(settings.result_cache_mb * 1_000_000)
        self._seen = SeenMasks(self._store)
        self._overtaking = Overtaking()
        self._workers = ThreadPoolExecutor(2, thread_name_prefix="frames")
        self._filling: dict[tuple[str, int], Future[None]] = {}
        self._filling_lock = threading.Lock()
        # Frames are computed one at a time: each uses all cores, and requests that take turns frame by frame all
        # get their nearest frames soon.
        self._compute = threading.Lock()
        self._started = time.monotonic()

    @property
    def model_version(self) -> str:
        return f"tam-{__version__}-{self.engine.name}"

    def close(self) -> None:
        self._workers.shutdown(wait=False, cancel_futures=True)

    def status(self) -> Json:
        """What is going on, as plain data."""
        with self._filling_lock:
            filling = [{"label_studio": url, "task": task} for url, task in self._filling]
        return {
            "status": "UP",
            "version": __version__,
            "engine": self.engine.name,
            "model_version": self.model_version,
            "uptime_seconds": round(time.monotonic() - self._started, 1),
            "tracking_requests": self._overtaking.running,
            "tasks_getting_frames": filling,
            "result_cache_bytes": self._store.nbytes,
        }

    def setup(self, schema: str, hostname: str | None, token: str | None) -> Json:
        """A project connects. Raises LabelConfigError if its labeling configuration cannot work."""
        self.connections.remember(hostname, token)
        parse_label_config(schema)
        return {"model_version": self.model_version}

    def webhook(self, event: Json, base: str) -> None:
        """Note an event; the work it makes is done behind. Raises BadInput if it is no event."""
        action = event.get("action")
        if not isinstance(action, str):
            raise BadInput("the event has no action")
        if action != "TASKS_CREATED":
            return
        project, tasks = event.get("project"), event.get("tasks")
        if not isinstance(project, dict) or not isinstance(tasks, list):
            raise BadInput("TASKS_CREATED must carry project and tasks")
        config = parse_label_config(str(project.get("label_config", "")))
        for task in tasks:
            if isinstance(task, dict) and isinstance(task.get("data"), dict):
                self._fill(task, str(project.get("id")), config, base)

    def predict(
        self, tasks: list[Json], label_config: str, context: Json | None, project: str | None, base: str
    ) -> list[Json | list[Json]]:
        """Answer /predict: one entry for each task, in order.

        context: what an interactive request carries, else None. The entry for an interactive request is a prediction;
        that for a task of a batch is a list of predictions, which is empty.
        """
        started = time.monotonic()
        config = parse_label_config(label_config)
        for i, task in enumerate(tasks):
            if not isinstance(task, dict) or not isinstance(task.get("data"), dict):
                raise BadInput(f"tasks[{i}] must be an object with data")
        if context and context.get("result"):
            if len(tasks) != 1:
                raise BadInput(f"an interactive request is about one task, not {len(tasks)}")
            return [self._interactive(tasks[0], context, config, project, started)]
        waiting = [f for t in tasks if (f := self._fill(t, project, config, base))]
        for future in waiting:
            left = BATCH_WAIT_SECONDS - (time.monotonic() - started)
            try:
                future.result(max(left, 0))
            except TimeoutError:
                break
            except TamError as e:
                log.warning("%s", e)
        # No prediction, rather than an empty one: Label Studio would keep it, begin annotations with it, keep two when
        # it asks twice at once, and never ask for this task again.
        return [[] for _ in range(len(tasks))]

    # ---- frames of new tasks

    def _fill(self, task: Json, project: str | None, config: LabelConfig, base: str) -> Future[None] | None:
        """Begin to give a task its frames, if it needs them. One worker a task, however many ask."""
        if not self._clips.needs_frames(task["data"], config, base):
            return None
        connection = self.connections.current()
        task_id = task.get("id")
        if connection is None or not isinstance(task_id, int):
            log.warning("task %s: no frames yet, the address of Label Studio is not known", task_id)
            return None
        project_id = project_of(task, project)
        key = (connection.url, task_id)
        with self._filling_lock:
            future = self._filling.get(key)
            if future is None:
                future = self._workers.submit(self._fill_now, key, project_id, config, connection, base)
                self._filling[key] = future
        return future

    def _fill_now(
        self, key: tuple[str, int], project: int, config: LabelConfig, connection: Connection, base: str
    ) -> None:
        try:
            self._clips.fill(key[1], project, config, connection, base)
        except TamError as e:
            log.warning("task %s: %s", key[1], e)
            raise
        except Exception:
            log.exception("task %s: could not get its frames", key[1])
            raise
        finally:
            with self._filling_lock:
                self._filling.pop(key, None)

    # ---- interactive requests

    def _interactive(self, task: Json, context: Json, config: LabelConfig, project: str | None, started: float) -> Json:
        clip = self._clips.find(task["data"], config, self.connections.current())
        asks = parse_asks(task, context, config, len(clip.frames))
        if not asks:
            raise BadInput("params.context.result has no keypoints: only smart keypoints can be answered")
        regions: list[Json] = []
        deadline = started + self.settings.answer_seconds
        work = (project or "", task.get("id"))
        tickets = [self._overtaking.begin((*work, a.mask_control.name, a.label), a.ids) for a in asks]
        try:
            reader = self.library.open(clip.video)
            try:
                for ask, ticket in zip(asks, tickets, strict=True):
                    masks = list(self._answer(ask, ticket, clip, reader, work, deadline))
                    if not ticket.overtaken:
                        regions += masks
                    regions += [echo_point(p) for p in ask.new_points]
            finally:
                reader.close()
        finally:
            for ticket in tickets:
                self._overtaking.end(ticket)
        regions = self._without_fresh_work(regions, task, context, config, len(clip.frames))
        check_regions(regions, config, len(clip.frames))
        score = float(np.mean([r["score"] for r in regions if "score" in r] or [0.0]))
        return {"result": regions, "score": score, "model_version": self.model_version}

    def _without_fresh_work(
        self, regions: list[Json], task: Json, context: Json, config: LabelConfig, frames: int
    ) -> list[Json]:
        """Leave out frames that a person fixed or drew while we computed.

        A draft is saved some seconds after a change, so a fix made just before the click is not in the request. A mask
        of ours with the same id would overwrite it.
        """
        connection, task_id = self.connections.current(), task.get("id")
        if connection is None or not connection.token or not isinstance(task_id, int):
            return regions
        if not any("score" in r for r in regions):
            return regions
        try:
            drafts = Client(connection, DRAFT_TIMEOUT).drafts(task_id)
            fresh = parse_asks({**task, "drafts": drafts}, context, config, frames)
        except TamError as e:
            log.info("task %s: the newest draft could not be read (%s)", task_id, e)
            return regions
        by_hand = {(a.mask_control.name, a.label, index) for a in fresh for index in a.by_hand}
        return [
            r
            for r in regions
            if "score" not in r or (r["from_name"], r["value"][r["type"]][0], r["item_index"]) not in by_hand
        ]

    def _answer(
        self, ask: Ask, ticket: Ticket, clip: Clip, reader: Reader, work: tuple[Any, ...], deadline: float
    ) -> Iterator[Json]:
        """The regions of one object that the page does not show yet, until the time is up or a newer request came."""
        for point in ask.points:
            check_size(point.region, reader.height, reader.width, f"point {point.id!r}")
        with Tracker(self.engine, reader, clip.frames, self._store) as tracker:
            anchors = self._anchors(ask, clip, reader, work, tracker)
            if not anchors:
                return
            tracked = tracker.track(anchors, clip.frames[ask.focus])
            try:
                while not ticket.overtaken:
                    with self._compute:
                        frame = next(tracked, None)
                    if frame is None:
                        return
                    region = self._region(ask, clip, frame)
                    if region is not None:
                        yield region
                    if time.monotonic() > deadline:
                        return
            finally:
                tracked.close()

    def _region(self, ask: Ask, clip: Clip, tracked: TrackedFrame) -> Json | None:
        """The region to send for a frame; None if a person's own mask is there, or nothing would change."""
        index = tracked.frame - clip.frames.start
        if index in ask.by_hand:
            return None
        mask = tracked.mask
        if not mask.any():
            return None
        meta = {"engine": self.engine.name, "frame": tracked.frame, "quality": round(tracked.quality, 4)}
        region = mask_region(ask.mask_control, ask.label, index, mask, tracked.quality, meta)
        shown = ask.ours.get(index)
        if shown is not None and shown.get("id") == region["id"] and shown.get("value") == region["value"]:
            return None
        return region

    def _anchors(
        self, ask: Ask, clip: Clip, reader: Reader, work: tuple[Any, ...], tracker: Tracker
    ) -> dict[int, Anchor]:
        """What the person decided, frame of the video -> anchor: their own masks, and their clicks elsewhere."""
        height, width = reader.height, reader.width
        anchors: dict[int, Anchor] = {}
        for index, regions in ask.by_hand.items():
            mask = np.logical_or.reduce([decode_region_mask(r, height, width) for r in regions])
            anchors[clip.frames[index]] = Anchor(FramePrompts(mask=mask))
        clicked: dict[int, list[Point]] = {}
        for point in ask.points:
            if point.frame not in ask.by_hand:
                clicked.setdefault(point.frame, []).append(point)
        # Frames clicked for the first time come last: what they showed follows from the other ones.
        for index, points in sorted(clicked.items(), key=lambda item: item[1][0].new):
            prompts = FramePrompts(clicks=tuple(p.click(height, width) for p in points))
            frame = clip.frames[index]
            known, prior = self._seen.get(work, points[0].id)
            if not known:
                prior = self._shown(ask, index, frame, anchors, tracker, height, width)
                self._seen.set(work, points[0].id, prior)
            if prompts.locates or prior is not None:
                anchors[frame] = Anchor(prompts, prior)
        return anchors

    def _shown(
        self, ask: Ask, index: int, frame: int, anchors: dict[int, Anchor], tracker: Tracker, height: int, width: int
    ) -> Mask | None:
        """The mask that the page shows on a frame: that of our last answer, else the saved one. None if empty.

        Our last answer goes first because the saved draft lags some seconds behind the page.
        """
        tracked = tracker.stored(anchors, frame)
        if tracked is not None:
            mask = tracked.mask
        elif index in ask.ours:
            mask = decode_region_mask(ask.ours[index], height, width)
        else:
            return None
        return mask if mask.any() else None
