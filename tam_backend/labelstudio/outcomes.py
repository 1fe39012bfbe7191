"""What became of our masks when people submitted: accepted, fixed, or rejected, by the version of the engine."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from tam_backend.errors import TamError
from tam_backend.labelstudio.config import LabelConfig
from tam_backend.labelstudio.connections import Client, Connections
from tam_backend.labelstudio.submitted import choose_prediction, is_by_hand, mask_regions, region_labels
from tam_backend.sessions.delivered import DeliveryLog
from tam_backend.sessions.outcomes import Outcome, OutcomeTable
from tam_backend.sessions.tracks import Work

log = logging.getLogger(__name__)

Json = dict[str, Any]

#: (label, item_index) of a mask.
Place = tuple[str, int]

#: For masks that do not say which engine made them.
UNKNOWN = "unknown"


def engine_version(region: Json) -> str:
    """Which engine made a mask, and its version, such as ``embedded 4``."""
    meta = region.get("meta")
    if not isinstance(meta, dict) or not isinstance(meta.get("engine"), str):
        return UNKNOWN
    return f"{meta['engine']} {meta['version']}" if isinstance(meta.get("version"), str) else str(meta["engine"])


def offered_in(prediction: Json | None, config: LabelConfig) -> dict[Place, str]:
    """Place -> engine version of the masks of a prediction."""
    places: dict[Place, str] = {}
    for region in mask_regions(prediction or {}):
        index = _index(region)
        for label in region_labels(region, config, index):
            places[label, index] = engine_version(region)
    return places


def judge(result: Iterable[Json], offered: Mapping[Place, str], config: LabelConfig) -> dict[str, Outcome]:
    """Engine version -> what became of its masks in an annotation; drawings from nothing count under "".

    result: the annotation's regions. offered: masks that were there to be accepted, those that are still there or not.
    A mask that was deleted, or deleted and drawn anew, is rejected.
    """
    counts: dict[str, Counter[str]] = {}
    kept: set[Place] = set()
    for region in mask_regions({"result": list(result)}):
        index = _index(region)
        places = [(label, index) for label in region_labels(region, config, index)]
        if region.get("origin", "manual") == "manual":
            counts.setdefault("", Counter())["drawn"] += len(places)
            continue
        kept.update(places)
        version = engine_version(region)
        what = "fixed" if is_by_hand(region) else "accepted"
        counts.setdefault(version, Counter())[what] += len(places)
    for place, version in offered.items():
        if place not in kept:
            counts.setdefault(version, Counter())["rejected"] += 1
    return {version: Outcome(**found) for version, found in counts.items()}


def _index(region: Json) -> int:
    index = region.get("item_index", 0)
    return index if isinstance(index, int) else 0


class OutcomeCounter:
    """Counts what webhooks tell. current: the engine that works now. Thread-safe."""

    def __init__(self, table: OutcomeTable, deliveries: DeliveryLog, connections: Connections, current: str) -> None:
        self._table = table
        self._deliveries = deliveries
        self._connections = connections
        self._current = current

    def note(self, annotation: Json, project: object, config: LabelConfig) -> None:
        """An annotation was created or updated. What it counted before is replaced."""
        connection = self._connections.current()
        number, task, result = annotation.get("id"), annotation.get("task"), annotation.get("result")
        if connection is None or not isinstance(number, int) or not isinstance(task, int):
            return
        if annotation.get("was_cancelled") or not isinstance(result, list) or not isinstance(project, int):
            self._table.forget(connection.url, [number])
            return
        try:
            prediction = choose_prediction(Client(connection).predictions(task))
        except TamError as e:
            log.info("task %s: its predictions could not be read, to count what became of them: %s", task, e)
            prediction = None
        work = Work(connection.url, project, task)
        offered = self._delivered(work, result, config) | offered_in(prediction, config)
        self._table.set(work, number, judge(result, offered, config))

    def forget(self, annotations: Iterable[object]) -> None:
        """Annotations were deleted."""
        connection = self._connections.current()
        if connection is not None:
            self._table.forget(connection.url, [a for a in annotations if isinstance(a, int)])

    def forget_task(self, work: Work) -> None:
        self._table.forget_task(work)

    def sums(self) -> list[Json]:
        """By Label Studio, project and version."""
        return self._table.sums()

    def _delivered(self, work: Work, result: Iterable[Json], config: LabelConfig) -> dict[Place, str]:
        """The masks that came to the page on which this annotation was made: others may work on the task as well."""
        regions = [r for r in result if isinstance(r, dict)]
        arrived = {f"prompt:{r.get('id')}" for r in regions}
        arrived |= {str(meta.get("batch")) for r in regions if isinstance(meta := r.get("meta"), dict)}
        return {
            (label, index): self._current
            for control in config.masks
            for label in control.labels
            for batch in self._deliveries.batches(work, control.name, label)
            if batch.marker in arrived
            for index in batch.frames
        }
