"""GET /status: a small page for people about the work in the background, and the same as JSON for machines."""

from __future__ import annotations

import base64
import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import resources
from typing import Any
from urllib.parse import urlsplit

from flask import Blueprint, Response, jsonify, make_response, render_template, request

from tam_backend.sessions.progress import UNFINISHED_STATES, JobState, JobView, Progress

Json = dict[str, Any]

#: How many of the jobs that ended the page shows, of those that failed and of the others. The JSON has all.
SHOWN_ENDED = 50
#: The page asks again after so many seconds: while something is going on, and otherwise.
BUSY_SECONDS, IDLE_SECONDS = 2, 10

_WORDS = {
    JobState.WAITING: "waiting for its turn",
    JobState.RUNNING: "tracking",
    JobState.DELIVERING: "computed; the masks are saved when nobody works on the task",
    JobState.DONE: "done",
    JobState.FAILED: "failed",
    JobState.STOPPED: "stopped",
}
_REMOVAL_WORDS = _WORDS | {
    JobState.RUNNING: "taking it out of the video",
    JobState.DONE: "done; the video can be fetched",
}
_ADVICE_REMOVAL = "Run tam inpaint --task with --backend again: what is finished is not computed again."
_ADVICE_FAILED = (
    "Open the task and click on the object again: what is finished is not computed again. "
    "If it fails once more, the backend's log says why."
)
_ADVICE_UNFINISHED = "Nothing to do: the backend tries again by itself."

#: For HTML that none of our templates made, such as the redirects of the web framework.
_STRICT_POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


@dataclass(frozen=True, slots=True)
class _Row:
    """A job in words. link: None if its Label Studio's address is not one that browsers open."""

    id: int
    label: str
    place: str
    link: str | None
    state: JobState
    words: str
    done: int
    total: int
    unit: str
    percent: int
    left: str
    changed: str
    changed_at: str
    error: str
    advice: str
    quality: str


def status_blueprint(facts: Callable[[], Json], progress: Progress | None) -> Blueprint:
    """The routes /status and /status.json, and a Content-Security-Policy for every HTML answer of the application.

    facts: what ``Service.status()`` gives. progress: None if nothing works in the background.
    """
    blueprint = Blueprint("status", __name__, template_folder="templates")
    style, script = (_text_of(name) for name in ("status.css", "status.js"))
    policy = (
        f"{_STRICT_POLICY}; style-src {_hash_source(style)}; script-src {_hash_source(script)}; "
        "connect-src 'self'; img-src data:"
    )

    def views() -> list[JobView]:
        return progress.views() if progress else []

    @blueprint.get("/status")
    def status() -> Response:
        accepted = request.accept_mimetypes
        # Clients that take anything, such as curl, have always got JSON here; browsers prefer HTML by name.
        if accepted["text/html"] <= accepted["application/json"]:
            return status_json()
        page = _page(facts(), views(), time.time())
        response = make_response(render_template("status.html", style=style, script=script, **page))
        response.headers["Content-Security-Policy"] = policy
        response.headers["Referrer-Policy"] = "no-referrer"
        return _fresh(response)

    @blueprint.get("/status.json")
    def status_json() -> Response:
        return _fresh(jsonify(facts() | {"jobs": [_fields(view) for view in views()]}))

    @blueprint.after_app_request
    def protect(response: Response) -> Response:
        if response.mimetype == "text/html":
            response.headers.setdefault("Content-Security-Policy", _STRICT_POLICY)
        response.headers.setdefault("X-Content-Type-Options", "nosniff")
        return response

    return blueprint


def duration(seconds: float) -> str:
    """A span of time in words, with two units at most: "40 seconds", "3 minutes", "1 hour 10 minutes"."""
    whole = max(0, round(seconds))
    if whole < 60:
        return _count(whole, "second")
    minutes = round(whole / 60)
    if minutes < 60:
        return _count(minutes, "minute")
    (large, small), units = divmod(minutes, 60), ("hour", "minute")
    if large >= 48:
        (large, small), units = divmod(round(minutes / 60), 24), ("day", "hour")
    return _count(large, units[0]) + (f" {_count(small, units[1])}" if small else "")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _fields(view: JobView) -> Json:
    return asdict(view) | {"seconds_left": _known(view.seconds_left)}


def _known(seconds: float | None) -> float | None:
    """JSON has no infinity, and people no use for it."""
    return seconds if seconds is not None and math.isfinite(seconds) else None


def _page(facts: Json, views: Sequence[JobView], now: float) -> Json:
    """What the template needs."""
    rows = [_row(view, now) for view in views]
    unfinished = [row for row in rows if row.state in UNFINISHED_STATES]
    failed = [row for row in rows if row.state == JobState.FAILED]
    ended = [row for row in rows if row.state in (JobState.DONE, JobState.STOPPED)]
    running = sum(row.state == JobState.RUNNING for row in rows)
    delivering = sum(row.state == JobState.DELIVERING for row in rows)
    sums = [
        f"{running} running",
        f"{len(unfinished) - running - delivering} waiting",
        *([f"{delivering} to be saved"] if delivering else []),
        f"{len(failed)} failed",
    ]
    busy = bool(unfinished or facts["tracking_requests"] or facts["tasks_getting_frames"])
    return {
        "sums": sums,
        "unfinished": unfinished,
        "failed": failed[:SHOWN_ENDED],
        "failed_more": max(0, len(failed) - SHOWN_ENDED),
        "ended": ended[:SHOWN_ENDED],
        "ended_count": len(ended),
        "ended_more": max(0, len(ended) - SHOWN_ENDED),
        "facts": facts,
        "uptime": duration(facts["uptime_seconds"]),
        "megabytes": round(facts["result_cache_bytes"] / 1_000_000),
        "memory": f"{facts['memory_bytes'] / 1e9:.1f} of {facts['memory_limit_bytes'] / 1e9:.1f} GB",
        "obstacles": facts["obstacles"],
        "seconds": BUSY_SECONDS if busy else IDLE_SECONDS,
    }


def _row(view: JobView, now: float) -> _Row:
    total = max(view.frames_total, 0)
    done = min(max(view.frames_done, 0), total)
    left = ""
    if view.state == JobState.RUNNING:
        seconds = _known(view.seconds_left)
        left = "time left not known yet" if seconds is None else f"about {duration(seconds)} left"
    elif view.state == JobState.WAITING and view.position is not None:
        left = f"position {view.position} in line"
    advice = ""
    if view.state == JobState.FAILED:
        advice = _ADVICE_FAILED if view.kind == "tracking" else _ADVICE_REMOVAL
    elif view.error and view.state in UNFINISHED_STATES:
        advice = _ADVICE_UNFINISHED
    return _Row(
        id=view.id,
        label=view.label,
        place=f"task {view.task} of project {view.project}"
        + (", into the other tasks of its video" if view.follows else ""),
        link=_task_link(view),
        state=view.state,
        words=(_WORDS if view.kind == "tracking" else _REMOVAL_WORDS)[view.state],
        done=done,
        total=total,
        unit="frames" if view.kind == "tracking" else "steps",
        percent=100 * done // total if total else 0,  # rounded down: 100 % is said when all is there
        left=left,
        changed="just now" if now - view.updated < 2 else f"{duration(now - view.updated)} ago",
        changed_at=datetime.fromtimestamp(view.updated, UTC).isoformat(timespec="seconds"),
        error=view.error,
        advice=advice,
        quality=_quality(view),
    )


def _quality(view: JobView) -> str:
    """What is known of the finished masks, in words. Pages count from 1, as Label Studio's page does."""
    if view.look is None:
        return ""
    if view.fix_next is None:
        return "no frame needs a look"
    noun = "frame needs" if view.look == 1 else "frames need"
    return f"{view.look} {noun} a look; fix frame {view.fix_next} next (page {view.fix_next - view.first + 1})"


def _task_link(view: JobView) -> str | None:
    """The task in Label Studio. The address comes from whoever connected, so a script: or the like must not pass."""
    try:
        parts = urlsplit(view.label_studio)
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not parts.netloc:
        return None
    return f"{view.label_studio}/projects/{view.project}/data?task={view.task}"


def _text_of(name: str) -> str:
    return resources.files("tam_backend.server").joinpath("templates", name).read_text(encoding="utf-8")


def _hash_source(text: str) -> str:
    """What a Content-Security-Policy calls an inline style or script that is allowed: these bytes and no others."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _fresh(response: Response) -> Response:
    response.headers["Cache-Control"] = "no-store"
    response.headers["Vary"] = "Accept"
    return response
