"""What must survive a restart: one SQLite file on a local disk.

Write-ahead logging makes every transaction whole or absent, however the process ends; a loss of power may take the last
moments with it, never the file.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tam_backend.errors import TamError

log = logging.getLogger(__name__)

#: Its name in the data directory.
FILE = "state.sqlite3"

#: Step i brings a file of schema version i to version i + 1. Steps that were released are never changed.
MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE blobs (
        key BLOB NOT NULL UNIQUE,     -- digest of the store's key
        lasting INTEGER NOT NULL,     -- 1: never dropped to save space
        used REAL NOT NULL,           -- Unix time of the last use, to the hour
        blob BLOB NOT NULL
    );
    CREATE INDEX blobs_by_use ON blobs (lasting, used);
    CREATE TABLE tracks (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        label_studio TEXT NOT NULL, project INTEGER NOT NULL, task INTEGER NOT NULL,
        tag TEXT NOT NULL, label TEXT NOT NULL,
        prompts TEXT NOT NULL,        -- JSON: the prompts' regions as they are echoed
        draft TEXT NOT NULL,
        video TEXT NOT NULL, start INTEGER NOT NULL, stop INTEGER NOT NULL, focus INTEGER NOT NULL,
        anchors BLOB NOT NULL,
        follows INTEGER NOT NULL,     -- 1: through the other tasks of the video
        state TEXT NOT NULL, done INTEGER NOT NULL,
        error TEXT NOT NULL, attempts INTEGER NOT NULL,
        created REAL NOT NULL, updated REAL NOT NULL
    );
    CREATE INDEX tracks_by_task ON tracks (label_studio, task, tag, label);
    CREATE INDEX tracks_by_video ON tracks (video, label_studio, project, tag, label);
    CREATE INDEX tracks_by_state ON tracks (state, updated);
    CREATE TABLE deliveries (
        label_studio TEXT NOT NULL, task INTEGER NOT NULL, tag TEXT NOT NULL, label TEXT NOT NULL,
        marker TEXT NOT NULL,         -- how to see that they arrived
        frames TEXT NOT NULL,         -- JSON: item_index of the masks
        saved TEXT NOT NULL,          -- updated_at of the draft that we wrote them into, else ""
        PRIMARY KEY (label_studio, task, tag, label, marker)
    ) WITHOUT ROWID;
    CREATE TABLE predictions (
        label_studio TEXT NOT NULL, project INTEGER NOT NULL, task INTEGER NOT NULL,
        prediction INTEGER NOT NULL, digest TEXT NOT NULL,
        base TEXT NOT NULL,           -- address of this server in the task's frames
        PRIMARY KEY (label_studio, task)
    ) WITHOUT ROWID;
    CREATE TABLE inherited (
        label_studio TEXT NOT NULL, task INTEGER NOT NULL, tag TEXT NOT NULL, label TEXT NOT NULL,
        anchors BLOB NOT NULL,
        PRIMARY KEY (label_studio, task, tag, label)
    );
    """,
    """
    ALTER TABLE tracks ADD COLUMN look INTEGER;      -- masks that need a look; NULL until all are finished
    ALTER TABLE tracks ADD COLUMN fix_next INTEGER;  -- frame of the video; NULL: none needs a look
    """,
    """
    ALTER TABLE tracks ADD COLUMN content TEXT NOT NULL DEFAULT '';  -- key of the video's content; '': not known
    ALTER TABLE tracks ADD COLUMN submitted REAL;  -- Unix time at which its prompts were in a saved annotation
    ALTER TABLE blobs ADD COLUMN video TEXT NOT NULL DEFAULT '';  -- key of the video's content
    CREATE INDEX blobs_by_video ON blobs (video, lasting, used);
    """,
    """
    CREATE TABLE outcomes (
        label_studio TEXT NOT NULL, project INTEGER NOT NULL, task INTEGER NOT NULL, annotation INTEGER NOT NULL,
        version TEXT NOT NULL,        -- of the engine; "": drawn by a person
        accepted INTEGER NOT NULL, fixed INTEGER NOT NULL, rejected INTEGER NOT NULL, drawn INTEGER NOT NULL,
        updated REAL NOT NULL,
        PRIMARY KEY (label_studio, annotation, version)
    ) WITHOUT ROWID;
    CREATE INDEX outcomes_by_task ON outcomes (label_studio, task);
    """,
)


class Database:
    """A SQLite file with the schema of this version. Thread-safe: callers take turns on one connection.

    A file that is damaged is put aside, with a loud log line, and a new one begun: what people made is in Label Studio,
    and what was computed can be computed again. Raises TamError if the file is of a newer version or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = self._open()
        except sqlite3.Error as e:
            raise TamError(f"cannot use {path} ({e}): TAM_DATA_DIR must be a folder that this program may write") from e
        except OSError as e:
            raise TamError(f"cannot make {path.parent} ({e.strerror}): set TAM_DATA_DIR to another folder") from e

    def _open(self) -> sqlite3.Connection:
        try:
            return self._connect()
        except sqlite3.DatabaseError as e:
            if getattr(e, "sqlite_errorcode", None) not in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
                raise  # locked, read-only, no space, a fault of ours: the file itself may be sound
            aside = self.path.with_name(f"{self.path.name}.damaged-{int(time.time())}")
            log.error("%s is damaged (%s). It is now %s; finished masks are computed again", self.path, e, aside.name)
            self.path.rename(aside)
            for suffix in ("-wal", "-shm"):
                self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
            return self._connect()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=30, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            self._migrate(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _migrate(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        try:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version > len(MIGRATIONS):
                raise TamError(
                    f"{self.path} was written by a newer version of this program (schema {version}, known are up to "
                    f"{len(MIGRATIONS)}): update the program, or set TAM_DATA_DIR to another folder"
                )
            for step in MIGRATIONS[version:]:
                for statement in _statements(step):
                    connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        with self._lock:
            return self._connection.execute(query, values).fetchall()

    def run(self, statement: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        """One statement, committed when this returns (unless inside ``transaction``)."""
        with self._lock:
            return self._connection.execute(statement, values)

    def attempt(self, statement: str, values: Sequence[Any] = ()) -> None:
        """One statement whose loss can be borne: a disk that cannot be written costs a line in the log."""
        try:
            self.run(statement, values)
        except sqlite3.Error as e:
            log.error("%s cannot be written (%s): a restart would not know of it", self.path.name, e)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """What happens inside is stored whole or not at all."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")


def _statements(script: str) -> Iterator[str]:
    """The statements of a script one by one: ``executescript`` would commit in between."""
    statement = ""
    for piece in script.split(";")[:-1]:
        statement += f"{piece};"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
