"""What became of masks when people submitted, in the database."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tam_backend.sessions.database import Database
from tam_backend.sessions.tracks import Work


@dataclass(frozen=True, slots=True)
class Outcome:
    """Numbers of masks: submitted as they were, changed by a person, taken away, drawn from nothing."""

    accepted: int = 0
    fixed: int = 0
    rejected: int = 0
    drawn: int = 0

    def __add__(self, other: Outcome) -> Outcome:
        return Outcome(
            self.accepted + other.accepted,
            self.fixed + other.fixed,
            self.rejected + other.rejected,
            self.drawn + other.drawn,
        )

    @property
    def offered(self) -> int:
        """Masks that a person had the choice about."""
        return self.accepted + self.fixed + self.rejected


class OutcomeTable:
    """Outcomes by annotation and version of the engine. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def set(self, work: Work, annotation: int, outcomes: Mapping[str, Outcome]) -> None:
        """In place of what an annotation counted before. outcomes: by version."""
        with self._database.transaction():
            self.forget(work.label_studio, [annotation])
            for version, found in outcomes.items():
                self._database.run(
                    "INSERT INTO outcomes (label_studio, project, task, annotation, version, "
                    "accepted, fixed, rejected, drawn, updated) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        work.label_studio, work.project, work.task, annotation, version,
                        found.accepted, found.fixed, found.rejected, found.drawn, time.time(),
                    ),
                )  # fmt: skip

    def forget(self, label_studio: str, annotations: Sequence[int]) -> None:
        """Annotations that were deleted."""
        for annotation in annotations:
            self._database.run(
                "DELETE FROM outcomes WHERE label_studio = ? AND annotation = ?", (label_studio, annotation)
            )

    def forget_task(self, work: Work) -> None:
        """The task is gone."""
        self._database.run("DELETE FROM outcomes WHERE label_studio = ? AND task = ?", (work.label_studio, work.task))

    def sums(self) -> list[dict[str, Any]]:
        """Sums by Label Studio, project and version; annotations: how many submitted ones they are of."""
        rows = self._database.rows(
            "SELECT label_studio, project, version, SUM(accepted), SUM(fixed), SUM(rejected), SUM(drawn), COUNT(*) "
            "FROM outcomes GROUP BY label_studio, project, version ORDER BY label_studio, project, version"
        )
        return [
            {
                "label_studio": url, "project": project, "version": version,
                **asdict(Outcome(accepted, fixed, rejected, drawn)), "annotations": annotations,
            }
            for url, project, version, accepted, fixed, rejected, drawn, annotations in rows
        ]  # fmt: skip
