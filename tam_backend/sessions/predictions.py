"""The predictions that were posted, in the database."""

from __future__ import annotations

from tam_backend.sessions.database import Database
from tam_backend.sessions.tracks import Work


class PostedPredictions:
    """One for each task at most. Thread-safe.

    digest: of what was posted. base: the address of this server in the task's frames.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, work: Work) -> tuple[int, str] | None:
        """(id of the prediction, digest)."""
        rows = self._database.rows(
            "SELECT prediction, digest FROM predictions WHERE label_studio = ? AND task = ?",
            (work.label_studio, work.task),
        )
        return rows[0] if rows else None

    def set(self, work: Work, prediction: int, digest: str, base: str) -> None:
        self._database.run(
            "INSERT OR REPLACE INTO predictions (label_studio, project, task, prediction, digest, base) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            (work.label_studio, work.project, work.task, prediction, digest, base),
        )

    def elsewhere(self, label_studio: str, base: str) -> list[Work]:
        """The tasks whose frames have another address of this server."""
        rows = self._database.rows(
            "SELECT project, task FROM predictions WHERE label_studio = ? AND base <> ?", (label_studio, base)
        )
        return [Work(label_studio, project, task) for project, task in rows]

    def moved(self, work: Work, base: str) -> None:
        """The task's frames have the address ``base`` now."""
        self._database.run(
            "UPDATE predictions SET base = ? WHERE label_studio = ? AND task = ?", (base, work.label_studio, work.task)
        )

    def forget(self, work: Work) -> None:
        """The task is gone."""
        self._database.run(
            "DELETE FROM predictions WHERE label_studio = ? AND task = ?", (work.label_studio, work.task)
        )
