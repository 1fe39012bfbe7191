"""Figures that others have published on the usual splits, from ``published.json``. None of them was measured here."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files

from tam_backend.evaluation.protocols.base import Json


@dataclass(frozen=True, slots=True)
class Published:
    """One method on one split. figures: J&F, J and F in percent. verified: those that were looked up at the source."""

    method: str
    venue: str
    init: str
    figures: dict[str, float | None]
    verified: frozenset[str]
    source: str
    note: str

    def row(self) -> list[str]:
        """Cells of a table. A question mark marks a figure that was not looked up at its source."""
        cells = [
            "-" if value is None else f"{value:.1f}" + ("" if name in self.verified else " (?)")
            for name, value in self.figures.items()
        ]
        return [self.method, self.venue, self.init, *cells, self.source + (f"; {self.note}" if self.note else "")]


def find_split(sequences: Iterable[str], *, one_object: bool) -> str | None:
    """The split that these sequences are, all of them and no others. one_object: each sequence has just one."""
    names = set(sequences)
    for key, split in _data()["splits"].items():
        if split["sequences"] and names == set(split["sequences"]) and split["one_object"] == one_object:
            return str(key)
    return None


def splits() -> dict[str, str]:
    """All splits with published figures, and what they are called."""
    return {key: split["title"] for key, split in _data()["splits"].items()}


def published_on(split: str) -> list[Published]:
    return [
        Published(
            r["method"], r["venue"], r["init"], {k: r[k] for k in ("J&F", "J", "F")}, frozenset(r["verified"]),
            r["source"], r["note"],
        )
        for r in _data()["rows"]
        if r["split"] == split
    ]  # fmt: skip


def _data() -> Json:
    return dict(json.loads(files("tam_backend.evaluation").joinpath("published.json").read_text("utf-8")))
