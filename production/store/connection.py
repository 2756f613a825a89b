"""One connection to the shared file, and transactions that wait instead of failing.

The rules, and where they come from:

* rollback journal, never WAL, on a network filesystem (sqlite.org/wal.html, useovernet.html);
* ``BEGIN IMMEDIATE`` for every transaction that writes, so that what was read in it still holds
  (sqlite.org/lang_transaction.html);
* no busy time-out but our own retries: Python does not react to Ctrl-C while SQLite waits, SQLite
  asks for the lock a dozen times in a third of a second (sqlite3.c, sqliteDefaultBusyCallback),
  each time several requests to a file server, and somebody's session must make us wait, not fail;
* every SELECT is read to its end at once: an unfinished one keeps writers out;
* the file is never opened in any other way by this process: closing any descriptor of it drops
  the process's locks (sqlite.org/howtocorrupt.html, section 2.2).
"""

from __future__ import annotations

import os
import random
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from production.errors import (
    CommandError,
    DatabaseDamaged,
    DatabaseLocked,
    DatabaseMissing,
    DatabaseReadOnly,
    DatabaseTooNew,
    DatabaseTooOld,
    DatabaseTrouble,
    JournalLeft,
    NotADatabase,
    StoreError,
)
from production.identity import current_user
from production.store.lock_holder import lock_holder

APPLICATION_ID = 0x50524D47
SCHEMA_VERSION = 4
BUSY_MILLISECONDS = 250  # where SQLite itself is to wait
PATIENCE = 60.0  # seconds; how long a write waits for the lock
SLOW = 5.0  # seconds; when waiting is worth a message
TROUBLE_PAUSE = 0.5  # seconds between two tries when the file is in trouble
SHORTEST_PAUSE, LONGEST_PAUSE = 0.003, 0.6  # seconds between two tries when it is locked
# Seconds for which everybody bears that: when a writer was killed, the first to come plays its
# journal back, and on a network filesystem the next one meets a journal that is just going away.
GLITCH = 2.0

T = TypeVar("T")
Row = sqlite3.Row

_TIME = "%Y-%m-%d %H:%M:%S.%f"
_EPOCH = datetime.fromtimestamp(0, UTC)
_MICROSECOND = timedelta(microseconds=1)

Parameters = Sequence[object] | dict[str, object]


def utc_now() -> str:
    """The present as the database keeps it: UTC text with microseconds."""
    return utc_text(time.time())


def utc_text(seconds: float) -> str:
    """``seconds`` since the epoch as the database keeps times."""
    return datetime.fromtimestamp(seconds, UTC).strftime(_TIME)


def now_us() -> int:
    """The present as attempts keep it: microseconds since the epoch."""
    return time.time_ns() // 1000


def text_us(text: str) -> int | str:
    """A time as attempts keep it; what is no such text, or before the epoch, stays as it is."""
    try:
        moment = datetime.strptime(text, _TIME).replace(tzinfo=UTC)
    except ValueError:
        return text
    return (moment - _EPOCH) // _MICROSECOND if moment >= _EPOCH else text


class Database:
    """The open file.  Use ``rows`` to read, ``with write() as tx`` to change.

    ``patience`` is how many seconds to wait for a lock.
    ``enduring``: wait as long for trouble with the file that may pass (a full disk, a server that
    is away), instead of raising it.
    ``check`` is called while waiting; it may raise to give up (Ctrl-C).
    ``on_wait`` is called once per wait that lasts longer than SLOW seconds, with the cause.
    The file is opened with ``patience`` and ``on_wait`` as well; Ctrl-C ends that as usual.
    ``waiting``: whether the last thing asked for was not had at once, or not at all.
    """

    def __init__(
        self,
        path: Path,
        *,
        readonly: bool = False,
        patience: float = PATIENCE,
        on_wait: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.path = path
        self.readonly = readonly
        self.patience = patience
        self.enduring = False
        self.check: Callable[[], None] = lambda: None
        self.on_wait = on_wait
        self.waiting = False
        need_file(path)
        self._connection = self._patiently(lambda: _open(path, readonly))
        self._file = _identity(path)
        self._uuid = self._patiently(lambda: _uuid(self._connection))
        self._sound = True  # nothing has happened to the connection

    def __enter__(self) -> Database:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; harmless when done twice."""
        self._connection.close()

    def rows(self, sql: str, parameters: Parameters = ()) -> list[Row]:
        """All rows that ``sql`` finds, outside or inside of a transaction."""
        if self._connection.in_transaction:  # which is tried again as a whole
            try:
                return self._connection.execute(sql, parameters).fetchall()
            except sqlite3.Error as error:
                if _is_busy(error):
                    raise
                raise explain(error, self.path) from error

        def read() -> list[Row]:
            self._mend()
            return self._connection.execute(sql, parameters).fetchall()

        return self._patiently(read, enduring=self.enduring)

    def row(self, sql: str, parameters: Parameters = ()) -> Row | None:
        """The first row, or None."""
        found = self.rows(sql, parameters)
        return found[0] if found else None

    def transact(self, action: Callable[[sqlite3.Connection], T]) -> T:
        """Do ``action`` in one transaction; all of it again when the file was in trouble.

        Whether a transaction was recorded whose end met an I/O error may be unknown; then it is
        done twice, and ``action`` must find out by what it reads.  Raises what ``write`` raises.
        """

        def attempt() -> T:
            self._mend()
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                result = action(self._connection)
                # Readers may hold a COMMIT up; it can simply be tried again.
                self._patiently(lambda: self._connection.execute("COMMIT"), glitch=0.0)
            except BaseException:
                self._roll_back()
                raise
            return result

        return self._patiently(attempt, enduring=self.enduring)

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """One moment: whatever is read within belongs together; nobody can change it meanwhile.

        To be kept as short as a transaction that writes, for those wait.  Within another it is a
        part of that.  Raises what ``write`` raises, also where ``rows`` bears trouble.
        """
        if self._connection.in_transaction:
            yield self._connection
            return
        self._patiently(self._mend)
        self._patiently(lambda: self._connection.execute("BEGIN"))
        try:  # only the first SELECT takes the lock
            self._patiently(lambda: self._connection.execute("SELECT 1 FROM meta").fetchall())
            yield self._connection
        finally:
            self._roll_back()

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it is recorded, or nothing.

        Keep it short: no file, no command, no network inside.
        Raises DatabaseLocked, DatabaseReadOnly or DatabaseTrouble; SQL constraints
        (sqlite3.IntegrityError) pass through, for they are the caller's to explain.
        """
        self._patiently(lambda: self._connection.execute("BEGIN IMMEDIATE"))
        try:
            yield self._connection
            # Readers may hold a COMMIT up; it can simply be tried again (lang_transaction.html).
            self._patiently(lambda: self._connection.execute("COMMIT"), glitch=0.0)
        except BaseException as error:
            self._roll_back()
            if isinstance(error, sqlite3.Error):
                raise explain(error, self.path) from error
            raise

    def _patiently(
        self, action: Callable[[], T], *, enduring: bool = False, glitch: float | None = None
    ) -> T:
        def check() -> None:
            self.waiting = True
            self.check()

        def on_trouble() -> None:
            self._sound = False

        result = patiently(
            action,
            self.path,
            self.patience,
            check,
            self.on_wait,
            on_trouble if enduring else None,
            GLITCH if glitch is None else glitch,
        )
        self.waiting = False
        return result

    def _roll_back(self) -> None:
        with suppress(sqlite3.Error):  # of a connection that is in trouble already
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    def _mend(self) -> None:
        """Make sure that we speak to the file that has the name; raises DatabaseTrouble.

        A connection goes on with a file that was removed, and what it writes there is lost.  And
        after an I/O error only a new one is known to be good.
        """
        identity = _identity(self.path)
        if identity == self._file and self._sound:
            return
        if identity is None:
            raise DatabaseTrouble(path=self.path, what="it was removed while it was in use")
        fresh = _open(self.path, self.readonly)
        before = self._connection
        try:
            if identity != self._file and _uuid(fresh) != self._uuid:
                what = "another database has taken its place while it was in use"
                raise DatabaseTrouble(path=self.path, what=what)
        except BaseException:
            fresh.close()
            raise
        self._connection, self._file, self._sound = fresh, identity, True
        before.close()


def patiently(
    action: Callable[[], T],
    path: Path,
    patience: float = PATIENCE,
    check: Callable[[], None] = lambda: None,
    on_wait: Callable[[str], None] = lambda _: None,
    on_trouble: Callable[[], None] | None = None,
    glitch: float = 0.0,
) -> T:
    """Do ``action`` on the file, again and again while others have it locked.

    The arguments mean what they mean for Database.  With ``on_trouble``, which is called then, also
    while the file is in trouble that may pass; without it, DatabaseTrouble is borne for ``glitch``
    seconds.  Raises DatabaseLocked after ``patience``, and for SQLite's errors what ``explain``
    makes of them.
    """
    began = time.monotonic()
    said = ""
    looked_damaged = False
    tries = 0
    while True:
        tries += 1
        asked = time.monotonic()
        try:
            return action()
        except (sqlite3.Error, StoreError) as error:
            trouble = explain(error, path) if isinstance(error, sqlite3.Error) else error
            busy = isinstance(error, sqlite3.Error) and _is_busy(error)
            passes = on_trouble is not None and isinstance(trouble, _PASSING)
            if isinstance(trouble, DatabaseDamaged):
                # SQLite says the same when the kernel could not read (EIO), which may pass.
                if not _is_readable(path):
                    trouble = DatabaseTrouble(path=path, what="it cannot be read from its disk")
                    passes = on_trouble is not None
                elif on_trouble is not None and not looked_damaged:
                    passes = looked_damaged = True
            waited, cost = time.monotonic() - began, time.monotonic() - asked
            if isinstance(trouble, DatabaseTrouble) and waited < glitch:
                passes = True
            if not busy and not passes:
                if trouble is error:
                    raise
                raise trouble from error
        if waited > patience:
            if not busy:
                raise trouble
            holder = f" by {lock_holder(path)}" if said else ""
            raise DatabaseLocked(path=path, seconds=round(waited), holder=holder)
        kind = "busy" if busy else str(trouble)
        if waited > SLOW and kind != said:
            said = kind
            on_wait(f"The database is locked by {lock_holder(path)}" if busy else str(trouble))
        check()
        if not busy and on_trouble is not None:
            on_trouble()
            time.sleep(TROUBLE_PAUSE)
        time.sleep(random.uniform(0.5, 1.5) * pause(tries, cost))  # noqa: S311 - jitter


def pause(tries: int, cost: float) -> float:
    """Seconds until a lock is asked for again, before jitter.

    ``cost``: how many seconds the last of ``tries`` took.  Where asking is slow, the file server
    is far away, or busy with what others ask: from the tenth try on one who waits spends 5 % of his
    time on it, so that the one who has the lock gets on.  It does not grow further: whoever has
    waited for long is to have the same chance as the others.
    """
    return min(min(tries, 10) * max(2 * cost, SHORTEST_PAUSE), LONGEST_PAUSE)


# Trouble that may pass without anybody doing anything to this program.
_PASSING = (DatabaseMissing, DatabaseReadOnly, DatabaseTrouble)


def explain(error: sqlite3.Error, path: Path) -> Exception:
    """The error of our tree that says what SQLite's error means for the user."""
    if isinstance(error, sqlite3.IntegrityError):
        return error
    extended = getattr(error, "sqlite_errorcode", 0)
    code = extended & 0xFF
    if extended == sqlite3.SQLITE_READONLY_DBMOVED:
        # SQLite finds another file under the name, or none, or cannot look (ESTALE).
        what = "it was moved or replaced while it was in use, or cannot be seen"
        return DatabaseTrouble(path=path, what=what)
    if extended == sqlite3.SQLITE_READONLY_ROLLBACK or (
        code == sqlite3.SQLITE_CANTOPEN and _has_closed_journal(path)
    ):
        return JournalLeft(path=path, user=current_user())
    if code == sqlite3.SQLITE_READONLY:
        return DatabaseReadOnly(path=path, user=current_user(), what=str(error))
    if code == sqlite3.SQLITE_NOTADB:
        return NotADatabase(path=path, what=str(error))
    if code == sqlite3.SQLITE_CORRUPT:
        return DatabaseDamaged(path=path, what=str(error))
    if code in {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_BUSY,
    }:
        return DatabaseTrouble(path=path, what=str(error))
    return error


def _has_closed_journal(path: Path) -> bool:
    """Whether there is a journal beside the file that may not be written, so not played back."""
    journal = f"{path}-journal"
    return os.path.exists(journal) and not os.access(journal, os.W_OK)  # noqa: PTH110 - may not raise


def _is_readable(path: Path) -> bool:
    """Whether all bytes are there; found out by another process, which cannot drop our locks."""
    from production.commands import run

    try:
        run(["cksum", "--", str(path)])
    except CommandError:
        return False
    return True


def _is_busy(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
    }


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file has this name, None when there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DatabaseTrouble(path=path, what=error.strerror) from None
    return status.st_dev, status.st_ino


def _uuid(connection: sqlite3.Connection) -> str | None:
    row = connection.execute("SELECT value FROM meta WHERE key = 'uuid'").fetchone()
    return None if row is None else str(row[0])


def _open(path: Path, readonly: bool) -> sqlite3.Connection:
    """Open an existing production database and make sure that it is one, and that it fits."""
    # Reading, too, needs write access when a process was killed in a transaction: SQLite plays
    # its journal back.  A file that may not be written it opens for reading by itself.
    connection = raw_connect(f"{path.absolute().as_uri()}?mode=rw")
    try:
        connection.execute("PRAGMA busy_timeout = 0")
        _check(connection, path)
        if readonly:
            connection.execute("PRAGMA query_only = ON")
        else:
            _check_writable(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def need_file(path: Path) -> None:
    """Raise DatabaseMissing, NotADatabase or DatabaseTrouble unless there is a file."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise DatabaseMissing(path=path) from None
    except OSError as error:
        raise DatabaseTrouble(path=path, what=error.strerror) from None
    if not stat.S_ISREG(mode):
        raise NotADatabase(path=path, what="it is not a file")


def raw_connect(uri: str) -> sqlite3.Connection:
    """A connection with the settings that all of ours share."""
    connection = sqlite3.connect(
        uri, uri=True, isolation_level=None, timeout=BUSY_MILLISECONDS / 1000
    )
    connection.row_factory = sqlite3.Row
    try:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = EXTRA")
        connection.execute("PRAGMA mmap_size = 0")
    except BaseException:
        connection.close()
        raise
    return connection


def _check(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("BEGIN")  # one lock for all: among busy writers it is hard to come by
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    journal = connection.execute("PRAGMA journal_mode").fetchone()[0]
    connection.execute("COMMIT")
    if application != APPLICATION_ID:
        raise NotADatabase(path=path, what="it has none of its tables")
    if version > SCHEMA_VERSION:
        raise DatabaseTooNew(path=path, found=version, known=SCHEMA_VERSION)
    if version < SCHEMA_VERSION:
        raise DatabaseTooOld(path=path, found=version, known=SCHEMA_VERSION)
    if journal == "wal":
        raise StoreError(
            path=path,
            what="it is in WAL mode, which loses data on network filesystems; switch it back with: "
            f'sqlite3 {path} "PRAGMA journal_mode=DELETE"',
        )


def _check_writable(connection: sqlite3.Connection, path: Path) -> None:
    """Find out before anything else is done, by a write that is taken back.

    The write lock alone tells nothing: SQLite gives a read lock where the file cannot be written,
    and whether there can be a journal in the directory shows at the first change.
    """
    try:
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")  # as it is
        finally:
            connection.rollback()
    except sqlite3.Error as error:
        if _is_busy(error):
            return  # somebody writes, so the file can be written; by us is seen at the first write
        raise explain(error, path) from error
