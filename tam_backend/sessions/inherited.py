"""Prompts that reach a task from the other tasks of its video."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tam_backend.sessions.blobs import lasting_key
from tam_backend.sessions.database import Database
from tam_backend.sessions.tracks import Work, pack_anchors, unpack_anchors
from tam_backend.tracking.store import BlobStore
from tam_backend.tracking.tracker import Anchor


class InheritedAnchors:
    """The anchors that a task's prediction was made from. Thread-safe.

    Whoever corrects that prediction means the same object: the clicks join those anchors. Whoever begins on an empty
    task means an object of their own. That is decided at the first click and stays so for all that follow.
    """

    def __init__(self, database: Database, store: BlobStore) -> None:
        self._database = database
        self._store = store

    def set(self, work: Work, tag: str, label: str, anchors: Mapping[int, Anchor]) -> None:
        """The task's prediction now comes from these."""
        self._database.run(
            "INSERT OR REPLACE INTO inherited (label_studio, task, tag, label, anchors) VALUES (?, ?, ?, ?, ?)",
            (work.label_studio, work.task, tag, label, pack_anchors(anchors)),
        )

    def get(self, work: Work, tag: str, label: str, prompts: Iterable[str], *, corrects: bool) -> dict[int, Anchor]:
        """The anchors that join a person's own. prompts: ids of the person's. corrects: whether masks of ours for the
        object were on the page when this request was made; it counts at the first request with those prompts."""
        keys = [lasting_key((work, tag, label, p), "inherits/") for p in sorted(prompts)]
        decided = [blob for key in keys if (blob := self._store.get(key)) is not None]
        decision = decided[0] if decided else (b"yes" if corrects else b"no")
        for key in keys:
            if self._store.get(key) is None:
                self._store.put(key, decision)
        if decision != b"yes":
            return {}
        rows = self._database.rows(
            "SELECT anchors FROM inherited WHERE label_studio = ? AND task = ? AND tag = ? AND label = ?",
            (work.label_studio, work.task, tag, label),
        )
        return unpack_anchors(rows[0][0]) if rows else {}

    def forget(self, work: Work) -> None:
        """The task is gone."""
        self._database.run("DELETE FROM inherited WHERE label_studio = ? AND task = ?", (work.label_studio, work.task))
