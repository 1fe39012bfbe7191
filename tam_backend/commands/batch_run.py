"""A whole batch: what is there already, what is tried once more, and what becomes of each video."""

from __future__ import annotations

import csv
import io
import json
import sys
import time
import zipfile
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tqdm import tqdm

from tam_backend.cluster.executors import Event, Executor
from tam_backend.cluster.places import Place
from tam_backend.commands.batch_manifest import Item, again
from tam_backend.commands.batch_work import Finished, Progress, report_name
from tam_backend.errors import BadInput, MediaError

SUMMARY, DEAD_LETTERS = "report.csv", "dead-letters.jsonl"
_COLUMNS = (
    "name", "state", "frames", "computed", "seconds", "frames_per_second", "objects", "quality", "look", "fix_next",
    "not_found", "refinements_accepted", "refinements_rejected", "attempts", "workers", "error", "video",
    "tasks", "sent",
)  # fmt: skip
#: Reports of earlier calls that are read at once: a bucket takes its time for each.
_READERS = 16
#: What is wrong with the video or the manifest is wrong the next time, too.
_HOPELESS = (BadInput, MediaError)


#: So many videos that are left out are listed in words; the table has them all.
_IN_WORDS = 20


@dataclass(frozen=True, slots=True)
class Aside:
    """What is not tracked, and why. tasks: of the project, at least one."""

    name: str
    state: str
    error: str
    tasks: tuple[int, ...] = ()
    video: str = ""


@dataclass(slots=True)
class _Fate:
    """What became of a video. workers: those that it was with, in order."""

    item: Item
    state: str = "unfinished"
    attempts: int = 0
    workers: list[int] = field(default_factory=list)
    error: str = ""
    report: dict[str, Any] = field(default_factory=dict)
    done: int = 0


class Batch:
    """One call of ``tam batch``. retries: so often a video is tried once more. engine: name and version.

    force: also what is there already. aside: what is reported beside the items. done: called with each item that is.
    """

    def __init__(
        self,
        items: Iterable[Item],
        place: Place,
        engine: str,
        retries: int,
        *,
        quiet: bool,
        force: bool = False,
        aside: Iterable[Aside] = (),
        done: Callable[[Item], None] = lambda item: None,
    ) -> None:
        self._place = place
        self._retries = retries
        self._aside = list(aside)
        self._done = done
        self._quiet = quiet
        self._fates = {item.name: _Fate(item) for item in items}
        self._began = time.monotonic()
        self._computed = 0
        there = set() if force else set(place.names(""))
        before = [f for f in self._fates.values() if report_name(f.item) in there]
        with ThreadPoolExecutor(_READERS) as readers:
            for fate, report in zip(
                before, readers.map(place.read, [report_name(f.item) for f in before]), strict=True
            ):
                if report is not None:
                    self._recognise(fate, report, engine)

    @staticmethod
    def _recognise(fate: _Fate, content: bytes, engine: str) -> None:
        """A video that an earlier call finished, with the same prompts and the same engine."""
        try:
            report = json.loads(content)
            known = report["digest"] == fate.item.digest(engine)
        except (ValueError, KeyError, TypeError):
            return
        if known:
            fate.state, fate.report, fate.done = "known", report, report["frames"]

    @property
    def known(self) -> list[Item]:
        """The videos that an earlier call finished."""
        return [f.item for f in self._fates.values() if f.state == "known"]

    @property
    def left(self) -> deque[Item]:
        """The videos to do, in the order of the manifest."""
        return deque(f.item for f in self._fates.values() if f.state == "unfinished")

    def run(self, executor: Executor[Item]) -> None:
        """Raises KeyboardInterrupt when it is stopped; what is finished by then is kept."""
        items = self.left
        with tqdm(
            total=len(self._fates), initial=len(self._fates) - len(items), desc="videos", unit="video",
            disable=self._quiet or not sys.stderr.isatty(), dynamic_ncols=True,
        ) as bar:  # fmt: skip
            for event in executor.run(items):
                before = self._ended
                self._handle(event, items)
                bar.update(self._ended - before)
                bar.set_postfix_str(self._figures())

    @property
    def _ended(self) -> int:
        return sum(f.state in ("done", "failed", "known") for f in self._fates.values())

    def _figures(self) -> str:
        now = sum(f.done for f in self._fates.values() if f.state == "unfinished")
        rate = (self._computed + now) / max(time.monotonic() - self._began, 1e-9)
        return f"{rate:.1f} frames/s"

    def _handle(self, event: Event[Item], items: deque[Item]) -> None:
        fate = self._fates[event.item.name]
        match event.kind:
            case "began":
                fate.attempts += 1
                fate.workers.append(event.worker)
                self._say(f"worker {event.worker} ({event.where}) begins {fate.item.name}")
            case "message" if isinstance(event.message, Progress):
                fate.done = event.message.done
                self._say(f"{fate.item.name}: {event.message.done} of {event.message.total} frames")
            case "message" if isinstance(event.message, Finished):
                self._finished(fate, event.message)
            case "failed" | "lost":
                self._failed(fate, event.error, items)
            case _:
                pass

    def _finished(self, fate: _Fate, message: Finished) -> None:
        fate.report = message.report
        if message.packed is not None:
            with TemporaryDirectory(prefix="tam-batch-") as folder:
                with zipfile.ZipFile(io.BytesIO(message.packed)) as archive:
                    archive.extractall(folder)
                self._place.put_folder(fate.item.name, Path(folder))
            self._place.write(report_name(fate.item), json.dumps(message.report, indent=1).encode())
        fate.state, fate.error, fate.done = "done", "", message.report["frames"]
        self._computed += message.report["computed"]
        self._say(f"{fate.item.name}: done, {message.report['frames_per_second']} frames/s")
        self._done(fate.item)

    def _failed(self, fate: _Fate, error: BaseException | None, items: deque[Item]) -> None:
        fate.error = str(error) or type(error).__name__
        fate.done = 0
        if fate.attempts > self._retries or isinstance(error, _HOPELESS):
            fate.state = "failed"
            self._say(f"{fate.item.name}: failed: {fate.error}", always=True)
        else:
            items.append(fate.item)
            self._say(f"{fate.item.name}: {fate.error}; it is tried again", always=True)

    def _say(self, text: str, *, always: bool = False) -> None:
        """A line, where there is no bar: for logs."""
        if always or not (self._quiet or sys.stderr.isatty()):
            tqdm.write(f"tam batch: {text}", file=sys.stderr)
            sys.stderr.flush()

    # ---- reports

    def write_reports(self, tasks: Mapping[str, Iterable[int]] = {}, sent: Mapping[str, Iterable[int]] = {}) -> None:
        """``report.csv`` with a line for each video, ``dead-letters.jsonl`` with those that failed.

        tasks, sent: of each video the tasks of the project, and those that have their prediction.
        """
        table = io.StringIO()
        writer = csv.DictWriter(table, _COLUMNS)
        writer.writeheader()
        for fate in self._fates.values():
            name = fate.item.name
            writer.writerow(_row(fate) | {"tasks": _listed(tasks.get(name, ())), "sent": _listed(sent.get(name, ()))})
        writer.writerows({**asdict(a), "tasks": _listed(a.tasks)} for a in self._aside)
        self._place.write(SUMMARY, table.getvalue().encode())
        letters = [
            again(f.item, f.error, f.attempts, " ".join(map(str, f.workers)))
            for f in self._fates.values()
            if f.state == "failed"
        ]
        lines = "".join(json.dumps(letter, ensure_ascii=False) + "\n" for letter in letters)
        self._place.write(DEAD_LETTERS, lines.encode())

    @property
    def counts(self) -> Counter[str]:
        """Videos by what became of them: done, known (from before), failed, unfinished, and those that are left out."""
        return Counter([*(f.state for f in self._fates.values()), *(a.state for a in self._aside)])

    def summary(self) -> str:
        """What was done, in words."""
        seconds = time.monotonic() - self._began
        counts = self.counts
        text = f"{counts['done']} of {len(self._fates)} videos done"
        if counts["known"]:
            text += f", {counts['known']} known before"
        text += f": {self._computed} frames in {seconds:.1f} s ({self._computed / max(seconds, 1e-9):.1f} frames/s)."
        text += f" {SUMMARY} in {self._place.url} has them all."
        text = "\n".join([text, *in_words(self._aside)])
        if failed := sum(f.state == "failed" for f in self._fates.values()):
            noun = "video" if failed == 1 else "videos"
            text += f"\n{failed} {noun} failed: see {DEAD_LETTERS}; as a manifest, it tries them again."
        return text


def in_words(aside: Sequence[Aside]) -> list[str]:
    """A line for each, as far as somebody would read them."""
    lines = [
        f"{a.name} (task{'s' * (len(a.tasks) > 1)} {_listed(a.tasks, ', ')}): {a.state}: {a.error}"
        for a in aside[:_IN_WORDS]
    ]
    return lines + ([f"and {len(aside) - _IN_WORDS} more of that kind"] if len(aside) > _IN_WORDS else [])


def _row(fate: _Fate) -> dict[str, Any]:
    report = fate.report
    objects: Iterable[dict[str, Any]] = report.get("objects", {}).values()
    row = {column: report.get(column, "") for column in _COLUMNS}
    return row | {
        "name": fate.item.name, "video": fate.item.video, "state": fate.state, "error": fate.error,
        "attempts": fate.attempts, "workers": " ".join(map(str, fate.workers)),
        "objects": len(report.get("objects", {})) or "",
        "quality": _joined(objects, "quality"), "look": _joined(objects, "look"),
        "fix_next": _joined(objects, "fix_next"), "not_found": _joined(objects, "not_found"),
    }  # fmt: skip


def _listed(numbers: Iterable[int], between: str = " ") -> str:
    return between.join(map(str, numbers))


def _joined(objects: Iterable[dict[str, Any]], key: str) -> str:
    """One value for each object, in order."""
    return " ".join("-" if o[key] is None else str(o[key]) for o in objects)
