"""What users ask of running managers, and what these answer: rows of the table ``request``.

The first that a manager is asked is to start, with the options of its command line.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from production.identity import Identity
from production.model import RunFilter
from production.store.connection import Database, utc_now

START = "start"


@dataclass(frozen=True)
class Request:
    """Something that a manager is asked to do."""

    id: int
    verb: str
    argument: str
    user: str
    host: str


@dataclass(frozen=True)
class Answer:
    """What a manager says to a request."""

    done: bool
    text: str


def ask(
    db: Database, managers: Sequence[int], verb: str, argument: str, who: Identity
) -> dict[int, int]:
    """Ask each of ``managers``; who was asked, by the request's id."""
    asked: dict[int, int] = {}
    with db.write() as tx:
        for manager in managers:
            id_ = tx.execute(
                "INSERT INTO request (manager, verb, argument, user, host, made) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (manager, verb, argument, who.user, who.host, utc_now()),
            ).lastrowid
            assert id_ is not None  # noqa: S101 - an INSERT has one
            asked[id_] = manager
    return asked


def note_start(
    db: Database, manager: int, who: Identity, wanted: RunFilter, nproc: int, spacelim: float
) -> None:
    """Record what a manager takes, and how much, for those who wonder what it is doing."""
    chosen = {"dataset": wanted.datasets, "tranche": wanted.tranches, "quality": wanted.qualities}
    argument = json.dumps({**chosen, "nproc": nproc, "spacelim": spacelim})
    now = utc_now()
    sql = (
        "INSERT INTO request (manager, verb, argument, user, host, made, answered, done, answer) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, 1, 'Started')"
    )
    values = (manager, START, argument, who.user, who.host, now, now)
    db.transact(lambda tx: tx.execute(sql, values))


def unanswered(db: Database, manager: int) -> list[Request]:
    """What this manager has been asked and has not answered, oldest first."""
    rows = db.rows(
        "SELECT id, verb, coalesce(argument, ''), coalesce(user, '?'), coalesce(host, '?') "
        "FROM request WHERE manager = ? AND answered IS NULL ORDER BY id",
        (manager,),
    )
    return [Request(*row) for row in rows]


def answer(db: Database, request: int, said: Answer) -> None:
    """Record a manager's answer."""
    sql = "UPDATE request SET answered = ?, done = ?, answer = ? WHERE id = ? AND answered IS NULL"
    db.transact(lambda tx: tx.execute(sql, (utc_now(), int(said.done), said.text, request)))


def answers(db: Database, requests: Sequence[int]) -> dict[int, Answer]:
    """The answers that are there, by request."""
    found: dict[int, Answer] = {}
    for id_ in requests:
        row = db.row(
            "SELECT done, answer FROM request WHERE id = ? AND answered IS NOT NULL", (id_,)
        )
        if row is not None:
            found[id_] = Answer(bool(row["done"]), row["answer"] or "")
    return found
