"""The end of a transaction may meet an I/O error and be recorded all the same: then it is repeated.

What was done the first time must be found out, told once, and not be taken for somebody else's.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bookkeeping import (
    GOLD,
    Bookkeeping,
    check_sound,
    failed,
    finished,
    released,
    run_job,
    submitted,
)
from desks import Office, end_badly

from production.manager import loop
from production.manager.loop import Manager
from production.model import Change, Claim
from production.store import connection
from production.store.connection import Database


class Disk:
    """Tells of an I/O error at the end of the next transaction that has such a statement in it."""

    def __init__(self) -> None:
        self.fails_after = ""  # the statement's beginning; "": nothing fails
        self.failed = 0
        self._seen = False

    def connection(self) -> type[sqlite3.Connection]:
        """What to open files with."""
        disk = self

        class Connection(sqlite3.Connection):
            def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
                cursor = super().execute(sql, *parameters)
                disk.look(sql)
                return cursor

            def executemany(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
                cursor = super().executemany(sql, *parameters)
                disk.look(sql)
                return cursor

        return Connection

    def look(self, sql: str) -> None:
        """After a statement has taken effect."""
        if self.fails_after and " ".join(sql.split()).startswith(self.fails_after):
            self._seen = True
        elif sql == "COMMIT" and self._seen:
            self.fails_after, self._seen = "", False
            self.failed += 1
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
            raise error


@pytest.fixture
def disk(books: Bookkeeping, monkeypatch: pytest.MonkeyPatch) -> Disk:
    """Under a connection that bears trouble, as a manager's does."""
    disk = Disk()
    factory, really_connect = disk.connection(), sqlite3.connect

    def connect(*arguments: Any, **keywords: Any) -> sqlite3.Connection:
        return really_connect(*arguments, **keywords, factory=factory)

    monkeypatch.setattr(connection, "TROUBLE_PAUSE", 0.01)
    monkeypatch.setattr(sqlite3, "connect", connect)
    books.db.close()
    books.db = Database(books.path)
    books.db.enduring = True
    return disk


CLAIMING = "UPDATE run SET status = 'C'"
FINISHING = "UPDATE run SET status = 'F'"
FAILING = "UPDATE run SET status = CASE"


def test_a_manager_does_not_end_while_it_holds_what_it_does_not_know_of(
    books: Bookkeeping, disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "REPAIR_EVERY", 0.2)
    office = Office(books, tmp_path)
    disk.fails_after = CLAIMING
    Manager(office.desk).run()
    assert disk.failed == 1
    assert (office.status, office.outcomes) == ("F", ["rolled back", "finished"])


@pytest.mark.parametrize(
    ("what", "told"), [(FINISHING, "Finished run: 2091"), (FAILING, "Failed run: 2091")]
)
def test_an_end_that_was_recorded_is_told_once_and_is_nobody_elses(
    books: Bookkeeping, disk: Disk, tmp_path: Path, what: str, told: str
) -> None:
    office = Office(books, tmp_path, max_attempts=1)
    if what == FAILING:
        office.batch.end = end_badly
    disk.fails_after = what
    Manager(office.desk).run()
    assert disk.failed == 1
    assert office.said.count(told) == 1
    assert office.said.count("taken over by somebody else") == 0
    assert len(office.outcomes) == 1
    assert not list((tmp_path / "data").glob("spool/*/run*"))


ENDS: dict[str, Callable[[Claim], Change]] = {
    "finish": finished,
    "failure": failed,
    "release": released,
}


@pytest.mark.parametrize("name", ENDS)
def test_an_end_that_was_recorded_is_accepted_again_and_changes_nothing(
    books: Bookkeeping, name: str
) -> None:
    books.label([1])
    store = books.manager(books.start())
    (claim,) = store.claim(1, GOLD)
    # As when a job has ended before its submission was recorded.
    changes = [submitted(claim), ENDS[name](claim)]
    assert store.apply(changes) == []
    before = books.dump()
    assert store.apply(changes) == []
    assert books.dump() == before
    for other in ENDS:
        assert store.apply([ENDS[other](claim)]) == ([] if other == name else [claim])
    assert books.dump() == before


def test_what_ended_under_another_hold_is_not_ones_own_doing(books: Bookkeeping) -> None:
    books.label([1])
    production = books.start()
    slow, quick = books.manager(production), books.manager(production)
    (claim,) = slow.claim(1, GOLD)
    run_job(slow, claim)
    (orphan,) = quick.take_over(slow.manager)
    assert quick.apply([finished(orphan.claim)]) == []
    assert slow.apply([finished(claim)]) == [claim]
    check_sound(books)
