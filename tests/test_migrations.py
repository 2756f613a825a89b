"""Databases are made and brought up to date as a whole or not at all."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from bookkeeping import (
    PROJECT,
    TABLES,
    Bookkeeping,
    answer,
    bookkeeping,
    processes,
    python,
    says,
    tell,
)

from production.errors import (
    DatabaseExists,
    DatabaseMissing,
    DatabaseTooNew,
    DatabaseTrouble,
    NotADatabase,
)
from production.store import migrations, productions, trace
from production.store.connection import APPLICATION_ID, SCHEMA_VERSION, Database, utc_text
from production.store.migrations import MIGRATIONS, SCHEMA, create, migrate, statements
from production.store.views import view_statements

# As a later program would bring them: new columns, tables, triggers, and changed contents.
NEW_STEPS = (
    """
    ALTER TABLE datasets ADD COLUMN beam TEXT;  -- who knows; why not
    CREATE TABLE note (run INTEGER, text TEXT DEFAULT 'a;b');
    CREATE TRIGGER note_added AFTER INSERT ON note
    BEGIN
        UPDATE datasets SET beam = NEW.text WHERE run = NEW.run;
        SELECT 1;
    END;
    """,
    """
    INSERT INTO note SELECT run, 'muons' FROM datasets WHERE run % 2;
    CREATE INDEX note_by_run ON note (run);
    """,
)
STEPS = (*MIGRATIONS, *NEW_STEPS)
NOW, NEXT, LATEST = SCHEMA_VERSION, SCHEMA_VERSION + 1, SCHEMA_VERSION + 2


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Bookkeeping]:
    with bookkeeping(tmp_path) as books:
        books.label(range(3000))
        yield books


def schema(path: Path) -> list[tuple[object, ...]]:
    """All that defines a database besides its contents."""
    with closing(sqlite3.connect(path)) as session:
        return [
            *session.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY 1, 2"),
            *session.execute("PRAGMA user_version"),
            *session.execute("PRAGMA application_id"),
        ]


# --------------------------------------------------------------------------- making one


def test_a_new_database_is_what_the_schema_says(tmp_path: Path) -> None:
    path = tmp_path / "production.db"
    create(path)
    by_script = tmp_path / "script.db"
    with closing(sqlite3.connect(by_script)) as session:
        session.executescript((PROJECT / "schema.sql").read_text())
    assert schema(path) == schema(by_script)
    assert {row[1] for row in schema(path) if row[0] == "table"} == set(TABLES)
    assert {*tmp_path.iterdir()} == {path, by_script}
    with Database(path) as db:
        known = {row["key"]: row["value"] for row in db.rows("SELECT * FROM meta")}
        assert known.keys() == {"uuid", "created", "created_by"}
        assert db.rows("PRAGMA journal_mode")[0][0] == "delete"
        filled = {table for table in TABLES if db.rows(f"SELECT 1 FROM {table}")}
        assert filled == {"meta", "lawful_change"}


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="the sqlite3 shell is not installed")
def test_the_schema_can_be_read_by_the_shell(tmp_path: Path) -> None:
    create(tmp_path / "production.db")
    by_shell = tmp_path / "shell.db"
    subprocess.run(["sqlite3", by_shell], stdin=SCHEMA.open(), check=True, timeout=60)
    assert schema(by_shell) == schema(tmp_path / "production.db")


def test_versions_agree(tmp_path: Path) -> None:
    create(tmp_path / "production.db")
    version, application = schema(tmp_path / "production.db")[-2:]
    assert version == (SCHEMA_VERSION,) == (1 + len(MIGRATIONS),)
    assert application == (APPLICATION_ID,)
    assert APPLICATION_ID.to_bytes(4, "big") == b"PRMG"
    assert SCHEMA.samefile(PROJECT / "schema.sql")


def test_every_database_is_told_apart(tmp_path: Path) -> None:
    create(tmp_path / "one.db")
    create(tmp_path / "two.db")
    seen = set()
    for name in ("one.db", "two.db"):
        with Database(tmp_path / name) as db:
            seen.add(db.rows("SELECT value FROM meta WHERE key = 'uuid'")[0][0])
    assert len(seen) == 2


def test_directories_are_made_where_they_are_missing(tmp_path: Path) -> None:
    path = tmp_path / "home" / "data" / "production.db"
    create(path)
    assert [*path.parent.iterdir()] == [path]


def test_what_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "production.db"
    link = tmp_path / "link.db"
    link.symlink_to(tmp_path / "nowhere.db")
    path.write_text("precious")
    for taken in (path, link, tmp_path):
        with pytest.raises(DatabaseExists, match="exists already; it was left as it is"):
            create(taken)
    assert path.read_text() == "precious"
    assert sorted(tmp_path.iterdir()) == [link, path]


def test_where_nothing_can_be_made_it_is_said(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for path in (file / "production.db", tmp_path / ("x" * 300)):
        with pytest.raises(DatabaseTrouble, match=r"it cannot be created \("):
            create(path)
    assert [*tmp_path.iterdir()] == [file]


# A process that is killed at a certain step of SQLite's work, or never.
KILLED = """
    import os, signal, sys
    from pathlib import Path
    from production.errors import DatabaseExists
    from production.store import migrations

    path, last = Path(sys.argv[1]), int(sys.argv[2])
    steps = 0

    def step():
        global steps
        steps += 1
        if steps == last:
            os.kill(os.getpid(), signal.SIGKILL)

    connect = migrations.raw_connect

    def connect_and_count(uri):
        connection = connect(uri)
        connection.execute("PRAGMA cache_size = 5")  # so that much is written before the end
        connection.set_progress_handler(step, 10)
        return connection

    migrations.raw_connect = connect_and_count
    print("ready", flush=True)
    sys.stdin.readline()
"""
CREATOR = f"""{KILLED}
    try:
        migrations.create(path)
        print("made", steps)
    except DatabaseExists:
        print("exists", steps)
"""
MIGRATOR = f"""{KILLED}
    print(*migrations.migrate(path, {STEPS!r}), steps)
"""
MIGRATOR_NOW = f"""{KILLED}
    print(*migrations.migrate(path), steps)
"""


def started(code: str, path: Path, last: int = 0) -> subprocess.Popen[str]:
    process = python(code, path, last)
    says(process, "ready")
    return process


@pytest.mark.slow
def test_of_several_at_once_one_makes_it(tmp_path: Path) -> None:
    path = tmp_path / "production.db"
    many = [started(CREATOR, path) for _ in range(6)]
    with processes(many):
        for process in many:
            tell(process)
        assert sorted(answer(process).split()[0] for process in many) == ["exists"] * 5 + ["made"]
    assert [*tmp_path.iterdir()] == [path]
    Database(path).close()


@pytest.mark.slow
def test_killed_while_it_is_made_there_is_none(tmp_path: Path) -> None:
    path = tmp_path / "production.db"
    for last in (1, 20, 100, 0):
        process = started(CREATOR, path, last)
        with processes([process]):
            tell(process)
            if last:
                assert process.wait(timeout=60) == -signal.SIGKILL
                assert not path.exists()
            else:
                made, steps = answer(process).split()
    assert made == "made"
    assert int(steps) > 100  # so each of these kills came before the end
    Database(path).close()


# --------------------------------------------------------------------------- migrating one


def migrated(books: Bookkeeping) -> None:
    """What the steps make of the database."""
    assert books.rows("PRAGMA user_version") == [(LATEST,)]
    assert books.rows("SELECT beam, count(*) FROM datasets GROUP BY beam") == [
        (None, 1500),
        ("muons", 1500),
    ]
    assert books.cell("SELECT count(*) FROM note") == 1500


def test_all_missing_steps_are_done(books: Bookkeeping) -> None:
    assert migrate(books.path, STEPS) == (NOW, LATEST)
    migrated(books)
    assert migrate(books.path, STEPS) == (LATEST, LATEST)
    migrated(books)


def test_only_missing_steps_are_done(books: Bookkeeping) -> None:
    assert migrate(books.path, STEPS[:-1]) == (NOW, NEXT)
    assert books.cell("SELECT count(*) FROM note") == 0
    assert migrate(books.path, STEPS) == (NEXT, LATEST)
    migrated(books)


def plain(sql: object) -> str:
    """A definition without its comments and line breaks."""
    return " ".join(re.sub(r"--.*", "", str(sql)).split()).replace("( ", "(").replace(" )", ")")


def test_the_oldest_schema_becomes_that_of_a_new_database(tmp_path: Path) -> None:
    old, new = tmp_path / "old.db", tmp_path / "new.db"
    with closing(sqlite3.connect(old)) as session:
        session.executescript((PROJECT / "tests" / "data" / "schema_v1.sql").read_text())
    assert migrate(old) == (1, SCHEMA_VERSION)
    create(new)
    assert [[*map(plain, row)] for row in schema(old)] == [
        [*map(plain, row)] for row in schema(new)
    ]


# What somebody may have asked an older database, and the rows that it has.
QUESTIONS = (
    "SELECT * FROM alcapana_v1",
    "SELECT id, production, run, attempt, manager, outcome, reason, claimed, start, stop, modules, "
    "batch, job, spool, host, job_start, job_stop, exit_code, cpu_seconds, peak_memory, olog, elog "
    "FROM attempt",
    "SELECT attempt, name, path, size, sha256 FROM output",
)
ROWS = """
    INSERT INTO datasets (run, dataset, quality) VALUES (1, 'A', 'gold'), (2, 'A', 'gold');
    INSERT INTO productions (id, type, version, software) VALUES (1, 'alcapana', 1, 'v5');
    INSERT INTO manager (id, user) VALUES (1, 'anna');
    INSERT INTO modules VALUES (1, 'ab', 'PlotMass');
    INSERT INTO run VALUES (1, 1, 'F', 2, 5, 0, NULL, NULL), (1, 2, 'R', 1, 4, 0, 1, NULL),
                           (1, 3, 'C', 1, 1, 0, 1, NULL), (1, 4, 'F', 1, 0, 0, NULL, NULL);
    INSERT INTO attempt VALUES
        (1, 1, 1, 1, 1, 'failed', 'crashed', '2026-01-31 23:59:58.999999',
         '2026-01-31 23:59:59.000000', '2026-02-01 00:00:00.000001', 1, 'slurm',
         'alcapana_v1.1.a1.t2.0123abcd', '17_1', '/spool/1', 'node1',
         '2026-01-31 23:59:59.100000', '2026-02-01 00:00:00.000000', 139, 0.5, 4096, '/o', '/e'),
        (2, 1, 1, 2, 1, 'finished', NULL, '2026-02-01 00:00:00.000001', NULL, NULL, NULL, 'slurm',
         'alcapana_v1.1.a2.t5.0123abcd', NULL, '/spool/2', NULL, NULL, NULL, 0, NULL, NULL,
         NULL, NULL),
        (3, 1, 2, 1, 1, NULL, NULL, '1969-12-31 23:59:59.500000', NULL, NULL, NULL, 'slurm',
         'alcapana_v1.2.a1.t3.0123abcd', '18', '/spool/3', NULL, NULL, NULL, NULL, NULL, NULL,
         NULL, NULL),
        (4, 1, 3, 1, 1, NULL, NULL, '2026-02-01 00:00:00.000002', NULL, NULL, NULL, NULL, NULL,
         NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
        (5, 1, 4, 1, 1, 'finished', NULL, NULL, '2014-07-16 10:09', 'last summer', NULL, NULL,
         NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '/old.out', NULL);
    INSERT INTO output VALUES (2, 'tree', '/tree1', 17, '00ff'), (5, 'tree', '/tree4', NULL, NULL);
"""


def test_what_an_older_database_held_reads_the_same_afterwards(tmp_path: Path) -> None:
    old = tmp_path / "old.db"
    with closing(sqlite3.connect(old)) as session:
        session.executescript((PROJECT / "tests" / "data" / "schema_v2.sql").read_text())
        session.executescript(ROWS)
        for statement in view_statements("alcapana_v1", 1, ["tree"]):
            session.execute(statement)
        before = [session.execute(question).fetchall() for question in QUESTIONS]
        assert before[0] and before[2]
    assert migrate(old) == (2, SCHEMA_VERSION)
    with closing(sqlite3.connect(old)) as session:
        assert [session.execute(question).fetchall() for question in QUESTIONS] == before
        tokens = session.execute("SELECT token FROM attempt ORDER BY id").fetchall()
        assert tokens == [(2,), (5,), (3,), (None,), (None,)]
        assert session.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert not session.execute("PRAGMA foreign_key_check").fetchall()
        session.execute("UPDATE alcapana_v1 SET status = 'N' WHERE run = 3")
        ((stop,),) = session.execute("SELECT stop FROM attempt WHERE run = 3")
        assert utc_text(time.time() - 60) < stop < utc_text(time.time() + 60)


@pytest.fixture
def third(tmp_path: Path) -> Path:
    """A database of version 3 with two thousand finished runs."""
    path = tmp_path / "third.db"
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000) "
    filled = f"""
        INSERT INTO productions (id, type, version, software) VALUES (1, 'alcapana', 1, 'v5');
        INSERT INTO manager (id, user) VALUES (1, 'anna');
        {numbers} INSERT INTO run (production, run, status, attempt) SELECT 1, i, 'F', 1 FROM n;
        {numbers} INSERT INTO attempt (production, run, attempt, manager, outcome_code, claimed_us)
            SELECT 1, i, 1, 1, 0, i * 1000000 FROM n;
        {numbers} INSERT INTO output (attempt, name, path, size, digest)
            SELECT i, 'tree', '/tree' || i, i, zeroblob(32) FROM n;
    """
    with closing(sqlite3.connect(path)) as session:
        session.executescript((PROJECT / "tests" / "data" / "schema_v3.sql").read_text())
        session.executescript(f"BEGIN; {filled} COMMIT;")
        for statement in view_statements("alcapana_v1", 1, ["tree"]):
            session.execute(statement)
    return path


def answers(path: Path) -> list[object]:
    with closing(sqlite3.connect(path)) as session:
        return [session.execute(question).fetchall() for question in QUESTIONS]


def test_of_attempts_before_the_fourth_version_no_inputs_are_known(third: Path) -> None:
    before = answers(third)
    assert migrate(third) == (3, SCHEMA_VERSION)
    assert answers(third) == before
    with Database(third) as db:
        production = productions.find(db, "alcapana")
        made = trace.of_run(db, production, 77)
        assert (made.inputs, len(made.outputs)) == ((), 1)
        assert db.rows("PRAGMA integrity_check")[0][0] == "ok"
        assert not db.rows("PRAGMA foreign_key_check")


@pytest.mark.slow
@pytest.mark.parametrize("call", ["create", "migrate"])
def test_the_locale_does_not_matter(third: Path, call: str) -> None:
    path = third if call == "migrate" else third.with_name("new.db")
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    code = f"from production.store import migrations as m; m.{call}(m.Path({str(path)!r}))"
    subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(PROJECT), **ascii_only},
        check=True,
        timeout=120,
    )
    assert schema(path)[-2] == (SCHEMA_VERSION,)


def test_killed_on_the_way_to_the_fourth_version_it_is_the_third(third: Path) -> None:
    before = schema(third), answers(third)
    for last in (1, 100, 1000, 3000):
        process = started(MIGRATOR_NOW, third, last)
        with processes([process]):
            tell(process)
            assert process.wait(timeout=60) == -signal.SIGKILL
        assert (schema(third), answers(third)) == before
    process = started(MIGRATOR_NOW, third)
    with processes([process]):
        tell(process)
        found, newest, steps = answer(process).split()
    assert (int(found), int(newest)) == (3, SCHEMA_VERSION)
    assert int(steps) > 3000  # so each of these kills came before the end
    assert answers(third) == before[1]


def test_what_is_up_to_date_stays_as_it_is(books: Bookkeeping) -> None:
    before = schema(books.path), books.dump()
    assert migrate(books.path) == (SCHEMA_VERSION, SCHEMA_VERSION)
    assert (schema(books.path), books.dump()) == before


def test_a_step_that_fails_leaves_the_old(books: Bookkeeping) -> None:
    before = schema(books.path), books.dump()
    broken = (*STEPS[:-1], STEPS[-1] + "INSERT INTO nowhere VALUES (1);")
    with pytest.raises(sqlite3.OperationalError, match="no such table: nowhere"):
        migrate(books.path, broken)
    assert (schema(books.path), books.dump()) == before
    assert migrate(books.path, STEPS) == (NOW, LATEST)


def test_ctrl_c_in_the_middle_of_a_statement_leaves_the_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "old.db"
    with closing(sqlite3.connect(old)) as session:
        session.executescript((PROJECT / "tests" / "data" / "schema_v2.sql").read_text())
        session.executescript(ROWS)
    before = schema(old)

    def interrupted(_: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(migrations, "text_us", interrupted)
    with pytest.raises(KeyboardInterrupt):
        migrate(old)
    assert schema(old) == before


def test_what_is_no_database_of_ours_is_left_as_it_is(tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    with closing(sqlite3.connect(other)) as session:
        session.execute("CREATE TABLE datasets (run)")
    before = other.read_bytes()
    with pytest.raises(NotADatabase):
        migrate(other, STEPS)
    assert other.read_bytes() == before
    with pytest.raises(DatabaseMissing):
        migrate(tmp_path / "missing.db", STEPS)
    with pytest.raises(NotADatabase):
        migrate(tmp_path, STEPS)
    assert [*tmp_path.iterdir()] == [other]


def test_the_schema_of_a_newer_program_is_left_as_it_is(books: Bookkeeping) -> None:
    migrate(books.path, STEPS)
    before = schema(books.path)
    with pytest.raises(DatabaseTooNew, match=rf"version {LATEST}, this program knows .* {NEXT}"):
        migrate(books.path, STEPS[:-1])
    assert schema(books.path) == before
    with pytest.raises(DatabaseTooNew):
        Database(books.path)


@pytest.mark.slow
def test_killed_in_between_it_leaves_the_old(books: Bookkeeping) -> None:
    before = schema(books.path), books.dump()
    journals = 0
    for last in (1, 30, 100, 1000, 3000, 6000):
        process = started(MIGRATOR, books.path, last)
        with processes([process]):
            tell(process)
            assert process.wait(timeout=60) == -signal.SIGKILL
        journals += books.path.with_name("production.db-journal").exists()
        assert (schema(books.path), books.dump()) == before
    process = started(MIGRATOR, books.path)
    with processes([process]):
        tell(process)
        found, newest, steps = answer(process).split()
    assert (found, newest) == (str(NOW), str(LATEST))
    assert int(steps) > 6000  # so each of these kills came before the end
    assert journals, "none of the kills left a journal to be played back"
    migrated(books)


@pytest.mark.slow
def test_two_at_once_do_every_step_once(books: Bookkeeping) -> None:
    both = [started(MIGRATOR, books.path) for _ in range(2)]
    with processes(both):
        for process in both:
            tell(process)
        answers = sorted(answer(process).rsplit(" ", 1)[0] for process in both)
    assert answers == [f"{NOW} {LATEST}", f"{LATEST} {LATEST}"]
    migrated(books)


# --------------------------------------------------------------------------- splitting scripts


def test_scripts_are_split_into_their_statements() -> None:
    script = NEW_STEPS[0] + NEW_STEPS[1]
    found = [" ".join(statement.split()) for statement in statements(script)]
    assert [statement.removeprefix("-- who knows; why not ")[:12] for statement in found] == [
        "ALTER TABLE ",
        "CREATE TABLE",
        "CREATE TRIGG",
        "INSERT INTO ",
        "CREATE INDEX",
    ]


def test_nothing_of_the_schema_is_left_out() -> None:
    text = SCHEMA.read_text()
    assert "".join(statements(text)) == text


def test_a_statement_without_its_semicolon_is_not_forgotten() -> None:
    assert [*statements("SELECT 1;\nSELECT 2\n")] == ["SELECT 1;\n", "SELECT 2\n"]
    assert [*statements("SELECT 1;\n\n")] == ["SELECT 1;\n"]
