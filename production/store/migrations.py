"""Creating a database, and bringing an older one up to date, each in one transaction."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from production.errors import (
    DatabaseExists,
    DatabaseTooNew,
    DatabaseTrouble,
    NotADatabase,
)
from production.identity import current_user
from production.store.connection import (
    APPLICATION_ID,
    explain,
    need_file,
    patiently,
    raw_connect,
    text_us,
    utc_now,
)
from production.store.views import FIXED_COLUMNS, view_statements

# MIGRATIONS[n] turns schema version n + 1 into n + 2.  schema.sql always describes the newest, also
# of what is derived and of the views, which steps need not mind.
MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE request (
        id       INTEGER PRIMARY KEY,
        manager  INTEGER NOT NULL REFERENCES manager (id),
        verb     TEXT NOT NULL,
        argument TEXT,
        user     TEXT,
        host     TEXT,
        made     TEXT,
        answered TEXT,
        done     INTEGER CHECK (done IN (0, 1)),
        answer   TEXT
    );
    CREATE INDEX request_open ON request (manager) WHERE answered IS NULL;
    """,
    # Half as many bytes for an attempt: times as numbers, checksums as bytes, and of the job's name
    # only what the other columns do not tell.
    """
    DROP INDEX run_by_status;
    CREATE INDEX run_at_error ON run (production, run) WHERE status = 'E';
    CREATE TABLE old_output AS SELECT * FROM output;
    CREATE TABLE old_attempt AS SELECT * FROM attempt;
    DROP TABLE output;
    DROP TABLE attempt;
    CREATE TABLE attempt (
        id          INTEGER PRIMARY KEY,
        production  INTEGER NOT NULL,
        run         INTEGER NOT NULL,
        attempt     INTEGER NOT NULL,
        token       INTEGER,
        manager     INTEGER NOT NULL REFERENCES manager (id),
        outcome_code INTEGER CHECK (outcome_code IN (0, 1, 2)),
        reason      TEXT,
        claimed_us  ,
        start_us    ,
        stop_us     ,
        modules     INTEGER REFERENCES modules (id),
        batch       TEXT,
        spool       TEXT,
        job         TEXT,
        host        TEXT,
        job_start_us,
        job_stop_us ,
        exit_code   INTEGER,
        cpu_ms      INTEGER,
        peak_memory INTEGER,
        olog        TEXT,
        elog        TEXT,
        outcome     TEXT GENERATED ALWAYS AS (CASE outcome_code WHEN 0 THEN 'finished'
            WHEN 1 THEN 'failed' WHEN 2 THEN 'rolled back' END) VIRTUAL,
        cpu_seconds REAL GENERATED ALWAYS AS (cpu_ms / 1000.0) VIRTUAL,
        claimed     TEXT GENERATED ALWAYS AS (CASE typeof(claimed_us) WHEN 'integer' THEN
            datetime(claimed_us / 1000000, 'unixepoch') || printf('.%06d', claimed_us % 1000000)
            ELSE claimed_us END) VIRTUAL,
        start       TEXT GENERATED ALWAYS AS (CASE typeof(start_us) WHEN 'integer' THEN
            datetime(start_us / 1000000, 'unixepoch') || printf('.%06d', start_us % 1000000)
            ELSE start_us END) VIRTUAL,
        stop        TEXT GENERATED ALWAYS AS (CASE typeof(stop_us) WHEN 'integer' THEN
            datetime(stop_us / 1000000, 'unixepoch') || printf('.%06d', stop_us % 1000000)
            ELSE stop_us END) VIRTUAL,
        job_start   TEXT GENERATED ALWAYS AS (CASE typeof(job_start_us) WHEN 'integer' THEN
            datetime(job_start_us / 1000000, 'unixepoch') || printf('.%06d', job_start_us % 1000000)
            ELSE job_start_us END) VIRTUAL,
        job_stop    TEXT GENERATED ALWAYS AS (CASE typeof(job_stop_us) WHEN 'integer' THEN
            datetime(job_stop_us / 1000000, 'unixepoch') || printf('.%06d', job_stop_us % 1000000)
            ELSE job_stop_us END) VIRTUAL,
        UNIQUE (production, run, attempt),
        FOREIGN KEY (production, run) REFERENCES run (production, run)
    );
    INSERT INTO attempt
        SELECT id, production, run, attempt,
               CAST(substr(job_name, instr(job_name, '.t') + 2) AS INTEGER),
               manager,
               CASE outcome WHEN 'finished' THEN 0 WHEN 'failed' THEN 1
                   WHEN 'rolled back' THEN 2 END,
               reason, microseconds(claimed), microseconds(start),
               microseconds(stop), modules, batch, spool, job, host, microseconds(job_start),
               microseconds(job_stop), exit_code, CAST(round(cpu_seconds * 1000) AS INTEGER),
               peak_memory, olog, elog
        FROM old_attempt;
    CREATE TABLE output (
        attempt INTEGER NOT NULL REFERENCES attempt (id),
        name    TEXT    NOT NULL,
        path    TEXT    NOT NULL,
        size    INTEGER,
        digest  BLOB,
        sha256  TEXT GENERATED ALWAYS AS (nullif(lower(hex(digest)), '')) VIRTUAL,
        PRIMARY KEY (attempt, name)
    ) WITHOUT ROWID;
    INSERT INTO output SELECT attempt, name, path, size, bytes_of_hex(sha256) FROM old_output;
    DROP TABLE old_output;
    DROP TABLE old_attempt;
    """,
    # What attempts have read.  Of those before it is not known.
    """
    ALTER TABLE attempt ADD COLUMN inputs INTEGER REFERENCES attempt (id);
    CREATE TABLE place (
        id  INTEGER PRIMARY KEY,
        url TEXT NOT NULL UNIQUE
    );
    CREATE TABLE input (
        list      INTEGER NOT NULL REFERENCES attempt (id),
        name      TEXT    NOT NULL,
        file      TEXT    NOT NULL,
        size      INTEGER NOT NULL,
        place     INTEGER REFERENCES place (id),
        kind_code INTEGER CHECK (kind_code IN (0, 1, 2, 3, 4)),
        digest    BLOB,
        kind      TEXT GENERATED ALWAYS AS (CASE kind_code WHEN 0 THEN 'sha256' WHEN 1 THEN 'sha1'
            WHEN 2 THEN 'md5' WHEN 3 THEN 'adler32' WHEN 4 THEN 'crc32' END) VIRTUAL,
        checksum  TEXT GENERATED ALWAYS AS (nullif(lower(hex(digest)), '')) VIRTUAL,
        PRIMARY KEY (list, name, file)
    ) WITHOUT ROWID;
    """,
)
# What steps may call besides SQL's own functions.
_FUNCTIONS: Mapping[str, Callable[[Any], int | str | bytes | None]] = {
    "microseconds": lambda text: None if text is None else text_us(text),
    "bytes_of_hex": lambda text: None if text is None else bytes.fromhex(text),
}

# The part of the schema that every migration makes anew, and what fills it.
_DERIVED = re.compile(r"^CREATE (TRIGGER|TABLE (unclaimed|tally)\b|VIEW claimable\b)", re.MULTILINE)
FILL = """
    INSERT INTO unclaimed SELECT DISTINCT * FROM claimable;
    INSERT INTO tally SELECT production, status, count(*) FROM run GROUP BY production, status;
"""

SCHEMA = Path(__file__).parent.parent / "schema.sql"


def statements(script: str) -> Iterator[str]:
    """The statements of an SQL script one by one.

    sqlite3's own ``executescript`` would commit the transaction that it is called in.
    """
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""
    if pending.strip():
        yield pending


def create(path: Path) -> None:
    """Make a new, empty database.

    It is built under another name and then linked into place, so that nobody ever sees half of
    it and an existing file is never touched.  Raises DatabaseExists or DatabaseTrouble.
    """
    if os.path.lexists(path):
        raise DatabaseExists(path=path)
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = raw_connect(f"{new.absolute().as_uri()}?mode=rwc")
        try:
            connection.execute("BEGIN IMMEDIATE")
            for statement in statements(SCHEMA.read_text(encoding="utf-8")):
                connection.execute(statement)
            connection.executemany(
                "INSERT INTO meta VALUES (?, ?)",
                [
                    ("uuid", secrets.token_hex(4)),
                    ("created", utc_now()),
                    ("created_by", current_user()),
                ],
            )
            connection.execute("COMMIT")
        finally:
            connection.close()
        try:
            os.link(new, path)
        except FileExistsError:
            raise DatabaseExists(path=path) from None
    except (OSError, sqlite3.Error) as error:
        what = getattr(error, "strerror", None) or str(error)
        raise DatabaseTrouble(path=path, what=f"it cannot be created ({what})") from error
    finally:
        for leftover in (new, new.with_name(f"{new.name}-journal")):
            with contextlib.suppress(OSError):
                leftover.unlink()


def migrate(path: Path, steps: Sequence[str] = MIGRATIONS) -> tuple[int, int]:
    """Bring ``path`` from its schema version to the newest, in one transaction.

    Killed at any moment it leaves the old or the new schema, never something between.
    Returns the versions before and after.
    """
    need_file(path)
    newest = 1 + len(steps)
    connection = patiently(lambda: raw_connect(f"{path.absolute().as_uri()}?mode=rw"), path)
    stopped = _give_functions(connection)
    try:
        patiently(lambda: connection.execute("BEGIN IMMEDIATE"), path)
        found = _step_by_step(connection, path, steps)
        patiently(lambda: connection.execute("COMMIT"), path)
    except sqlite3.Error as error:
        raise (*stopped, explain(error, path))[0] from error
    finally:
        connection.close()
    return found, newest


def _give_functions(connection: sqlite3.Connection) -> Sequence[BaseException]:
    """Let SQL call _FUNCTIONS; returns where what they raise is kept, such as Ctrl-C's exception.

    SQLite does not pass it on, but tells that a function has failed.
    """
    raised: list[BaseException] = []

    def given(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def call(value: Any) -> Any:
            try:
                return function(value)
            except BaseException as error:
                raised.append(error)
                raise

        return call

    for name, function in _FUNCTIONS.items():
        connection.create_function(name, 1, given(function))
    return raised


def _step_by_step(connection: sqlite3.Connection, path: Path, steps: Sequence[str]) -> int:
    """Do what is missing within a transaction; returns the version that was found."""
    newest = 1 + len(steps)
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise NotADatabase(path=path, what="it has none of its tables")
    found = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if found > newest:
        raise DatabaseTooNew(path=path, found=found, known=newest)
    if found == newest:
        return found
    productions = _drop_derived(connection)
    for step in steps[found - 1 :]:
        for statement in statements(step):
            connection.execute(statement)
    _make_derived(connection, productions)
    connection.execute(f"PRAGMA user_version = {newest}")
    return found


def _drop_derived(connection: sqlite3.Connection) -> list[tuple[str, int, list[str]]]:
    """Drop what a migration makes anew; returns what the views of productions are made from."""
    tables = re.findall(r"^CREATE TABLE (\w+)", SCHEMA.read_text(encoding="utf-8"), re.MULTILINE)
    triggers = connection.execute("SELECT name, tbl_name FROM sqlite_master WHERE type = 'trigger'")
    for name, table in triggers.fetchall():
        if table in tables:
            connection.execute(f'DROP TRIGGER "{name}"')
    for what in ("TABLE IF EXISTS unclaimed", "TABLE IF EXISTS tally", "VIEW IF EXISTS claimable"):
        connection.execute(f"DROP {what}")
    found = []
    for label, id_ in connection.execute("SELECT type || '_v' || version, id FROM productions"):
        columns = connection.execute("SELECT name FROM pragma_table_info(?)", (label,))
        found.append((label, id_, [name for (name,) in columns if name not in FIXED_COLUMNS]))
    for label, _, _ in found:
        connection.execute(f'DROP VIEW IF EXISTS "{label}"')
    return found


def _make_derived(
    connection: sqlite3.Connection, productions: Sequence[tuple[str, int, Sequence[str]]]
) -> None:
    for label, id_, outputs in productions:
        for statement in view_statements(label, id_, outputs):
            connection.execute(statement)
    for statement in statements(SCHEMA.read_text(encoding="utf-8")):
        if _DERIVED.search(statement):
            connection.execute(statement)
    for statement in statements(FILL):
        connection.execute(statement)
