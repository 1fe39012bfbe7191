"""The backend behind the routes: requests of Label Studio in, regions out."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from tam_backend import __version__
from tam_backend.cluster.sessions import Elsewhere
from tam_backend.engines import Engine, engine_changed, load_engine
from tam_backend.errors import BadInput, TamError
from tam_backend.labelstudio.clicks import ClickAnswers
from tam_backend.labelstudio.clips import ClipFiller
from tam_backend.labelstudio.config import LabelConfig, parse_label_config
from tam_backend.labelstudio.connections import Connections
from tam_backend.labelstudio.delivery import Deliveries
from tam_backend.labelstudio.library import FRAME_BYTES, VideoLibrary
from tam_backend.labelstudio.links import FrameLinks, load_secret
from tam_backend.labelstudio.localfiles import LocalFiles
from tam_backend.labelstudio.media import Downloader
from tam_backend.labelstudio.newtasks import NewTasks
from tam_backend.labelstudio.objects import TaskObjects
from tam_backend.labelstudio.outcomes import OutcomeCounter
from tam_backend.labelstudio.posting import model_version
from tam_backend.labelstudio.removing import RemovalDesk
from tam_backend.labelstudio.renewal import LinkRenewal
from tam_backend.labelstudio.requests import Json
from tam_backend.labelstudio.saved import SavedAnnotations
from tam_backend.labelstudio.shapes import check_result, check_task, check_work
from tam_backend.machine import describe_machine
from tam_backend.metrics import Metrics, Reading
from tam_backend.sessions.activity import Activity
from tam_backend.sessions.blobs import DiskStore, LayeredStore
from tam_backend.sessions.database import FILE, Database
from tam_backend.sessions.delivered import DeliveryLog
from tam_backend.sessions.inherited import InheritedAnchors
from tam_backend.sessions.jobs import BackgroundJobs
from tam_backend.sessions.memory import MemoryWatch, default_limit, resident_bytes
from tam_backend.sessions.outcomes import OutcomeTable
from tam_backend.sessions.owner import LOCK
from tam_backend.sessions.predictions import PostedPredictions
from tam_backend.sessions.progress import UNFINISHED_STATES, ClipProgress, JobView
from tam_backend.sessions.removals import FOLDER, Removals
from tam_backend.sessions.seen import SeenMasks
from tam_backend.sessions.shared import Shared
from tam_backend.sessions.tracks import Track, TrackTable, Work
from tam_backend.sessions.turns import DeviceTurns
from tam_backend.settings import Settings
from tam_backend.tracking.executor import Executor, Here
from tam_backend.tracking.store import MemoryStore
from tam_backend.video.container import Limits
from tam_backend.video.firstlook import FirstLook

log = logging.getLogger(__name__)

#: A batch request waits this long for a task's frames, then lets the work go on behind it.
BATCH_WAIT_SECONDS = 20.0
#: Clicks computed at once at most, where the engine can do that.
_PLACES = 4
#: Addresses of this server under which tasks are looked for at once. Without TAM_PUBLIC_URL callers name them.
_MAX_BASES = 20
#: What decoded frames, and finished masks in memory, may take of the memory that the server may take.
_FRAMES_SHARE, _RESULTS_SHARE = 0.25, 0.2
#: So many batch requests wait at once; others are answered at once. Threads that wait serve nobody else.
_BATCHES_WAITING = 8


class Service:
    """Everything the server knows. Thread-safe; one for each process."""

    def __init__(self, settings: Settings, engine: Engine | None = None) -> None:
        self.settings = settings
        _check_writable(settings.data_dir)
        self.metrics = Metrics()
        engine = engine or load_engine(settings.engine, settings)
        self.engine = replace(engine, decided=self.metrics.decided)
        secret = load_secret(settings.data_dir)
        self.links = FrameLinks(secret, settings.frame_link_days)
        self.connections = Connections(settings)
        downloader = Downloader.from_settings(settings)
        limit = settings.memory_mb * 1_000_000 or default_limit()
        self.library = VideoLibrary(
            settings.data_dir / "videos", downloader, self.connections, settings.media_cache_mb * 1_000_000,
            min(FRAME_BYTES, round(_FRAMES_SHARE * limit)),
            local=LocalFiles(
                settings.media_roots, settings.max_video_mb * 1_000_000, settings.max_image_mb * 1_000_000
            ),
            limits=Limits(
                max_pixels=settings.max_megapixels * 1_000_000, max_frames=settings.max_video_frames,
                max_seconds=settings.max_video_minutes * 60.0,
            ),
            first_look=FirstLook(settings.first_look_seconds, settings.first_look_mb * 1_000_000),
            looked_up=self.metrics.lookup("frames"),
        )  # fmt: skip
        self._clips = ClipFiller(self.library, self.links, settings.clip_length, settings.data_dir / "splits")
        self._database = Database(settings.data_dir / FILE)
        self._memory = MemoryStore(min(settings.result_cache_mb * 1_000_000, round(_RESULTS_SHARE * limit)))
        self._disk = DiskStore(self._database, settings.state_mb * 1_000_000)
        store = self._store = LayeredStore(self._memory, self._disk, self.metrics.lookup("masks"))
        self._tracks = tracks = TrackTable(self._database)
        log_of_deliveries = DeliveryLog(self._database)
        inherited = InheritedAnchors(self._database, store)
        self._executor, places = _executor(settings, self.engine)
        objects = TaskObjects(self.engine, store, SeenMasks(store), log_of_deliveries, inherited, self._executor)
        self._activity = activity = Activity()
        self._deliveries = Deliveries(
            objects, self.library, self._clips, self.connections, activity, PostedPredictions(self._database), tracks,
            log_of_deliveries, inherited, settings.follow_frames, self.model_version,
        )  # fmt: skip
        self._outcomes = OutcomeCounter(
            OutcomeTable(self._database), log_of_deliveries, self.connections,
            f"{self.engine.name} {self.engine.version}",
        )  # fmt: skip
        turns = DeviceTurns(places, self.metrics.turn_seconds.observe)
        self.jobs = BackgroundJobs(
            self.engine, store, tracks, turns, self._deliveries, settings.data_dir / LOCK, settings.finish,
            self.metrics, self._executor,
        )  # fmt: skip
        self.desk = RemovalDesk(self.library, self._clips, self.connections, settings, secret)
        self.removals = Removals(settings.data_dir / FOLDER, turns, self.desk.begin, works=self.jobs.works)
        if engine_changed(self.engine, settings.data_dir):  # nobody's masks change without a click of theirs
            self.jobs.drop(lambda track: True, "the engine has changed: click on the object to track it anew")
        self._clicks = ClickAnswers(
            objects, self.library, self._clips, self.connections, turns, self.jobs, activity, tracks,
            log_of_deliveries, settings.answer_seconds, settings.queue_limit, self.model_version, self.metrics,
        )  # fmt: skip
        # Finished masks last: each that a click needs would have to be read from disk again.
        forget = (*self.engine.forget, self.library.frames.clear, lambda: self._memory.shrink(0))
        self._watch = MemoryWatch(limit, forget)
        self._same_clicks: Shared[Json] = Shared()
        self._batches = threading.Semaphore(_BATCHES_WAITING)
        self._workers = ThreadPoolExecutor(2, thread_name_prefix="frames")
        self._new_tasks = NewTasks(self._clips, self.library, self.connections, tracks, self.jobs, self._workers)
        self._saved = SavedAnnotations(tracks, self.connections, self._outcomes)
        self._bases: set[str] = set()
        self._bases_lock = threading.Lock()
        self._renewal = LinkRenewal(self._clips, self.links, self.connections, settings)
        self._started = time.monotonic()
        self._stopping = False
        self._machine = describe_machine(self.engine)
        self.metrics.about.info(
            {"version": __version__, "engine": self.engine.name, "engine_version": self.engine.version}
        )
        self.metrics.watch(self._readings(turns))

    @property
    def model_version(self) -> str:
        return model_version(self.engine.name)

    def drain(self, seconds: float) -> bool:
        """Have the clicks under way answered with what is finished. Returns whether all were within ``seconds``."""
        self._stopping = True
        self._clicks.stop()
        until = time.monotonic() + seconds
        while self._clicks.running and time.monotonic() < until:
            time.sleep(0.02)
        return not self._clicks.running

    def close(self, timeout: float = 10.0) -> None:
        """Stop within a frame's time, or ``timeout`` seconds. Work in the background goes on at the next start."""
        self._renewal.close()
        self._watch.close()
        self._workers.shutdown(wait=False, cancel_futures=True)
        self.removals.close(timeout)
        self.jobs.close(timeout)
        self._executor.close()
        self._database.close()

    def views(self) -> list[JobView]:
        """All work in the background: unfinished jobs first, then those that ended lately."""
        views = [*self.jobs.views(), *self.removals.views()]
        return sorted(views, key=lambda view: view.state not in UNFINISHED_STATES)

    def clip_progress(self, video: str, frame: int) -> ClipProgress | None:
        """See ``sessions.progress.Progress``."""
        return self.jobs.clip_progress(video, frame)

    def status(self) -> Json:
        """What is going on, as plain data."""
        return {
            "status": "UP",
            "version": __version__,
            "engine": self.engine.name,
            "model_version": self.model_version,
            "uptime_seconds": round(time.monotonic() - self._started, 1),
            "tracking_requests": self._clicks.running,
            "tasks_getting_frames": [{"label_studio": url, "task": task} for url, task in self._new_tasks.filling()],
            "background_jobs": self.jobs.running,
            "result_cache_bytes": self._memory.nbytes,
            "state_bytes": self._disk.nbytes,
            "frame_bytes": self.library.frames.bytes,
            "memory_bytes": resident_bytes(),
            "memory_limit_bytes": self._watch.limit,
            "outcomes": self._outcomes.sums(),
            "obstacles": self.obstacles(),
            **self._machine,
        }

    def obstacles(self) -> list[str]:
        """Why this server should get no work now, in words; empty if it should. Waits for nothing."""
        found = []
        if self._stopping:
            found.append("it is stopping")
        if why := self._store.failing or self.jobs.failing:
            found.append(f"finished masks cannot be stored on disk ({why})")
        if not self.jobs.computing:
            found.append("background work has stopped: see the log")
        return found

    def _readings(self, turns: DeviceTurns) -> list[Reading]:
        """What /metrics looks up. None of it waits: that page must be quick, above all when nothing else is."""
        return [
            Reading("tam_ready", "Whether the server should get work", lambda: not self.obstacles()),
            Reading("tam_uptime_seconds", "Since the server started", lambda: time.monotonic() - self._started),
            Reading("tam_clicks_open", "Clicks that are being answered", lambda: self._clicks.running),
            Reading("tam_turns_waiting", "Clicks that wait for their turn on the device", lambda: turns.waiting),
            Reading("tam_jobs", "Unfinished background jobs", self.jobs.count, "state"),
            Reading("tam_tasks_getting_frames", "Uploads that get frames", lambda: len(self._new_tasks.filling())),
            Reading(
                "tam_cache_bytes", "What caches hold, in memory or on disk",
                lambda: {
                    "masks": self._memory.nbytes, "masks_on_disk": self._disk.nbytes,
                    "frames": self.library.frames.bytes,
                },
                "cache",
            ),
            Reading("tam_memory_bytes", "What the process takes of the machine's memory", resident_bytes),
            Reading("tam_memory_limit_bytes", "What it may take (TAM_MEMORY_MB)", lambda: self._watch.limit),
        ]  # fmt: skip

    def setup(self, schema: str, hostname: str | None, token: str | None, base: str = "") -> Json:
        """A project connects, or its page is opened. base: address of this server as browsers reach it.

        Raises LabelConfigError if its labeling configuration cannot work.
        """
        self.connections.remember(hostname, token)
        parse_label_config(schema)
        self._note_base(base)
        return {"model_version": self.model_version}

    def webhook(self, event: Json, base: str) -> None:
        """Note an event; the work it makes is done behind. Raises BadInput if it is no event."""
        action = event.get("action")
        if not isinstance(action, str):
            raise BadInput("the event has no action")
        project = event.get("project")
        if action not in (
            "TASKS_CREATED",
            "TASKS_DELETED",
            "PROJECT_UPDATED",
            "ANNOTATION_CREATED",
            "ANNOTATION_UPDATED",
            "ANNOTATIONS_DELETED",
        ):
            return
        tasks = event.get("tasks", [])
        if not isinstance(project, dict) or not isinstance(tasks, list):
            raise BadInput(f"{action} must carry project and tasks or annotation")
        if action == "TASKS_DELETED":
            self._forget({t["id"] for t in tasks if isinstance(t, dict) and isinstance(t.get("id"), int)})
            return
        if action == "ANNOTATIONS_DELETED":
            gone = event.get("annotations")
            self._outcomes.forget(a.get("id") for a in (gone if isinstance(gone, list) else []) if isinstance(a, dict))
            return
        config = parse_label_config(str(project.get("label_config", "")))
        if action == "PROJECT_UPDATED":
            self._drop_removed_labels(project.get("id"), config)
        if action == "TASKS_CREATED":
            for i, task in enumerate(tasks):
                if isinstance(task, dict) and isinstance(task.get("data"), dict):
                    check_task(task, f"tasks[{i}]")
                    self._new_tasks.fill(task, str(project.get("id")), config, base)
        elif isinstance(annotation := event.get("annotation"), dict):
            check_work(annotation, "annotation")
            self._workers.submit(self._saved.note, annotation, config)
            self._workers.submit(self._saved.count, annotation, project.get("id"), config)

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
            check_task(task, f"tasks[{i}]")
        if context and context.get("result"):
            if len(tasks) != 1:
                raise BadInput(f"an interactive request is about one task, not {len(tasks)}")
            check_result(context["result"], "params.context.result")
            asked, given = tasks[0], context

            def answered() -> Json:
                try:
                    return self._clicks.answer(asked, given, config, project or "", started)
                except Exception:
                    self.metrics.click_seconds.labels("failed").observe(time.monotonic() - started)
                    raise

            # The very same request twice at once: one computation, and the same answer to both.
            answer = self._same_clicks.get(json.dumps([asked, given, label_config, project]), answered)
            return [answer | {"model_version": self.model_version}]
        for task in tasks:
            self._deliveries.complete_at_opening(task, project, config)
        waiting = [f for t in tasks if (f := self._new_tasks.fill(t, project, config, base))]
        if waiting and self._batches.acquire(blocking=False):
            try:
                wait(waiting, max(started + BATCH_WAIT_SECONDS - time.monotonic(), 0))
            finally:
                self._batches.release()
        # No prediction, rather than an empty one: Label Studio would keep it, begin annotations with it, keep two when
        # it asks twice at once, and never ask for this task again.
        return [[] for _ in range(len(tasks))]

    def _forget(self, tasks: set[Any]) -> None:
        """Tasks were deleted."""
        connection = self.connections.current()
        if connection is None:
            return

        def gone(track: Track) -> bool:
            return track.work.label_studio == connection.url and track.work.task in tasks

        self.jobs.drop(gone, "the task was deleted")
        for task in tasks:
            if isinstance(task, int):
                self._deliveries.forget(Work(connection.url, 0, task))
                self._outcomes.forget_task(Work(connection.url, 0, task))

    def _drop_removed_labels(self, project: object, config: LabelConfig) -> None:
        """A project's labeling configuration was changed."""

        def gone(track: Track) -> bool:
            return track.work.project == project and config.find_mask(track.tag, track.label) is None

        self.jobs.drop(gone, "the project has this label no more")

    def _note_base(self, base: str) -> None:
        """Browsers reach this server at ``base`` now."""
        if base:
            self._renewal.base = base
        with self._bases_lock:
            if not base or base in self._bases or len(self._bases) >= _MAX_BASES:
                return
            self._bases.add(base)
        self._workers.submit(self._readdress, base)

    def _readdress(self, base: str) -> None:
        try:
            self._deliveries.readdress(base)
        except Exception as e:  # tried again with the next request
            log.warning("tasks could not be given the address %s: %s", base, e)
            with self._bases_lock:
                self._bases.discard(base)


def _executor(settings: Settings, engine: Engine) -> tuple[Executor, int]:
    """Who computes, and how much at once."""
    if not settings.cluster:
        return Here(engine), _places(engine)
    from tam_backend.cluster.on_ray import session_workers  # Ray is needed only here

    workers, count = session_workers(settings, engine)
    log.info("%d workers of the Ray cluster at %s compute", count, settings.cluster)
    return Elsewhere(engine, workers), count


def _places(engine: Engine) -> int:
    """How many clicks an engine may compute at once: a core for each, where it gains by that."""
    return min(_PLACES, os.cpu_count() or 1) if engine.concurrent else 1


def _check_writable(folder: Path) -> None:
    """Raises TamError if nothing can be kept in a folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as e:
        raise TamError(
            f"cannot write to {folder} ({e.strerror}): TAM_DATA_DIR must be a folder that this program may write"
        ) from e
