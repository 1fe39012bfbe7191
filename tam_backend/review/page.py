"""The report as one HTML file: no script, nothing to load, so that it opens anywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from statistics import mean
from typing import Any

import jinja2

from tam_backend import __version__
from tam_backend.quality import NEEDS_A_LOOK
from tam_backend.review.project import TaskFigures
from tam_backend.sessions.outcomes import Outcome

#: Frames in the list of what to fix next, and entries of other lists that are shown.
_NEXT, _SHOWN = 25, 12
#: Size of a chart, in its own units.
_WIDTH, _HEIGHT = 640, 96
#: Colours of objects on white: dark enough to read, told apart also by people who see few colours.
_COLOURS = ("#0b62a4", "#c2410c", "#15803d", "#7e22ce", "#b45309", "#0f766e", "#be123c", "#475569")


@dataclass(frozen=True, slots=True)
class Line:
    """A track in a chart. points: of SVG polylines, one for each unbroken stretch. dots: frames a person decided."""

    label: str
    colour: str
    points: tuple[str, ...]
    dots: tuple[tuple[float, float], ...]


def render_page(
    project: Mapping[str, Any], url: str, tasks: Sequence[TaskFigures], outcomes: Mapping[str, Outcome], counted_by: str
) -> str:
    """outcomes: by version of the engine. counted_by: where they come from, in words."""
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    folder = resources.files("tam_backend.review").joinpath("templates")
    template = environment.from_string(folder.joinpath("report.html").read_text(encoding="utf-8"))
    shown = [t for t in tasks if not t.problem]
    return template.render(
        style=folder.joinpath("report.css").read_text(encoding="utf-8"),
        title=str(project.get("title") or project["id"]),
        url=url,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=__version__,
        sums=_sums(tasks),
        fix_next=_fix_next(tasks)[:_NEXT],
        outcomes=[_outcome_row(v, o) for v, o in sorted(outcomes.items())],
        counted_by=counted_by,
        disagreements=sorted(((t, d) for t in shown for d in t.disagreements), key=lambda pair: pair[1].score),
        tasks=[_task(t) for t in shown],
        problems=[t for t in tasks if t.problem],
        link=lambda task: f"{url}/projects/{project['id']}/data?task={task}",
        percent=lambda share: f"{100 * share:.0f} %",
        limit=NEEDS_A_LOOK,
        width=_WIDTH,
        height=_HEIGHT,
        threshold=_y(NEEDS_A_LOOK),
    )


def _sums(tasks: Sequence[TaskFigures]) -> list[tuple[str, str, str]]:
    """(name, value, detail) of what is true of the project as a whole."""
    tracks = [track for t in tasks for track in t.tracks]
    masks = sum(len(t.shown) for t in tracks)
    look = sum(t.review().look for t in tracks)
    by_hand, clicks = sum(t.by_hand for t in tracks), sum(t.clicks for t in tracks)
    sums = [
        ("tasks", str(len(tasks)), f"{sum(t.submitted for t in tasks)} submitted"),
        ("objects", str(len(tracks)), ""),
        ("masks", str(masks), ""),
        ("need a look", str(look), _share(look, masks)),
        ("changed by hand", str(by_hand), _share(by_hand, masks)),
        ("clicks and boxes", str(clicks), f"{clicks / len(tracks):.1f} an object" if tracks else ""),
    ]
    timed = [t for t in tasks if t.minutes is not None]
    if timed:
        minutes, objects = sum(t.minutes or 0.0 for t in timed), sum(len(t.tracks) for t in timed)
        sums.append(("minutes", f"{minutes:.1f}", f"{minutes / objects:.1f} an object" if objects else ""))
    return sums


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %" if whole else ""


def _fix_next(tasks: Sequence[TaskFigures]) -> list[dict[str, Any]]:
    """The frames whose correction is expected to help most, one for each object that needs one."""
    found = []
    for task in tasks:
        for track in task.tracks:
            review = track.review()
            if review.fix_next is not None:
                found.append(
                    {
                        "task": task, "label": track.label, "frame": review.fix_next,
                        "page": task.page(review.fix_next), "quality": track.qualities[review.fix_next],
                        "look": review.look, "gain": review.gain,
                    }
                )  # fmt: skip
    return sorted(found, key=lambda row: -row["gain"])


def _outcome_row(version: str, outcome: Outcome) -> dict[str, Any]:
    offered = outcome.offered
    return {
        "version": version or "drawn by a person",
        "outcome": outcome,
        "shares": [100 * n / offered for n in (outcome.accepted, outcome.fixed, outcome.rejected)] if offered else None,
    }


def _task(task: TaskFigures) -> dict[str, Any]:
    tracks = []
    for track in task.tracks:
        review = track.review()
        changed = track.changed
        tracks.append(
            {
                "label": track.label,
                "colour": _colour(task, track.label),
                "masks": len(track.shown),
                "mean": review.mean if review.frames else None,
                "look": review.look,
                "by_hand": track.by_hand,
                "changed": 1 - mean(changed.values()) if changed else None,
                "clicks": track.clicks,
                "gaps": _some(track.gaps()),
                "tiny": _some(track.tiny()),
                "jumps": [f"{j.frame} ({j.text})" for j in track.jumps()[:_SHOWN]],
                "jumps_more": max(0, len(track.jumps()) - _SHOWN),
            }
        )
    return {"task": task, "tracks": tracks, "lines": [_line(task, t.label) for t in task.tracks]}


def _some(frames: Sequence[int]) -> str:
    """Frames as text, neighbours as a span."""
    spans: list[list[int]] = []
    for frame in frames:
        if spans and frame == spans[-1][1] + 1:
            spans[-1][1] = frame
        else:
            spans.append([frame, frame])
    texts = [str(a) if a == b else f"{a} to {b}" for a, b in spans]
    return ", ".join(texts[:_SHOWN]) + (f" and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else "")


def _colour(task: TaskFigures, label: str) -> str:
    place = [t.label for t in task.tracks].index(label)
    return _COLOURS[place % len(_COLOURS)]


def _line(task: TaskFigures, label: str) -> Line:
    track = next(t for t in task.tracks if t.label == label)
    stretches: list[list[str]] = [[]]
    qualities = track.qualities
    for place, frame in enumerate(task.frames):
        if frame in qualities:
            stretches[-1].append(f"{_x(place, len(task.frames)):.1f},{_y(qualities[frame]):.1f}")
        elif stretches[-1]:
            stretches.append([])
    # A polyline of one point shows nothing.
    points = tuple(" ".join(s if len(s) > 1 else s * 2) for s in stretches if s)
    decided = track.decided
    dots = tuple(
        (_x(place, len(task.frames)), _y(1.0)) for place, frame in enumerate(task.frames) if frame in decided
    )  # fmt: skip
    return Line(label, _colour(task, label), points, dots)


def _x(place: int, count: int) -> float:
    return 4 + (_WIDTH - 8) * place / max(1, count - 1)


def _y(quality: float) -> float:
    return 6 + (_HEIGHT - 12) * (1 - quality)
