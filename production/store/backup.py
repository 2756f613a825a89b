"""Copies of the database: taken while managers work, and made into a database again.

A copy is made within one read transaction.  SQLite's way of copying a few pages at a time without
one begins anew whenever somebody writes (sqlite.org/c3ref/backup_finish.html), which with managers
at work may be for ever.  Who wants to write waits until the pages are read: 0.1 s for 80 MB on a
local disk.
"""

from __future__ import annotations

import filecmp
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from production.errors import (
    BackupUnusable,
    DatabaseExists,
    DatabaseTrouble,
    FileExists,
    FileUnwritable,
)
from production.store import text
from production.store.connection import APPLICATION_ID, SCHEMA_VERSION, Database, raw_connect
from production.store.newfile import new_file

PAGES = 2000  # copied between two looks at the progress and at Ctrl-C

Progress = Callable[[int], None]  # is told how many bytes are done


def size(db: Database) -> int:
    """Bytes of the database's file."""
    row = db.row("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size")
    return int(row[0]) if row else 0


def copy(db: Database, path: Path, *, replace: bool, progress: Progress = lambda _: None) -> None:
    """Make ``path`` a checked copy of the database as it is at one moment.

    Raises FileExists, FileUnwritable, and DatabaseTrouble when the database is damaged.
    """
    with new_file(path, replace=replace) as new, _writing(path):
        _copy(db, new, progress)


def write_text(
    db: Database, path: Path, *, replace: bool, progress: Progress = lambda _: None
) -> bool:
    """The same as text; False when ``path`` has that text already, and was left alone."""
    if not replace and os.path.lexists(path):
        raise FileExists(path=path)
    with _scratch() as directory:
        plain, new_text = directory / "copy.db", directory / "copy.sql"
        _copy(db, plain, progress)  # so that nobody waits for the text
        with (
            closing(sqlite3.connect(plain)) as source,
            new_text.open("w", encoding="utf-8", newline="\n") as out,
        ):
            out.writelines(text.dump(source))
        if _is_same(path, new_text):
            return False
        with new_file(path, replace=replace) as new:
            shutil.copyfile(new_text, new)
        return True


@contextmanager
def _scratch() -> Iterator[Path]:
    where = "the directory for temporary files"
    try:
        where = tempfile.gettempdir()
        with tempfile.TemporaryDirectory(prefix="production-") as directory:
            yield Path(directory)
    except (OSError, sqlite3.DatabaseError) as error:
        raise _unwritable(f"{where} ($TMPDIR names another)", error) from None


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, sqlite3.DatabaseError) as error:
        raise _unwritable(path, error) from None


def _unwritable(where: object, error: Exception) -> FileUnwritable:
    return FileUnwritable(path=where, what=getattr(error, "strerror", None) or error)


def _is_same(path: Path, new_text: Path) -> bool:
    try:
        return path.is_file() and filecmp.cmp(path, new_text, shallow=False)
    except OSError:  # what cannot be read is replaced
        return False


def _copy(db: Database, new: Path, progress: Progress) -> None:
    """Raises DatabaseTrouble for the database, OSError and DatabaseError for the copy."""
    try:
        with closing(_fresh(new)) as target:
            with db.read() as source:
                _copy_pages(source, target, progress)
            trouble = _damage(target)
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF not in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
            raise
        trouble = str(error)
    if trouble:
        raise DatabaseTrouble(path=db.path, what=f"it is damaged ({trouble})")


def _fresh(new: Path) -> sqlite3.Connection:
    """A new file needs no journal, and is brought to the disk at the end."""
    new.touch()  # where that is impossible, SQLite does not tell why
    target = sqlite3.connect(new, isolation_level=None)
    target.execute("PRAGMA journal_mode = OFF")
    target.execute("PRAGMA synchronous = OFF")
    return target


def _copy_pages(source: sqlite3.Connection, target: sqlite3.Connection, progress: Progress) -> None:
    length = source.execute("PRAGMA page_size").fetchone()[0]

    def done(_: int, remaining: int, total: int) -> None:
        progress((total - remaining) * length)

    source.backup(target, pages=PAGES, progress=done)


def _damage(connection: sqlite3.Connection) -> str:
    """What is wrong with a database; "" when nothing is."""
    found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    return "" if found == "ok" else str(found)


# --------------------------------------------------------------------------- the way back


def restore(backup: Path, path: Path, progress: Progress = lambda _: None) -> int:
    """Make a new database ``path`` of a copy or a text; returns its schema version.

    Raises BackupUnusable, DatabaseExists or FileUnwritable.
    """
    with _explaining(backup, path):
        as_text = is_text(backup)
    with new_file(path, exists=DatabaseExists) as new, _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(_fresh(new)) as target, _explaining(backup, path):
            if as_text:
                with backup.open(encoding="utf-8", newline="") as lines:
                    text.load(lines, target, progress)
            else:
                uri = f"{backup.absolute().as_uri()}?mode=ro"
                with closing(raw_connect(uri)) as source:
                    _copy_pages(source, target, progress)
            return _check(target)


# What SQLite says of the file that it writes.
_UNWRITABLE = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE)


@contextmanager
def _explaining(backup: Path, path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, ValueError, OSError) as error:
        if getattr(error, "sqlite_errorcode", None) in _UNWRITABLE:
            raise _unwritable(path, error) from None
        what = getattr(error, "strerror", None) or error
        raise BackupUnusable(path=backup, what=what) from None


def is_text(backup: Path) -> bool:
    """Whether a file is a text that ``write_text`` has made; raises OSError."""
    with backup.open("rb") as file:
        return file.read(len(text.HEADER)) == text.HEADER.encode()


def _check(target: sqlite3.Connection) -> int:
    """The schema version of what was restored; ValueError says what is wrong with it."""
    application = target.execute("PRAGMA application_id").fetchone()[0]
    version = int(target.execute("PRAGMA user_version").fetchone()[0])
    if application != APPLICATION_ID:
        raise ValueError("it is no copy of a production database")
    if version > SCHEMA_VERSION:
        raise ValueError(f"it has schema version {version}, this program knows {SCHEMA_VERSION}")
    if trouble := _damage(target):
        raise ValueError(f"it is damaged ({trouble})")
    if target.execute("PRAGMA foreign_key_check").fetchone():
        raise ValueError("it is damaged (rows that others refer to are not there)")
    return version
