"""The tracking of one call of ``tam track``, and what came of it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tam_backend.commands.track_output import CONFIG, PREDICTIONS, OutputFolder
from tam_backend.commands.track_predictions import Naming, label_config, task_chunks
from tam_backend.commands.track_progress import Interruption, progress
from tam_backend.commands.track_prompts import ObjectPrompts
from tam_backend.errors import MediaError
from tam_backend.labelstudio.posting import model_version
from tam_backend.prompts import FramePrompts
from tam_backend.quality import Review, review
from tam_backend.tracking.filestore import write_atomically
from tam_backend.tracking.objects import IdMap, ObjectsFrame, track_objects
from tam_backend.tracking.refinement import Decision
from tam_backend.tracking.tracker import Anchor, TrackedFrame, Tracker


@dataclass(slots=True)
class Work:
    """Tracks, writes masks, and knows where a person should look.

    qualities: finished frame -> object -> quality. empty: object -> frames on which nothing of it was found. fresh:
    frames computed by this call. anchors: object -> what its prompts have become. improved: masks that the finishing
    pass has replaced.
    """

    tracker: Tracker
    prompts: ObjectPrompts
    out: OutputFolder
    interruption: Interruption
    quiet: bool
    qualities: dict[int, dict[int, float]] = field(default_factory=dict)
    empty: dict[int, list[int]] = field(default_factory=dict)
    fresh: set[int] = field(default_factory=set)
    anchors: dict[int, dict[int, Anchor]] = field(default_factory=dict)
    seconds: float = 0.0
    improved: int = 0
    failure: MediaError | None = None

    @property
    def stopped(self) -> bool:
        return len(self.qualities) < len(self.tracker.frames)

    @property
    def finished(self) -> list[int]:
        return sorted(self.qualities)

    def track(self, focus: int) -> None:
        """Track until everything is done, Ctrl-C, or a frame that cannot be read."""
        started = time.monotonic()
        objects = self.anchors
        try:
            for object_id, on_frames in self.prompts.items():
                objects[object_id] = self._anchors(on_frames)
                if self.interruption.requested:
                    return
            self._track(objects, focus)
        except MediaError as e:
            self.failure = e
        finally:
            self.seconds = time.monotonic() - started
        if self.stopped and len(objects) == len(self.prompts):
            self._collect_stored(objects)

    def finish(self, focus: int) -> None:
        """The finishing pass over all objects. Stopped by Ctrl-C, it keeps what it has."""
        started = time.monotonic()
        better: set[int] = set()
        try:
            for object_id, anchors in self.anchors.items():
                with (
                    contextlib.closing(self.tracker.steps(anchors, focus, finish=True)) as steps,
                    progress(None, None, f"finishing object {object_id}", quiet=self.quiet) as bar,
                ):
                    for step in self.interruption.stoppable(steps):
                        bar.update()
                        if isinstance(step, TrackedFrame) and step.quality > self.qualities[step.frame][object_id]:
                            better.add(step.frame)
                            self.improved += 1
        except MediaError as e:
            self.failure = e
        for frame in sorted(better):
            stored = {i: t for i, a in self.anchors.items() if (t := self.tracker.stored(a, frame)) is not None}
            if len(stored) == len(self.anchors):
                self._finish(ObjectsFrame(frame, stored))
        self.seconds += time.monotonic() - started

    def _track(self, objects: Mapping[int, Mapping[int, Anchor]], focus: int) -> None:
        unit = "frame" if len(objects) == 1 else "mask"
        total = len(self.tracker.frames) * len(objects)
        with (
            contextlib.closing(track_objects(self.tracker, objects, focus)) as steps,
            progress(None, total, "tracking", unit=unit, quiet=self.quiet) as bar,
        ):
            for step in self.interruption.stoppable(steps):
                if isinstance(step, ObjectsFrame):
                    self._finish(step)
                elif isinstance(step, TrackedFrame):
                    if not (step.reused or step.by_hand):
                        self.fresh.add(step.frame)
                    bar.update()

    def _anchors(self, on_frames: Mapping[int, FramePrompts]) -> dict[int, Anchor]:
        """Prompts that say where the object is stand for themselves; the others correct what those give there."""
        anchors = {frame: Anchor(p) for frame, p in on_frames.items() if p.locates}
        corrections: dict[int, Anchor] = {}
        for frame, prompts in on_frames.items():
            if frame not in anchors:
                shown = self.tracker.stored(anchors, frame) or self._reach(anchors, frame)
                if shown is None:
                    return anchors
                corrections[frame] = Anchor(prompts, prior=shown.mask)
        return anchors | corrections

    def _reach(self, anchors: Mapping[int, Anchor], frame: int) -> TrackedFrame | None:
        """Track as far as one frame; None if Ctrl-C comes first."""
        with (
            contextlib.closing(self.tracker.steps(anchors, frame)) as steps,
            progress(None, None, f"what is on frame {frame}", quiet=self.quiet) as bar,
        ):
            for step in self.interruption.stoppable(steps):
                bar.update()
                if isinstance(step, TrackedFrame) and step.frame == frame:
                    return step
        return None

    def _collect_stored(self, objects: Mapping[int, Mapping[int, Anchor]]) -> None:
        """Finish the frames that earlier calls computed and that this one, stopped early, did not come to."""
        for frame in self.tracker.frames:
            if frame not in self.qualities:
                stored = {i: t for i, a in objects.items() if (t := self.tracker.stored(a, frame)) is not None}
                if len(stored) == len(objects):
                    self._finish(ObjectsFrame(frame, stored))

    def _finish(self, result: ObjectsFrame) -> None:
        self.out.write_ids(result.frame, result.ids)
        self.qualities[result.frame] = {i: t.quality for i, t in result.objects.items()}
        for object_id, tracked in result.objects.items():
            empty = self.empty.setdefault(object_id, [])
            if result.frame in empty:
                empty.remove(result.frame)
            if not tracked.by_hand and not tracked.mask.any():
                empty.append(result.frame)

    def decisions(self, frame: int) -> dict[int, list[Decision]]:
        """What refinement decided about the objects of a finished frame."""
        return {i: self.tracker.decisions(anchors, frame) for i, anchors in self.anchors.items()}

    def masks(self) -> Iterator[tuple[int, IdMap, dict[int, float]]]:
        """The finished frames, in order, as they were written."""
        for frame in self.finished:
            yield frame, self.out.read_ids(frame), self.qualities[frame]

    def write_task(self, video: str, pictures: str, naming: Naming, engine: str) -> None:
        """``predictions.json`` and ``label_config.xml``. video: its name. pictures: address of the folder of frames."""
        frames = self.tracker.frames
        data = {
            "video": video,
            "frames": [f"{pictures.rstrip('/')}/{frame:05d}.jpg" for frame in frames],
            "clip": f"frames {frames.start} to {frames[-1]} of {video}",
        }
        version = model_version(engine)
        chunks = task_chunks(data, naming, frames, self.masks(), self.reviews(), engine, version)
        write_atomically(self.out.path / PREDICTIONS, (chunk.encode() for chunk in chunks))
        write_atomically(self.out.path / CONFIG, label_config(naming).encode())

    def reviews(self) -> dict[int, Review]:
        """What the figures say of each object, as far as it is finished."""
        return {
            object_id: review({f: q[object_id] for f, q in self.qualities.items()}, on_frames)
            for object_id, on_frames in sorted(self.prompts.items())
        }

    def report(self, folder: Path) -> str:
        """What was done, in words, and where a person should look."""
        total, done, fresh = len(self.tracker.frames), len(self.qualities), len(self.fresh & self.qualities.keys())
        text = f"{done} frames" if done == total else f"{done} of {total} frames"
        text += f" in {folder}: {fresh} computed in {self.seconds:.1f} s"
        if fresh:
            text += f" ({1000 * self.seconds / fresh:.0f} ms a frame)"
        if done > fresh:
            text += f", {done - fresh} known before"
        text += "."
        if self.improved:
            text += f" The finishing pass has improved {self.improved} masks."
        for object_id, found in self.reviews().items():
            text += f"\nObject {object_id}: "
            if found.fix_next is None:
                text += "no frame needs a look."
            else:
                noun = "frame needs" if found.look == 1 else "frames need"
                text += f"{found.look} {noun} a look ({100 * found.share:.0f} %). Fix frame {found.fix_next} next."
            if frames := self.empty.get(object_id):
                text += f" It was not found on {len(frames)} frames (first: {min(frames)})."
        return text
