"""The database file itself: can it be opened, is it whole, is it of the right age, who holds runs.

It is opened as by any reader, which rolls back what a killed process left half done; nothing else
in it changes.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Generator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from shlex import quote

from production.doctor.findings import Finding, error, note, ok, warning
from production.doctor.half import described
from production.doctor.permissions import check_permissions
from production.errors import DatabaseLocked, ProductionError
from production.identity import is_alive
from production.store.connection import (
    APPLICATION_ID,
    SCHEMA_VERSION,
    need_file,
    patiently,
    raw_connect,
)
from production.units import counted

_OLDEST = (3, 35, 0)  # RETURNING; sqlite.org/lang_returning.html
_LONGEST_CHECK = 20.0  # seconds; meanwhile nobody else can write
_STEPS = 10_000  # of SQLite's virtual machine between two looks at the clock
_BUSY = 10.0  # seconds that the database may be locked
_MANY_FREE = 0.25  # the part of the file that may be empty
_SMALL = 10_000_000  # bytes; not worth a word
_SKEW = 300.0  # seconds that clocks of two hosts may differ by


def check_sqlite() -> Iterator[Finding]:
    """The library that this Python has."""
    version = sqlite3.sqlite_version
    if sqlite3.sqlite_version_info < _OLDEST:
        needed = ".".join(map(str, _OLDEST))
        what = f"SQLite {version} is too old, {needed} is needed"
        yield error("sqlite", what, "Use a newer Python, which brings its own SQLite")
    else:
        yield ok("sqlite", f"SQLite {version}")


def check_database(path: Path) -> Iterator[Finding]:
    """All about the file; raises OSError."""
    try:
        need_file(path)
    except ProductionError as problem:
        yield error("database", str(problem), "Name the right file with --database=DB")
        return
    file = Path(os.path.realpath(path))
    yield from check_permissions(file)
    yield from _leftovers(file)
    if _is_wal(file):
        what = f"{path} is in WAL mode, which loses data on network filesystems"
        remedy = f'Stop all managers, then: sqlite3 {path} "PRAGMA journal_mode=DELETE"'
        yield error("journal", what, remedy)
        return  # whoever opens and closes it may write it
    try:
        connection = patiently(
            lambda: raw_connect(f"{file.as_uri()}?mode=rw"), path, patience=_BUSY
        )
    except DatabaseLocked:
        yield _locked(path)
        return
    except ProductionError as problem:
        yield error("database", str(problem), "See the other findings")
        return
    with contextlib.closing(connection):
        try:
            # Nobody is kept waiting here but who has asked.
            connection.execute(f"PRAGMA busy_timeout = {round(_BUSY * 1000)}")
            ours = yield from _contents(connection, path)
            if ours:
                yield from _soundness(connection, path)
                yield from _size(connection, path)
                yield from _holders(connection, path)
        except sqlite3.Error as problem:
            yield _unreadable(problem, path)


def _leftovers(file: Path) -> Iterator[Finding]:
    """Files beside the database that belong to it."""
    for suffix in ("-wal", "-shm"):
        left = file.with_name(file.name + suffix)
        if left.exists():
            what = f"{left} is there: somebody has used the WAL mode, which managers refuse"
            remedy = f'Do not remove it. When nobody works: sqlite3 {file} "PRAGMA journal_mode'
            yield warning("journal", what, f'{remedy}=DELETE"')
    journal = file.with_name(f"{file.name}-journal")
    with contextlib.suppress(FileNotFoundError):
        status = journal.stat()
        if status.st_size:
            age = time.time() - status.st_mtime
            what = f"{journal} is there ({status.st_size} bytes, {max(age, 0):.0f} s old)"
            who = "somebody writes at this moment, or a process was killed while it wrote"
            remedy = "Never remove it: the next who opens the database puts things right with it"
            yield note("journal", f"{what}: {who}", remedy)


def _is_wal(file: Path) -> bool:
    """From the file's header (fileformat2.html, offset 18), for to open it would write to it.

    No connection of this process is open, which would lose its locks by this.
    """
    try:
        with file.open("rb") as header:
            return b"\x02" in header.read(20)[18:20]
    except OSError:
        return False


def _contents(connection: sqlite3.Connection, path: Path) -> Generator[Finding, None, bool]:
    """Journal mode and schema; whether it is a database of ours that can be read further."""

    def pragma(name: str) -> object:
        return patiently(
            lambda: connection.execute(f"PRAGMA {name}").fetchall()[0][0], path, patience=_BUSY
        )

    try:
        application, version = pragma("application_id"), pragma("user_version")
        mode = pragma("journal_mode")
    except DatabaseLocked:
        yield _locked(path)
        return False
    except ProductionError as problem:
        yield error("database", str(problem), "Restore a backup, or name the right file")
        return False
    yield ok("journal", f"rollback journal ({mode})")
    if application != APPLICATION_ID:
        what = f"{path} is no production database: it has none of its tables"
        remedy = (
            f"Name the right file, or take an old one over: production import {quote(str(path))}"
        )
        yield error("schema", what, remedy)
        return False
    if version == SCHEMA_VERSION:
        yield ok("schema", f"schema version {version}")
        return True
    what = f"{path} has schema version {version}, this program knows {SCHEMA_VERSION}"
    older = isinstance(version, int) and version < SCHEMA_VERSION
    remedy = (
        f"When nobody works with an older program: production migrate --database={quote(str(path))}"
        if older
        else "Use the newer program that your colleagues use"
    )
    yield error("schema", what, remedy)
    return False


def _soundness(connection: sqlite3.Connection, path: Path) -> Iterator[Finding]:
    deadline = time.monotonic() + _LONGEST_CHECK
    connection.set_progress_handler(lambda: time.monotonic() > deadline, _STEPS)
    try:
        faults = [row[0] for row in connection.execute("PRAGMA quick_check(3)").fetchall()]
    except sqlite3.OperationalError as problem:
        if getattr(problem, "sqlite_errorcode", 0) != sqlite3.SQLITE_INTERRUPT:
            raise
        if time.monotonic() <= deadline:  # SQLite forgets what is raised in its callbacks
            raise KeyboardInterrupt from None
        what = f"quick_check of {path} was stopped after {_LONGEST_CHECK:.0f} s: nobody can write"
        remedy = f'When no manager works: sqlite3 {path} "PRAGMA integrity_check"'
        yield note("quick_check", f"{what} meanwhile", remedy)
        return
    finally:
        connection.set_progress_handler(None, 0)
    if faults == ["ok"]:
        yield ok("quick_check", "the file is sound")
    else:
        yield _damaged("; ".join(map(str, faults)), path)


def _size(connection: sqlite3.Connection, path: Path) -> Iterator[Finding]:
    (pages, free, size) = (
        int(connection.execute(f"PRAGMA {name}").fetchall()[0][0])
        for name in ("page_count", "freelist_count", "page_size")
    )
    what = f"{pages * size / 1e6:.1f} MB"
    if pages * size > _SMALL and free > _MANY_FREE * pages:
        part = f"{free / pages:.0%} of it empty"
        yield note("size", f"{what}, {part}", f"production vacuum --database={quote(str(path))}")
    else:
        yield ok("size", what)


def _holders(connection: sqlite3.Connection, path: Path) -> Iterator[Finding]:
    """Managers that hold runs, and look dead from here."""
    rows = connection.execute(
        """
        SELECT m.*, count(*) AS runs FROM run r JOIN manager m ON m.id = r.manager
        WHERE r.manager IS NOT NULL GROUP BY m.id
        """
    ).fetchall()
    dead = 0
    for row in rows:
        who = f"manager {row['id']} ({row['user']} on {row['host']})"
        alive = False if row["stopped"] else is_alive(row["boot"], row["pid"], row["pid_start"])
        silent = _seconds_since(row["beat_at"])
        if alive is False:
            why = "has ended"
        elif alive is None and silent is not None and silent > row["lease"] + _SKEW:
            why = f"has given no sign of life since {row['beat_at'][:19]} UTC"
        else:
            continue
        dead += 1
        what = f"{who} {why}, and still holds {counted(row['runs'], 'run')}"
        remedy = "The next manager of that production takes them over; or: production recover"
        yield note("managers", what, f"{remedy} --database={quote(str(path))}")
    if not dead:
        yield ok("managers", f"{counted(len(rows), 'manager')} with runs, none of them dead")


def _seconds_since(text: str | None) -> float | None:
    try:
        then = datetime.fromisoformat(text or "").replace(tzinfo=UTC)
    except ValueError:
        return None
    return time.time() - then.timestamp()


def _damaged(what: str, path: Path) -> Finding:
    remedy = f"Stop all managers, keep a copy, then restore a backup, or: sqlite3 {path} .recover"
    return error("quick_check", f"{path} is damaged: {what}", remedy)


def _locked(path: Path) -> Finding:
    what = f"{path} was locked for {_BUSY:g} s"
    return warning(
        "database", what, "Try again; close sqlite3 sessions that have a transaction open"
    )


def _unreadable(problem: sqlite3.Error, path: Path) -> Finding:
    code = getattr(problem, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_BUSY:
        return _locked(path)
    if code == sqlite3.SQLITE_CORRUPT:
        return _damaged(str(problem), path)
    what = f"{path} cannot be read: {described(problem)}"
    return error("database", what, "See the other findings; restore a backup if nothing else helps")
