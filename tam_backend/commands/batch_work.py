"""What ``tam batch`` does for one video, in whatever process: fetch it, track it, bring the masks where they belong.

The masks are a folder as ``tam track`` writes it. While it works, what is finished goes to the place of the output
every few seconds, so that another worker goes on from there if this one dies.
"""

from __future__ import annotations

import contextlib
import json
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from tam_backend.cluster.executors import this_process
from tam_backend.cluster.places import Place, local_copy, pack
from tam_backend.cluster.segments import SegmentStore
from tam_backend.commands.batch_manifest import Item
from tam_backend.commands.track_output import OutputFolder
from tam_backend.commands.track_predictions import Naming, name_objects
from tam_backend.commands.track_progress import Interruption
from tam_backend.commands.track_prompts import MaskOption, collect_prompts
from tam_backend.commands.track_work import Work
from tam_backend.engines import Engine, load_engine
from tam_backend.errors import BadInput
from tam_backend.settings import Settings
from tam_backend.tracking.filestore import write_atomically
from tam_backend.tracking.refinement import Decision
from tam_backend.tracking.tracker import Tracker
from tam_backend.video import open_source

T = TypeVar("T")

#: The report about a video, in its folder; and where unfinished work is kept, beside the folders.
REPORT, UNFINISHED = "report.json", ".unfinished"
_QUALITIES = Path(".tam") / "qualities.json"
#: Seconds between two messages about how far it is.
_TELL_EVERY = 0.5


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a video is. done: finished frames of ``total``."""

    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Finished:
    """A video is done. report: JSON data. packed: the folder as a zip, if it is to go back through the executor."""

    report: dict[str, Any]
    packed: bytes | None = None


def start_worker(settings: Settings, engine: str, out: str | None) -> Callable[[Item], Iterator[Progress | Finished]]:
    """Load an engine, once for a worker. out: where the masks go; None: back through the executor."""
    loaded = load_engine(engine, settings)
    place = None if out is None else Place(out)
    return lambda item: track_item(loaded, item, place)


def track_item(engine: Engine, item: Item, place: Place | None) -> Iterator[Progress | Finished]:
    """Track a video of a manifest. The last message is ``Finished``.

    Raises BadInput or MediaError where trying again would not help; OSError and others where it may.
    """
    with TemporaryDirectory(prefix="tam-batch-") as folder:
        job = _Job(engine, item, place, Path(folder))
        thread = threading.Thread(target=job.run, name="batch", daemon=True)
        thread.start()
        try:
            while (message := job.messages.get()) is not None:
                yield message
        finally:  # also where the caller wants no more: it stops after the frame that it is at
            job.told.requested = True
            thread.join()
        if job.error is not None:
            raise job.error


class _Telling(Interruption):
    """Counts what passes. ``requested`` is set by whoever does not want more."""

    def __init__(self, step: Callable[[], None]) -> None:
        super().__init__()
        self._step = step

    def stoppable(self, items: Iterable[T]) -> Iterator[T]:
        for item in super().stoppable(items):
            yield item
            self._step()


class _Job:
    """One video, in a thread of its own, so that its messages can be taken one by one. messages: None is the last."""

    def __init__(self, engine: Engine, item: Item, place: Place | None, folder: Path) -> None:
        self.messages: queue.SimpleQueue[Progress | Finished | None] = queue.SimpleQueue()
        self.told = _Telling(self._step)
        self.error: BaseException | None = None
        self._decisions: list[bool] = []
        self._engine = replace(engine, decided=self._decided)
        self._item = item
        self._place = place
        self._folder = folder
        self._work: Work | None = None
        self._said = 0.0

    def run(self) -> None:
        try:
            finished = self._tracked()
            if finished is not None:
                self.messages.put(finished)
        except BaseException as e:  # it is raised again where the messages are taken
            self.error = e
        finally:
            self.messages.put(None)

    def _decided(self, decision: Decision) -> None:
        if decision.score is not None:
            self._decisions.append(decision.accepted)

    def _step(self) -> None:
        now = time.monotonic()
        if self._work is not None and now - self._said >= _TELL_EVERY:
            self._said = now
            self.messages.put(Progress(len(self._work.qualities), len(self._work.tracker.frames)))

    def _tracked(self) -> Finished | None:
        """None if it was stopped."""
        item, engine = self._item, self._engine
        began = time.monotonic()
        with contextlib.closing(open_source(local_copy(item.video, self._folder / "in"))) as video:
            last = len(video) - 1 if item.end is None else item.end
            if not 0 <= item.start <= last < len(video):
                raise BadInput(f"frames {item.start} to {last} are not in the video: it has 0 to {len(video) - 1}")
            frames = range(item.start, last + 1)
            masks = [
                MaskOption(f"{m.frame}={m.url}", m.frame, self._fetched(m.url, i), m.object_id)
                for i, m in enumerate(item.masks)
            ]
            prompts = collect_prompts(item.clicks, masks, video, frames, item.refine_masks, item.boxes)
            naming = Naming("mask", "image", "brush", name_objects(prompts, item.labels))
            name = item.video.rstrip("/").rpartition("/")[2]
            described = {
                "video": video.key,
                "name": name,
                "engine": engine.id,
                "frames": [frames.start, frames.stop],
                "objects": {str(i): {str(f): p.digest() for f, p in on.items()} for i, on in prompts.items()},
            }
            store = SegmentStore(self._place, f"{UNFINISHED}/{item.name}", self._folder / "store")
            with (
                OutputFolder(self._folder / "out", described) as out,
                Tracker(engine, video, frames, store) as tracker,
            ):
                self._work = work = Work(tracker, prompts, out, self.told, quiet=True)
                try:
                    work.track((item.clicks or item.masks or item.boxes)[0].frame)
                finally:
                    store.flush()
                if work.failure is not None:
                    raise work.failure
                if work.stopped:
                    return None
                work.write_task(name, f"/data/local-files/?d={item.name}/frames", naming, engine.name)
                _write_qualities(out.path, work)
                report = self._report(work, naming, began)
        return self._brought(out.path, report, store)

    def _fetched(self, url: str, number: int) -> Path:
        return local_copy(url, self._folder / "masks" / str(number))

    def _report(self, work: Work, naming: Naming, began: float) -> dict[str, Any]:
        frames, computed = len(work.tracker.frames), len(work.fresh)
        objects = {}
        for object_id, review in work.reviews().items():
            qualities = [q[object_id] for q in work.qualities.values()]
            objects[str(object_id)] = {
                "label": naming.labels[object_id],
                "quality": round(sum(qualities) / len(qualities), 4),
                "look": review.look,
                "fix_next": review.fix_next,
                "not_found": len(work.empty.get(object_id, [])),
            }
        return {
            "name": self._item.name,
            "video": self._item.video,
            "digest": self._item.digest(self._engine.id),
            "engine": self._engine.id,
            "frames": frames,
            "computed": computed,
            "seconds": round(time.monotonic() - began, 3),
            "frames_per_second": round(computed / work.seconds, 2) if work.seconds else 0.0,
            "refinements_accepted": sum(self._decisions),
            "refinements_rejected": len(self._decisions) - sum(self._decisions),
            "objects": objects,
            "where": this_process(),
        }

    def _brought(self, folder: Path, report: dict[str, Any], store: SegmentStore) -> Finished:
        """Bring the folder to its place, and then what says that it is there."""
        for name in ("lock", "store"):
            with contextlib.suppress(OSError):
                path = folder / ".tam" / name
                path.rmdir() if path.is_dir() else path.unlink()
        if self._place is None:
            packed = self._folder / "out.zip"
            pack(folder, packed)
            return Finished(report, packed.read_bytes())
        self._place.put_folder(self._item.name, folder)
        self._place.write(report_name(self._item), json.dumps(report, indent=1).encode())
        store.drop()
        return Finished(report)


def _write_qualities(folder: Path, work: Work) -> None:
    """Those of all frames: predictions.json has none of a frame on which nothing was found."""
    first = work.tracker.frames.start
    listed = [{str(i): round(q, 4) for i, q in work.qualities[frame].items()} for frame in work.finished]
    write_atomically(folder / _QUALITIES, json.dumps({"first": first, "qualities": listed}).encode())


def read_qualities(folder: Path) -> dict[int, dict[int, float]]:
    """Frame -> object -> quality of a finished video's folder."""
    found = json.loads((folder / _QUALITIES).read_bytes())
    return {
        frame: {int(i): q for i, q in of_frame.items()}
        for frame, of_frame in enumerate(found["qualities"], found["first"])
    }


def report_name(item: Item) -> str:
    """Beside the masks of a video, whether they are a folder or a zip."""
    return f"{item.name}.{REPORT}"
