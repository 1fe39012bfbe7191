"""Plots, where Matplotlib is installed. The server never needs them, so Matplotlib is in no list of its packages."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tam_backend.errors import TamError
from tam_backend.evaluation.protocols.base import Json

#: The sequences that the overview shows at each end.
_ENDS = 3


class NoPlots(TamError):
    """Matplotlib is not installed."""


def draw_plots(report: Json, folder: Path) -> list[Path]:
    """A plot for each sequence and an overview. Raises NoPlots."""
    try:
        from matplotlib.figure import Figure
    except ImportError as e:
        raise NoPlots("plots need Matplotlib: pip install -r requirements-evaluate.txt") from e
    folder.mkdir(parents=True, exist_ok=True)
    draw = _clicks if report["conditions"]["protocol"] == "noc" else _frames
    pictures = [(s["sequence"], draw, s) for s in report["sequences"]] + [("overview", _overview, report)]
    return [_save(Figure, folder / f"{name}.png", partial(draw, data=data)) for name, draw, data in pictures]


def score_of(sequence: Json) -> float:
    """What sequences are ranked by: mean J&F over frames and objects; mean IoU after 3 clicks for single frames."""
    values: list[float] = []
    for scored in sequence["objects"].values():
        if "IoU" in scored:
            values += [ious[min(3, len(ious)) - 1] for ious in scored["IoU"]]
        else:
            values += [(j + f) / 2 for j, f in zip(scored["J"], scored["F"], strict=True)]
    return sum(values) / len(values) if values else 0.0


def _save(figure_class: Any, path: Path, draw: Callable[[Any], None]) -> Path:
    figure = figure_class(figsize=(8, 3.2), layout="constrained")
    draw(figure.add_subplot())
    figure.savefig(path, dpi=100, metadata={"Software": None})
    return path


def _frames(axes: Any, data: Json) -> None:
    """J&F per frame, a line for each object."""
    for object_id, scored in data["objects"].items():
        values = [(j + f) / 2 for j, f in zip(scored["J"], scored["F"], strict=True)]
        axes.plot(scored["frames"], values, label=f"object {object_id}", linewidth=1.3)
    axes.set(title=data["sequence"], xlabel="frame", ylabel="J&F", ylim=(0, 1.02))
    _finish(axes, len(data["objects"]))


def _clicks(axes: Any, data: Json) -> None:
    """IoU after each click, a line for each single frame."""
    for object_id, clicked in data["objects"].items():
        for frame, ious in zip(clicked["frames"], clicked["IoU"], strict=True):
            axes.plot(range(1, len(ious) + 1), ious, marker=".", label=f"object {object_id}, frame {frame}")
    axes.set(title=data["sequence"], xlabel="clicks", ylabel="IoU", ylim=(0, 1.02))
    _finish(axes, sum(len(c["frames"]) for c in data["objects"].values()))


def _overview(axes: Any, data: Json) -> None:
    """All sequences from best to worst."""
    ranked = sorted(data["sequences"], key=lambda s: (-score_of(s), s["sequence"]))
    names, values = [s["sequence"] for s in ranked], [score_of(s) for s in ranked]
    places = range(len(ranked))
    worst = max(_ENDS, len(ranked) - _ENDS)
    colours = ["tab:green" if i < _ENDS else "tab:red" if i >= worst else "tab:blue" for i in places]
    axes.bar(places, values, color=colours)
    axes.set_xticks(list(places), names, rotation=60, ha="right", fontsize=8 if len(ranked) < 40 else 5)
    axes.set(title="best and worst sequences", ylabel="IoU" if "IoU" in _keys(data) else "J&F", ylim=(0, 1.02))
    axes.grid(axis="y", alpha=0.3)


def _keys(report: Json) -> set[str]:
    return {k for s in report["sequences"] for o in s["objects"].values() for k in o}


def _finish(axes: Any, lines: int) -> None:
    axes.grid(alpha=0.3)
    if 1 < lines <= 12:
        axes.legend(fontsize=7, ncols=2)
