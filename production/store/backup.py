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

from production.errors import BackupUnusable, DatabaseExists, DatabaseTrouble, FileUnwritable
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

    Raises DatabaseExists, FileUnwritable, and DatabaseTrouble when the database is damaged.
    """
    with new_file(path, replace=replace) as new:
        _copy(db, new, path, progress)


def write_text(
    db: Database, path: Path, *, replace: bool, progress: Progress = lambda _: None
) -> bool:
    """The same as text; False when ``path`` has that text already, and was left alone."""
    if not replace and os.path.lexists(path):
        raise DatabaseExists(path=path)
    try:
        with tempfile.TemporaryDirectory(prefix="production-") as directory:
            plain, new_text = Path(directory, "copy.db"), Path(directory, "copy.sql")
            _copy(db, plain, path, progress)  # so that nobody waits for the text
            with closing(sqlite3.connect(plain)) as source, new_text.open("w") as out:
                out.writelines(text.dump(source))
            if path.is_file() and filecmp.cmp(path, new_text, shallow=False):
                return False
            with new_file(path, replace=replace) as new:
                shutil.copyfile(new_text, new)
            return True
    except OSError as error:
        raise FileUnwritable(path=path, what=error.strerror or error) from None


def _copy(db: Database, new: Path, path: Path, progress: Progress) -> None:
    try:
        with closing(sqlite3.connect(new, isolation_level=None)) as target:
            _hasten(target)
            with db.read() as source:
                _copy_pages(source, target, progress)
            trouble = _damage(target)
    except sqlite3.DatabaseError as error:
        trouble = str(error)
        if error.sqlite_errorcode & 0xFF not in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
            raise FileUnwritable(path=path, what=trouble) from None
    if trouble:
        raise DatabaseTrouble(path=db.path, what=f"it is damaged ({trouble})")


def _hasten(target: sqlite3.Connection) -> None:
    """A new file needs no journal, and is brought to the disk at the end."""
    target.execute("PRAGMA journal_mode = OFF")
    target.execute("PRAGMA synchronous = OFF")


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
    with new_file(path) as new, closing(sqlite3.connect(new, isolation_level=None)) as target:
        _hasten(target)
        with _explaining(backup):
            if is_text(backup):
                with backup.open(encoding="utf-8", newline="") as lines:
                    text.load(lines, target, progress)
            else:
                uri = f"{backup.absolute().as_uri()}?mode=ro"
                with closing(raw_connect(uri)) as source:
                    _copy_pages(source, target, progress)
            return _check(target)


@contextmanager
def _explaining(backup: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, ValueError) as error:
        raise BackupUnusable(path=backup, what=error) from None
    except OSError as error:
        raise BackupUnusable(path=backup, what=error.strerror or error) from None


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
