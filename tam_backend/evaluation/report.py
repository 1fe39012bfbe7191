"""From results to ``report.json`` and a Markdown table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tam_backend.errors import BadInput
from tam_backend.evaluation.protocols import PROTOCOLS
from tam_backend.evaluation.protocols.base import Figures, Json
from tam_backend.evaluation.published import Published

#: Figures that are counts or coefficients. All others are shown in percent.
_NOT_PERCENT = ("NoC", "clicks", "frames", "quality r", "objects", "ms")


def make_report(conditions: Json, dataset: Json, results: Iterable[Json], skipped: Mapping[str, str]) -> Json:
    """``report.json``. Whatever depends on time is under a key "timing", everything else is the same in every run.

    conditions: what decides the results; dataset: name, layout, split; skipped: sequence -> reason.
    """
    protocol = PROTOCOLS[conditions["protocol"]]
    ordered = list(results)
    return {
        "conditions": conditions,
        "dataset": dataset,
        "summary": _figures(protocol.total(ordered), protocol.TIMED, of_time=False) | {"sequences": len(ordered)},
        "sequences": [{"figures": _figures(protocol.total([r]), protocol.TIMED, of_time=False), **r} for r in ordered],
        "skipped": dict(skipped),
        "timing": _figures(protocol.total(ordered), protocol.TIMED, of_time=True)
        | {"ms per mask": _milliseconds(ordered)},
    }


def _figures(figures: Figures, timed: tuple[str, ...], *, of_time: bool) -> Figures:
    return {name: value for name, value in figures.items() if (name in timed) == of_time}


def _milliseconds(results: list[Json]) -> float | None:
    masks = sum(r["timing"]["masks"] for r in results)
    return 1000 * sum(r["timing"]["seconds"] for r in results) / masks if masks else None


def read_report(folder: Path) -> Json:
    """Raises BadInput if the folder has none."""
    path = folder / "report.json"
    try:
        report = json.loads(path.read_bytes())
        report["summary"], report["sequences"], report["conditions"]["protocol"]
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise BadInput(f"{folder} has no report of tam evaluate: {path.name} is missing or damaged ({e})") from e
    return dict(report)


def markdown(report: Json, published: Iterable[Published] = ()) -> str:
    """The tables of a report. published: figures of others, which are listed apart from what was measured."""
    conditions, dataset = report["conditions"], report["dataset"]
    names = list(report["summary"])
    names.remove("sequences")
    lines = [
        f"# {conditions['protocol']}: {conditions['engine']} on {dataset['name']}",
        "",
        f"Objects are given by: {conditions['init']}. Figures are percentages, but for counts and coefficients.",
        "",
        *table(
            ["sequence", "objects", *names],
            [
                *([s["sequence"], len(s["objects"]), *_shown(s["figures"], names)] for s in report["sequences"]),
                ["**all**", sum(len(s["objects"]) for s in report["sequences"]), *_shown(report["summary"], names)],
            ],
        ),
    ]
    timing = {k: v for k, v in report["timing"].items() if v is not None}
    if timing:
        lines += ["", "Depends on the machine: " + ", ".join(f"{k} {show(k, v)}" for k, v in timing.items()) + "."]
    if report["skipped"]:
        lines += ["", f"Skipped, and in no figure: {len(report['skipped'])}", ""]
        lines += [f"- {reason}" for reason in report["skipped"].values()]
    rows = [p.row() for p in published]
    if rows:
        measured = report["summary"]
        ours = [f"{conditions['engine']} (measured here)", "", conditions["init"], *_shown(measured, ["J&F", "J", "F"])]
        lines += ["", "Published figures, not measured here, and what was measured, marked:", ""]
        lines += table(["method", "venue", "given by", "J&F", "J", "F", "source"], [*rows, [*ours, "this report"]])
    return "\n".join(lines) + "\n"


def table(header: list[str], rows: Iterable[list[Any]]) -> list[str]:
    """Lines of a Markdown table; numbers are aligned to the right."""
    return [
        "| " + " | ".join(header) + " |",
        "|" + "|".join(" --- " if i == 0 else " ---: " for i in range(len(header))) + "|",
        *("| " + " | ".join(str(cell) for cell in row) + " |" for row in rows),
    ]


def show(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{100 * value:.1f}" if is_percentage(name) else f"{value:.2f}"


def is_percentage(name: str) -> bool:
    """Whether a figure is shown in percent: all but counts and coefficients are."""
    return not name.startswith(_NOT_PERCENT)


def _shown(figures: Mapping[str, float | None], names: Iterable[str]) -> list[str]:
    return [show(name, figures.get(name)) for name in names]
