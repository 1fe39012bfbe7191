import sqlite3

import pytest

from tam_backend.errors import TamError
from tam_backend.sessions import database
from tam_backend.sessions.database import MIGRATIONS, Database
from tam_backend.sessions.tracks import TrackTable, pack_anchors


def version(path) -> int:
    connection = sqlite3.connect(path)
    try:
        return connection.execute("PRAGMA user_version").fetchone()[0]
    finally:
        connection.close()


def test_a_new_file_has_the_schema_of_today(tmp_path):
    Database(tmp_path / "new" / "state.sqlite3").close()
    assert version(tmp_path / "new" / "state.sqlite3") == len(MIGRATIONS)


def test_an_older_file_is_brought_up_to_date_and_keeps_its_content(tmp_path, monkeypatch):
    old = Database(tmp_path / "state.sqlite3")
    old.run("INSERT INTO blobs (key, lasting, used, blob) VALUES (x'01', 0, 0, x'02')")
    old.close()
    step = "ALTER TABLE blobs ADD COLUMN note TEXT NOT NULL DEFAULT 'none'; CREATE TABLE extra (a INTEGER);"
    monkeypatch.setattr(database, "MIGRATIONS", (*MIGRATIONS, step))
    for _ in range(2):  # the second opening changes nothing
        new = Database(tmp_path / "state.sqlite3")
        assert new.rows("SELECT blob, note FROM blobs") == [(b"\2", "none")]
        new.close()
    assert version(tmp_path / "state.sqlite3") == len(MIGRATIONS) + 1


def test_a_step_that_fails_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "state.sqlite3"
    Database(path).close()
    monkeypatch.setattr(
        database, "MIGRATIONS", (*MIGRATIONS, "CREATE TABLE extra (a INTEGER); CREATE TABLE blobs (a);")
    )
    with pytest.raises(TamError, match="TAM_DATA_DIR"):
        Database(path)
    monkeypatch.undo()
    again = Database(path)
    assert again.rows("SELECT name FROM sqlite_master WHERE name = 'extra'") == []
    again.close()


def test_a_file_of_a_newer_version_is_left_alone(tmp_path, monkeypatch):
    path = tmp_path / "state.sqlite3"
    monkeypatch.setattr(database, "MIGRATIONS", (*MIGRATIONS, "CREATE TABLE extra (a INTEGER);"))
    Database(path).close()
    monkeypatch.undo()
    with pytest.raises(TamError, match="newer version"):
        Database(path)
    assert version(path) == len(MIGRATIONS) + 1


@pytest.mark.parametrize(
    "content", [b"not a database, but long enough to be taken for one" * 50, b"SQLite format 3\0" * 99]
)
def test_a_damaged_file_is_put_aside(tmp_path, content, caplog):
    path = tmp_path / "state.sqlite3"
    path.write_bytes(content)
    fresh = Database(path)
    assert fresh.rows("SELECT COUNT(*) FROM blobs") == [(0,)]
    fresh.close()
    [aside] = tmp_path.glob("state.sqlite3.damaged-*")
    assert aside.read_bytes() == content
    assert "damaged" in caplog.text


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TamError, match="TAM_DATA_DIR"):
        Database(tmp_path / "file" / "state.sqlite3")


def test_a_transaction_that_fails_changes_nothing(tmp_path):
    db = Database(tmp_path / "state.sqlite3")

    def half() -> None:
        with db.transaction():
            db.run("INSERT INTO blobs (key, lasting, used, blob) VALUES (x'01', 0, 0, x'02')")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        half()
    assert db.rows("SELECT COUNT(*) FROM blobs") == [(0,)]
    db.close()


def test_tracks_of_the_first_schema_are_not_reviewed_yet(tmp_path, monkeypatch):
    monkeypatch.setattr(database, "MIGRATIONS", MIGRATIONS[:1])
    old = Database(tmp_path / "state.sqlite3")
    old.run(
        "INSERT INTO tracks (label_studio, project, task, tag, label, prompts, draft, video, start, stop, focus, "
        "anchors, follows, state, done, error, attempts, created, updated) "
        "VALUES ('u', 1, 2, 't', 'l', '[]', '', 'v', 10, 20, 10, ?, 0, 'done', 10, '', 0, 1, 1)",
        (pack_anchors({}),),
    )
    old.close()
    monkeypatch.undo()
    new = Database(tmp_path / "state.sqlite3")
    [view] = TrackTable(new).ended(5)
    assert (view.first, view.look, view.fix_next) == (10, None, None)
    new.close()
