"""What went to a task, and how to see that it arrived: so that a mask a person deleted is not sent again."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass

from tam_backend.sessions.database import Database
from tam_backend.sessions.tracks import Work


@dataclass(frozen=True, slots=True)
class Batch:
    """Masks of one object that went to a task at once.

    marker: see ``DeliveryLog``. frames: their item_index. saved: ``updated_at`` of the draft they were written into.
    """

    marker: str
    frames: frozenset[int]
    saved: str


class DeliveryLog:
    """Batches by task and object, in the database. Thread-safe.

    A marker says how to recognise that a batch arrived on the page: ``prompt:ID`` by that prompt, which the answer
    brought back; any other (``draft:...``, ``prediction:...``) by masks that have it as ``meta.batch``.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def record(self, work: Work, tag: str, label: str, marker: str, frames: Collection[int], saved: str = "") -> None:
        """Note a batch, in place of one with the same marker."""
        if frames:
            self._database.attempt(
                "INSERT OR REPLACE INTO deliveries (label_studio, task, tag, label, marker, frames, saved) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (work.label_studio, work.task, tag, label, marker, json.dumps(sorted(frames)), saved),
            )

    def drop(self, work: Work, marker: str) -> None:
        """What went out with a marker did not arrive."""
        self._database.attempt(
            "DELETE FROM deliveries WHERE label_studio = ? AND task = ? AND marker = ?",
            (work.label_studio, work.task, marker),
        )

    def batches(self, work: Work, tag: str, label: str) -> list[Batch]:
        rows = self._database.rows(
            "SELECT marker, frames, saved FROM deliveries "
            "WHERE label_studio = ? AND task = ? AND tag = ? AND label = ?",
            (work.label_studio, work.task, tag, label),
        )
        return [Batch(marker, frozenset(json.loads(frames)), saved) for marker, frames, saved in rows]

    def forget(self, work: Work) -> None:
        """The task is gone."""
        self._database.run("DELETE FROM deliveries WHERE label_studio = ? AND task = ?", (work.label_studio, work.task))
