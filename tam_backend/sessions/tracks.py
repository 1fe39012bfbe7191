"""What is asked of the tracker, on disk: whose prompts on which task, and how far the work on them has come."""

from __future__ import annotations

import base64
import json
import time
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tam_backend.prompts import Box, Click, FramePrompts, Mask
from tam_backend.sessions.database import Database
from tam_backend.sessions.progress import UNFINISHED, JobState, JobView
from tam_backend.tracking.tracker import Anchor

#: Tracks that ended are forgotten after this many seconds, unless their prompts are the newest of their object.
_KEEP_ENDED = 7 * 86400.0


@dataclass(frozen=True, slots=True)
class Work:
    """A task of a Label Studio (its address without a trailing slash)."""

    label_studio: str
    project: int
    task: int


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """One person's prompts for one object in one task, and the work that follows from them.

    tag, label: name of the mask tag and label. prompts: the regions of the prompts, as they are echoed. draft: name of
    the person's draft, "" if unknown. frames: of the video, those that the task shows. focus: the frame the person
    looked at. anchors: frame of the video -> what was decided there; some may lie outside ``frames``. follows: whether
    this is about the video's other tasks. done: frames. attempts: how often a process ended while at it. look,
    fix_next: see JobView.
    """

    work: Work
    tag: str
    label: str
    video: str
    frames: range
    focus: int
    anchors: Mapping[int, Anchor]
    prompts: tuple[dict[str, Any], ...] = ()
    draft: str = ""
    follows: bool = False
    state: JobState = JobState.WAITING
    done: int = 0
    error: str = ""
    attempts: int = 0
    look: int | None = None
    fix_next: int | None = None
    asked: float = 0.0
    updated: float = 0.0
    id: int = 0
    content: str = ""
    submitted: bool = False
    ids: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", frozenset(str(p.get("id")) for p in self.prompts))

    @property
    def total(self) -> int:
        """How many frames there are."""
        return len(self.frames)

    @property
    def facts(self) -> dict[str, Any]:
        """What lines of the log about it say. session: the id under which /status has it."""
        return {"project": self.work.project, "task": self.work.task, "label": self.label, "session": self.id}

    @property
    def own_anchors(self) -> dict[int, Anchor]:
        """Those on frames of the task itself."""
        return {f: a for f, a in self.anchors.items() if f in self.frames}

    def overlaps(self, other: Track) -> bool:
        """Whether both are about the same object for the same person: they share a prompt or the draft."""
        same = (self.work, self.tag, self.label) == (other.work, other.tag, other.label)
        return same and bool(self.ids & other.ids or (self.draft and self.draft == other.draft))


_COLUMNS = (
    "id, label_studio, project, task, tag, label, prompts, draft, video, start, stop, focus, anchors, follows, "
    "state, done, error, attempts, look, fix_next, created, updated, content, submitted IS NOT NULL"
)


class TrackTable:
    """Tracks in the database. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def insert(self, track: Track) -> Track:
        """Store a track and return it with its id. Older ones of the same object and person go, in the same moment."""
        now = time.time()
        with self._database.transaction():
            for old in self._same_object(track):
                if old.overlaps(track) and (old.follows or not track.follows):
                    self._database.run("DELETE FROM tracks WHERE id = ?", (old.id,))
            cursor = self._database.run(
                "INSERT INTO tracks (label_studio, project, task, tag, label, prompts, draft, video, start, stop, "
                "focus, anchors, follows, state, done, error, attempts, created, updated, content) "
                f"VALUES ({', '.join('?' * 20)})",
                (
                    track.work.label_studio, track.work.project, track.work.task, track.tag, track.label,
                    json.dumps(track.prompts), track.draft, track.video, track.frames.start, track.frames.stop,
                    track.focus, pack_anchors(track.anchors), track.follows, track.state, track.done, track.error,
                    track.attempts, now, now, track.content,
                ),
            )  # fmt: skip
        return replace(track, id=int(cursor.lastrowid or 0), asked=now, updated=now)

    def update(self, track: Track, **changes: Any) -> Track:
        """Store a change of state, done, error, attempts, look, fix_next or content, and return the changed track."""
        now = time.time()
        changed = replace(track, updated=now, **changes)
        self._database.run(
            "UPDATE tracks SET state = ?, done = ?, error = ?, attempts = ?, look = ?, fix_next = ?, content = ?, "
            "updated = ? WHERE id = ?",
            (
                changed.state,
                changed.done,
                changed.error,
                changed.attempts,
                changed.look,
                changed.fix_next,
                changed.content,
                now,
                changed.id,
            ),
        )
        return changed

    def delete(self, tracks: Iterable[Track]) -> None:
        with self._database.transaction():
            for track in tracks:
                self._database.run("DELETE FROM tracks WHERE id = ?", (track.id,))

    def unfinished(self) -> list[int]:
        """Ids in the order in which they were asked for."""
        query = f"SELECT id FROM tracks WHERE state IN ({UNFINISHED}) ORDER BY id"
        return [number for (number,) in self._database.rows(query)]

    def get(self, number: int) -> Track | None:
        found = self._tracks("id = ?", (number,))
        return found[0] if found else None

    def ended(self, limit: int) -> list[JobView]:
        """The latest that ended, the newest first; without their prompts, which may be large."""
        rows = self._database.rows(
            "SELECT id, label_studio, project, task, label, state, done, stop - start, error, updated, follows, "
            "start, look, fix_next "
            f"FROM tracks WHERE state NOT IN ({UNFINISHED}) ORDER BY updated DESC LIMIT ?",
            (limit,),
        )
        return [
            JobView(id, url, project, task, label, JobState(state), done, total, None, error, at, bool(follows), *rest)
            for id, url, project, task, label, state, done, total, error, at, follows, *rest in rows
        ]

    def of_task(self, label_studio: str, task: int) -> list[Track]:
        """All tracks of a task, the newest first."""
        return self._tracks("label_studio = ? AND task = ? ORDER BY id DESC", (label_studio, task))

    def submitted(self, label_studio: str, task: int, prompts: frozenset[str]) -> None:
        """Prompts of a task are in a saved annotation."""
        for track in self.of_task(label_studio, task):
            if track.ids & prompts and not track.submitted:
                self._database.run("UPDATE tracks SET submitted = ? WHERE id = ?", (time.time(), track.id))

    def needing(self) -> list[Track]:
        """The tracks whose stored masks must stay: unfinished work, and prompts that nobody has submitted yet."""
        return self._tracks(f"state IN ({UNFINISHED}) OR (submitted IS NULL AND follows = 0)", ())

    def has_follower(self, track: Track) -> bool:
        """Whether the way of a track into the other tasks has been planned already."""
        return any(t.follows and t.overlaps(track) for t in self._same_object(track))

    def of_video(self, track: Track) -> list[Track]:
        """The newest track of each task and object on the video of ``track`` in its project."""
        rows = self._tracks(
            "video = ? AND label_studio = ? AND project = ? AND follows = 0 ORDER BY id DESC",
            (track.video, track.work.label_studio, track.work.project),
        )
        newest: dict[tuple[int, str, str], Track] = {}
        for row in rows:
            newest.setdefault((row.work.task, row.tag, row.label), row)
        return list(newest.values())

    def prune(self) -> None:
        """Forget what ended long ago, except prompts that are not submitted yet, and each object's newest: its video's
        other tasks build on those."""
        self._database.run(
            f"DELETE FROM tracks WHERE updated < ? AND state NOT IN ({UNFINISHED}) "
            "AND (submitted IS NOT NULL OR follows = 1) AND id NOT IN "
            "(SELECT MAX(id) FROM tracks WHERE follows = 0 GROUP BY label_studio, task, tag, label)",
            (time.time() - _KEEP_ENDED,),
        )

    def _same_object(self, track: Track) -> list[Track]:
        return self._tracks(
            "label_studio = ? AND task = ? AND tag = ? AND label = ?",
            (track.work.label_studio, track.work.task, track.tag, track.label),
        )

    def _tracks(self, condition: str, values: Iterable[Any]) -> list[Track]:
        query = f"SELECT {_COLUMNS} FROM tracks WHERE {condition}"
        return [_track(row) for row in self._database.rows(query, tuple(values))]


def _track(row: tuple[Any, ...]) -> Track:
    (id, label_studio, project, task, tag, label, prompts, draft, video, start, stop, focus, anchors, follows,
     state, done, error, attempts, look, fix_next, asked, updated, content, submitted) = row  # fmt: skip
    return Track(
        Work(label_studio, project, task), tag, label, video, range(start, stop), focus, unpack_anchors(anchors),
        tuple(json.loads(prompts)), draft, bool(follows), JobState(state), done, error, attempts, look, fix_next,
        asked, updated, id, content, bool(submitted),
    )  # fmt: skip


def pack_anchors(anchors: Mapping[int, Anchor]) -> bytes:
    """Anchors as a blob: JSON, with masks as one bit a pixel in base64, deflated."""
    facts: list[dict[str, Any]] = []
    for frame, anchor in sorted(anchors.items()):
        prompts = anchor.prompts
        box = prompts.box
        facts.append(
            {
                "frame": int(frame),
                "clicks": [[c.x, c.y, c.positive] for c in prompts.clicks],
                "box": [box.left, box.top, box.right, box.bottom] if box else None,
                "mask": _pack_mask(prompts.mask),
                "refine": prompts.refine,
                "prior": _pack_mask(anchor.prior),
            }
        )
    return zlib.compress(json.dumps(facts).encode())


def unpack_anchors(blob: bytes) -> dict[int, Anchor]:
    """What ``pack_anchors`` was given; equal digests included."""
    anchors = {}
    for fact in json.loads(zlib.decompress(blob)):
        prompts = FramePrompts(
            clicks=tuple(Click(x, y, positive) for x, y, positive in fact["clicks"]),
            box=Box(*fact["box"]) if fact["box"] else None,
            mask=_unpack_mask(fact["mask"]),
            refine=fact.get("refine", False),
        )
        anchors[fact["frame"]] = Anchor(prompts, _unpack_mask(fact["prior"]))
    return anchors


def _pack_mask(mask: Mask | None) -> list[Any] | None:
    return None if mask is None else [*mask.shape, base64.b64encode(np.packbits(mask).tobytes()).decode()]


def _unpack_mask(packed: list[Any] | None) -> Mask | None:
    if packed is None:
        return None
    height, width, bits = packed
    flat = np.unpackbits(np.frombuffer(base64.b64decode(bits), np.uint8), count=height * width)
    return flat.reshape(height, width).astype(bool)


def view_of(track: Track, done: int, seconds_left: float | None) -> JobView:
    """A track as people see it. done: frames."""
    return JobView(
        id=track.id,
        label_studio=track.work.label_studio,
        project=track.work.project,
        task=track.work.task,
        label=track.label,
        state=track.state,
        frames_done=done,
        frames_total=track.total,
        seconds_left=seconds_left,
        error=track.error,
        updated=track.updated,
        follows=track.follows,
        first=track.frames.start,
        look=track.look,
        fix_next=track.fix_next,
    )
