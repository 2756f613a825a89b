"""Creating a database, and bringing an older one up to date, each in one transaction."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

from production.errors import (
    DatabaseExists,
    DatabaseTooNew,
    DatabaseTrouble,
    NotADatabase,
)
from production.store.connection import (
    APPLICATION_ID,
    explain,
    need_file,
    patiently,
    raw_connect,
    utc_now,
)
from production.store.identity import current_user

# MIGRATIONS[n] turns schema version n + 1 into n + 2.  schema.sql always describes the newest, also
# of what is derived, which steps need not mind.
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
)

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
            for statement in statements(SCHEMA.read_text()):
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
    try:
        patiently(lambda: connection.execute("BEGIN IMMEDIATE"), path)
        found = _step_by_step(connection, path, steps)
        patiently(lambda: connection.execute("COMMIT"), path)
    except sqlite3.Error as error:
        raise explain(error, path) from error
    finally:
        connection.close()
    return found, newest


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
    _drop_derived(connection)
    for step in steps[found - 1 :]:
        for statement in statements(step):
            connection.execute(statement)
    _make_derived(connection)
    connection.execute(f"PRAGMA user_version = {newest}")
    return found


def _drop_derived(connection: sqlite3.Connection) -> None:
    """Drop what a migration makes anew; the views of productions keep their triggers."""
    tables = re.findall(r"^CREATE TABLE (\w+)", SCHEMA.read_text(), re.MULTILINE)
    triggers = connection.execute("SELECT name, tbl_name FROM sqlite_master WHERE type = 'trigger'")
    for name, table in triggers.fetchall():
        if table in tables:
            connection.execute(f'DROP TRIGGER "{name}"')
    for what in ("TABLE IF EXISTS unclaimed", "TABLE IF EXISTS tally", "VIEW IF EXISTS claimable"):
        connection.execute(f"DROP {what}")


def _make_derived(connection: sqlite3.Connection) -> None:
    for statement in statements(SCHEMA.read_text()):
        if _DERIVED.search(statement):
            connection.execute(statement)
    for statement in statements(FILL):
        connection.execute(statement)
