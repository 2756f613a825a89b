"""What users ask of running managers, and what these answer: rows of the table ``request``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from production.store.connection import Database, utc_now
from production.store.identity import Identity, is_alive


@dataclass(frozen=True)
class AtWork:
    """A manager that has not ended, as far as can be seen from here."""

    id: int
    user: str
    host: str
    pid: int


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


def at_work(db: Database, production: int) -> list[AtWork]:
    """The managers of a production that have not ended and are not seen to be dead."""
    rows = db.rows(
        "SELECT id, user, host, boot, pid, pid_start FROM manager "
        "WHERE production = ? AND stopped IS NULL AND pid IS NOT NULL ORDER BY id",
        (production,),
    )
    return [
        AtWork(row["id"], row["user"], row["host"], row["pid"])
        for row in rows
        if is_alive(row["boot"], row["pid"], row["pid_start"]) is not False
    ]


def ask(
    db: Database, managers: Sequence[AtWork], verb: str, argument: str, who: Identity
) -> dict[int, AtWork]:
    """Ask each of ``managers``; who was asked, by the request's id."""
    asked: dict[int, AtWork] = {}
    with db.write() as tx:
        for manager in managers:
            id_ = tx.execute(
                "INSERT INTO request (manager, verb, argument, user, host, made) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (manager.id, verb, argument, who.user, who.host, utc_now()),
            ).lastrowid
            assert id_ is not None  # noqa: S101 - an INSERT has one
            asked[id_] = manager
    return asked


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
