"""One of the two processes of the lock test: does with SQLite what it is told, and answers.

It runs as ``python -m production.doctor.half``, here or on another host, with a request a line on
its standard input and an answer a line on its standard output, both JSON; or it is told by another
doctor through files (meeting.py).  It opens the file as the program itself does.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from production.store.connection import BUSY_MILLISECONDS, raw_connect

Message = dict[str, Any]

PAUSE = 0.002  # seconds between two transactions, at most: so that the other gets its turn
PATIENCE = 60.0  # seconds that the lock may take to become free


class Half:
    """Counts in a scratch database that another process counts in as well."""

    def __init__(self) -> None:
        self._connection: sqlite3.Connection | None = None
        self._requests: dict[str, Callable[[Message], Message]] = {
            "create": self._create,
            "open": self._open,
            "hold": self._hold,
            "try": self._try,
            "let go": self._let_go,
            "step": self._step,
            "count": self._count,
            "read": self._read,
        }

    def answer(self, request: Message) -> Message:
        """Do what is asked; what fails is said under ``trouble``."""
        try:
            return self._requests[request["do"]](request)
        except sqlite3.Error as error:
            self._roll_back()
            return {"trouble": described(error)}
        except OSError as error:
            return {"trouble": f"{error.filename}: {error.strerror}"}

    def close(self) -> None:
        """Let go of the file."""
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()

    # ------------------------------------------------------------------ requests

    def _create(self, request: Message) -> Message:
        path = Path(request["path"])
        mode = path.parent.stat().st_mode & 0o666  # whoever may write there takes part
        path.touch()
        path.chmod(mode)
        self._connection = raw_connect(f"{path.absolute().as_uri()}?mode=rw")
        self._connection.execute("CREATE TABLE counter (n INTEGER NOT NULL)")
        self._connection.execute("INSERT INTO counter VALUES (0)")
        return {"host": os.uname().nodename}

    def _open(self, request: Message) -> Message:
        path = Path(request["path"])
        path.stat()
        self._connection = raw_connect(f"{path.absolute().as_uri()}?mode=rw")
        return {"host": os.uname().nodename, "n": self._value()}

    def _hold(self, _request: Message) -> Message:
        self._begin()
        return {}

    def _try(self, _request: Message) -> Message:
        """Whether the lock can be had, while the other half has it."""
        try:
            self._file.execute("PRAGMA busy_timeout = 0")
            self._file.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if not _is_busy(error):
                raise
            return {"got": False}
        finally:
            self._file.execute(f"PRAGMA busy_timeout = {BUSY_MILLISECONDS}")
        self._roll_back()
        return {"got": True}

    def _let_go(self, _request: Message) -> Message:
        self._roll_back()
        return {}

    def _step(self, _request: Message) -> Message:
        return {"n": self._increment()}

    def _count(self, request: Message) -> Message:
        """Count as fast as it goes for ``seconds``."""
        began = time.monotonic()
        counted, longest, went_back, last = 0, 0.0, 0, -1
        while time.monotonic() - began < request["seconds"]:
            before = time.monotonic()
            value = self._increment()
            longest = max(longest, time.monotonic() - before)
            counted += 1
            went_back += value <= last
            last = value
            time.sleep(random.uniform(0, PAUSE))  # noqa: S311 - jitter, not a secret
        return {"counted": counted, "longest": longest, "went_back": went_back}

    def _read(self, _request: Message) -> Message:
        (verdict,) = self._file.execute("PRAGMA quick_check(1)").fetchall()[0]
        return {"n": self._value(), "verdict": verdict}

    # ------------------------------------------------------------------ SQLite

    @property
    def _file(self) -> sqlite3.Connection:
        if self._connection is None:
            raise sqlite3.ProgrammingError("the scratch database is not open")
        return self._connection

    def _value(self) -> int:
        return int(self._file.execute("SELECT n FROM counter").fetchall()[0][0])

    def _increment(self) -> int:
        self._begin()
        value = self._value() + 1
        self._file.execute("UPDATE counter SET n = ?", (value,))
        self._patiently("COMMIT")
        return value

    def _begin(self) -> None:
        self._patiently("BEGIN IMMEDIATE")

    def _patiently(self, statement: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self._file.execute(statement)
            except sqlite3.OperationalError as error:
                if not _is_busy(error) or time.monotonic() > deadline:
                    raise
                time.sleep(random.uniform(0.001, 0.01))  # noqa: S311 - jitter
            else:
                return

    def _roll_back(self) -> None:
        if self._connection is not None and self._connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")


def described(error: sqlite3.Error) -> str:
    """SQLite's message with the name of its extended code: which call failed."""
    name = getattr(error, "sqlite_errorname", "")
    return f"{error} ({name})" if name else str(error)


def _is_busy(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY


def main() -> None:
    """Answer until there are no more requests."""
    half = Half()
    for line in sys.stdin:
        sys.stdout.write(json.dumps(half.answer(json.loads(line))) + "\n")
        sys.stdout.flush()
    half.close()


if __name__ == "__main__":
    main()
