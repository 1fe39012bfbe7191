"""What the database of a data directory holds, and how to make it smaller without harm.

Needed is what unfinished jobs go on from, and what prompts lead to that nobody has submitted yet: that stays, whatever
is asked. All other masks can be computed again.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from tam_backend.errors import TamError
from tam_backend.sessions.blobs import blob_digest, lasting_key
from tam_backend.sessions.database import Database
from tam_backend.sessions.owner import LOCK, own
from tam_backend.sessions.progress import UNFINISHED
from tam_backend.sessions.tracks import Track, TrackTable
from tam_backend.tracking.keys import Keys

#: Blobs deleted at once, so that a server that works on the same file never waits long.
_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class ProjectUse:
    """One project. tasks: those with prompts. masks, mask_bytes: finished masks of its videos; what a video has that
    several projects use is counted in each. unfinished: jobs. unsubmitted: objects whose prompts nobody submitted."""

    label_studio: str
    project: int
    tasks: int
    masks: int
    mask_bytes: int
    unfinished: int
    unsubmitted: int


@dataclass(frozen=True, slots=True)
class Wish:
    """What may go. Of several conditions all must hold.

    before: masks last used before this Unix time. max_bytes: masks beyond this size in all, those unused for longest
    first. project: (address of its Label Studio, "" for any, and number): its masks, and what was noted of its tasks.
    """

    before: float | None = None
    max_bytes: int | None = None
    project: tuple[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Pruned:
    """masks, mask_bytes: dropped. kept, kept_bytes: would have gone, but are needed. tasks: forgotten altogether."""

    masks: int
    mask_bytes: int
    kept: int
    kept_bytes: int
    tasks: int


class Storage:
    """The database of a data directory, for its keeper; a server may work on it meanwhile.

    engine: NAME-VERSION of the engine that works on it, "" if none ever did.
    """

    def __init__(self, database: Database, engine: str) -> None:
        self._database = database
        self._engine = engine
        self._tracks = TrackTable(database)

    def masks(self) -> tuple[int, int]:
        """How many blobs there are, and their bytes."""
        count, size = self._database.rows("SELECT COUNT(*), COALESCE(SUM(LENGTH(blob)), 0) FROM blobs")[0]
        return int(count), int(size)

    def free_bytes(self) -> int:
        """Bytes inside the file that nothing uses; ``compact`` gives them back."""
        return self._pragma("freelist_count") * self._pragma("page_size")

    def projects(self) -> list[ProjectUse]:
        rows = self._database.rows(
            "SELECT label_studio, project, COUNT(DISTINCT task), "
            f"SUM(state IN ({UNFINISHED})), SUM(submitted IS NULL AND follows = 0) "
            "FROM tracks GROUP BY label_studio, project ORDER BY label_studio, project"
        )
        uses = []
        for url, project, tasks, unfinished, unsubmitted in rows:
            count, size = self._database.rows(
                "SELECT COUNT(*), COALESCE(SUM(LENGTH(blob)), 0) FROM blobs WHERE video IN "
                "(SELECT content FROM tracks WHERE label_studio = ? AND project = ? AND content <> '')",
                (url, project),
            )[0]
            uses.append(ProjectUse(url, project, tasks, count, size, unfinished, unsubmitted))
        return uses

    def needed_videos(self) -> frozenset[str]:
        """The videos (ids of the library) of which something is needed."""
        return frozenset(track.video for track in self._tracks.needing())

    def videos_of(self, project: tuple[str, int]) -> frozenset[str]:
        """The videos (ids of the library) that a project alone uses."""
        of = {v for _, v in self._where_project(project, "video")}
        return frozenset(of - {v for _, v in self._where_project(project, "video", others=True)})

    def prune(self, wish: Wish, *, dry_run: bool = False) -> Pruned:
        """Drop what is wished and not needed. With dry_run nothing changes, and the answer is what would be dropped."""
        known = self._state_of_tracks()
        found = [(row, size, bytes(key)) for row, size, key in self._candidates(wish)]
        needed = self._needed()
        dropped = [entry for entry in found if entry[2] not in needed]
        if not dry_run:
            self._drop([row for row, _, _ in dropped], known)
        forgotten = self._forget(wish.project, dry_run) if wish.project else 0
        return Pruned(
            len(dropped), sum(size for _, size, _ in dropped), len(found) - len(dropped),
            sum(size for _, size, key in found if key in needed), forgotten,
        )  # fmt: skip

    def compact(self) -> int:
        """Give what is free inside the file back to the disk. Returns how many bytes that was.

        Raises TamError while a server works on the directory, or if the disk has no room for the second copy of the
        file that this takes.
        """
        path = self._database.path
        lock = own(path.with_name(LOCK))
        if lock is None:
            raise TamError(f"a server works on {path.parent}: stop it first, then compact")
        with closing(lock):
            self._database.rows("PRAGMA wal_checkpoint(TRUNCATE)")
            before = path.stat().st_size
            room = shutil.disk_usage(path.parent).free
            if room < before - self.free_bytes():
                raise TamError(
                    f"compacting takes {(before - self.free_bytes()) / 1e6:.0f} MB for a while, and the disk has "
                    f"{room / 1e6:.0f} MB left"
                )
            self._database.run("VACUUM")
            self._database.rows("PRAGMA wal_checkpoint(TRUNCATE)")
            return before - path.stat().st_size

    # ---- inside

    def _candidates(self, wish: Wish) -> list[tuple[int, int, bytes]]:
        """(rowid, bytes, key) of the blobs that a wish is about."""
        where, values = ["lasting = 0"], list[object]()
        if wish.before is not None:
            where.append("used < ?")
            values.append(wish.before)
        if wish.project is not None:
            contents = self._contents_of(wish.project)
            where.append(f"video IN ({', '.join('?' * len(contents))})")
            values += contents
        rows = self._database.rows(
            f"SELECT rowid, LENGTH(blob), key FROM blobs WHERE {' AND '.join(where)} ORDER BY used", values
        )
        if wish.max_bytes is None:
            return rows
        over = self.masks()[1] - wish.max_bytes
        taken = []
        needed = self._needed()
        for row in rows:
            if over <= 0:
                break
            taken.append(row)
            over -= 0 if row[2] in needed else row[1]
        return taken

    def _needed(self) -> set[bytes]:
        """The keys of all blobs that must stay. If the video of something needed is not known, which was so before
        version 3 of the schema, that is everything stored then."""
        keys: set[bytes] = set()
        for track in self._tracks.needing():
            keys.update(blob_digest(key) for key in self._keys_of(track))
        if any(not track.content for track in self._tracks.needing()):
            keys.update(bytes(key) for (key,) in self._database.rows("SELECT key FROM blobs WHERE video = ''"))
        return keys

    def _keys_of(self, track: Track) -> Iterator[str]:
        if track.content:
            yield from Keys(track.content, self._engine).needed(track.frames, track.anchors)

    def _drop(self, rows: list[int], known: tuple[object, ...]) -> None:
        """Delete blobs, unless somebody has come to need them since the tracks were as ``known`` says."""
        for at in range(0, len(rows), _AT_ONCE):
            with self._database.transaction():
                part = rows[at : at + _AT_ONCE]
                now = self._state_of_tracks()
                if now != known:
                    known, needed = now, self._needed()
                    keys = {r: self._database.rows("SELECT key FROM blobs WHERE rowid = ?", (r,)) for r in part}
                    part = [r for r, found in keys.items() if found and bytes(found[0][0]) not in needed]
                for row in part:
                    self._database.run("DELETE FROM blobs WHERE rowid = ?", (row,))

    def _state_of_tracks(self) -> tuple[object, ...]:
        return self._database.rows("SELECT COUNT(*), MAX(id), MAX(updated), TOTAL(submitted) FROM tracks")[0]

    def _forget(self, project: tuple[str, int], dry_run: bool) -> int:
        """Forget what was noted of a project's tasks where nothing is needed. Returns of how many."""
        needing = {(t.work.label_studio, t.work.task) for t in self._tracks.needing()}
        tasks = {(url, task) for url, task in self._where_project(project, "task")} - needing
        if not dry_run:
            for url, task in tasks:
                with self._database.transaction():
                    tracks = self._tracks.of_task(url, task)
                    for key in {lasting_key((t.work, name)) for t in tracks for name in t.ids} | {
                        lasting_key((t.work, t.tag, t.label, name), "inherits/") for t in tracks for name in t.ids
                    }:
                        self._database.run("DELETE FROM blobs WHERE key = ?", (blob_digest(key),))
                    for table in ("tracks", "deliveries", "inherited", "predictions"):
                        self._database.run(f"DELETE FROM {table} WHERE label_studio = ? AND task = ?", (url, task))
        return len(tasks)

    def _contents_of(self, project: tuple[str, int]) -> list[str]:
        """The content of the videos that a project alone uses."""
        of = {v for _, v in self._where_project(project, "content")}
        return sorted(of - {v for _, v in self._where_project(project, "content", others=True)} - {""})

    def _where_project(self, project: tuple[str, int], column: str, *, others: bool = False) -> list[tuple[Any, ...]]:
        url, number = project
        condition = "project = ? AND (? = '' OR label_studio = ?)"
        return self._database.rows(
            f"SELECT DISTINCT label_studio, {column} FROM tracks WHERE {'NOT' if others else ''} ({condition})",
            (number, url, url),
        )

    def _pragma(self, name: str) -> int:
        return int(self._database.rows(f"PRAGMA {name}")[0][0])


def days_ago(days: float) -> float:
    """Unix time so many days ago."""
    return time.time() - days * 86400
