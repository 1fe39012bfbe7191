"""``tam track --explain``: what refinement decided on every frame, and why."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2

from tam_backend.drawing import draw_objects
from tam_backend.errors import BadInput
from tam_backend.tracking.filestore import write_atomically
from tam_backend.tracking.objects import IdMap
from tam_backend.tracking.refinement import Decision
from tam_backend.video.base import Frame
from tam_backend.video.jpeg import encode_jpeg

EXPLAIN = "explain"
TABLE, POINTS = "frames.csv", "points.jsonl"

COLUMNS = (
    "frame", "object", "direction", "quality", "outcome", "quality_after", "score", "stability", "agreement", "growth",
    "positive", "negative", "dropped", "reasons",
)  # fmt: skip

#: Colours of points (RGB): on the object, off it, and of those that were dropped.
ON, OFF, DROPPED = (0, 220, 0), (230, 0, 0), (160, 160, 160)


@dataclass(frozen=True, slots=True)
class Row:
    """One object on one frame that no person decided. decision: None if its quality was high enough."""

    frame: int
    object_id: int
    quality: float
    decision: Decision | None

    def cells(self) -> list[str]:
        """In the order of ``COLUMNS``."""
        d = self.decision
        head = [str(self.frame), str(self.object_id)]
        if d is None:
            return [*head, "", f"{self.quality:.3f}", "not looked at", f"{self.quality:.3f}", *[""] * 8]
        outcome = "refined" if d.accepted else "left as it was"
        numbers = ["" if n is None else f"{n:.3f}" for n in (d.score, d.stability, d.agreement, d.growth)]
        counts = [sum(p.positive for p in d.kept), sum(not p.positive for p in d.kept)]
        counts.append(len(d.points) - len(d.kept))
        return [
            *head, "forward" if d.direction > 0 else "backward", f"{d.quality:.3f}", outcome, f"{d.result:.3f}",
            *numbers, *map(str, counts), "; ".join(d.refused),
        ]  # fmt: skip


def rows_of(frame: int, qualities: Mapping[int, float], decisions: Mapping[int, Sequence[Decision]]) -> list[Row]:
    """qualities: object -> quality of its mask; decisions: object -> what was decided about it on this frame."""
    rows = []
    for object_id, quality in sorted(qualities.items()):
        here: Sequence[Decision | None] = decisions.get(object_id) or [None]
        rows += [Row(frame, object_id, quality, d) for d in here]
    return rows


def refuse_foreign(out: Path) -> None:
    """Raises BadInput if what would be replaced is somebody else's."""
    folder = out / EXPLAIN
    if folder.exists() and not is_ours(folder):
        raise BadInput(f"--explain: {folder} is there and not from an earlier call; move it, or choose another --out")


def begin_folder(out: Path) -> Path:
    """An empty folder for the explanation; one of an earlier call goes."""
    folder = out / EXPLAIN
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / TABLE).touch()
    return folder


def is_ours(folder: Path) -> bool:
    return (folder / TABLE).is_file()


def write_tables(folder: Path, rows: Sequence[Row]) -> None:
    """``frames.csv``, a line for each object and frame, and ``points.jsonl``, every decision with its points."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    writer.writerows(row.cells() for row in rows)
    write_atomically(folder / TABLE, text.getvalue().encode())
    decided = ((row.object_id, row.decision) for row in rows if row.decision is not None)
    lines = (json.dumps({"object": i, **asdict(decision)}) + "\n" for i, decision in decided)
    write_atomically(folder / POINTS, "".join(lines).encode())


def write_pictures(folder: Path, picture: Frame, ids: IdMap, rows: Iterable[Row]) -> None:
    """The frame with its masks and the projected points, a picture for each decision that had points."""
    for row in rows:
        if row.decision is not None and row.decision.points:
            way = "forward" if row.decision.direction > 0 else "backward"
            image = draw_points(draw_objects(picture, ids, row.frame), row.decision)
            path = folder / f"{row.frame:05d}-object{row.object_id}-{way}.jpg"
            write_atomically(path, encode_jpeg(image, quality=90))


def draw_points(image: Frame, decision: Decision) -> Frame:
    """A copy with a disc for every point that was used, green on the object and red off it, and a small grey ring with
    a dot of its colour for every one that was dropped."""
    image = image.copy()
    radius = max(3, round(min(image.shape[:2]) / 100))
    for point in sorted(decision.points, key=lambda p: not p.dropped):
        at, colour = (int(point.x), int(point.y)), ON if point.positive else OFF
        if point.dropped:
            cv2.circle(image, at, radius, DROPPED)
            cv2.circle(image, at, 1, colour, cv2.FILLED)
        else:
            cv2.circle(image, at, radius + 1, (255, 255, 255), cv2.FILLED, cv2.LINE_AA)
            cv2.circle(image, at, radius, colour, cv2.FILLED, cv2.LINE_AA)
    return image
