"""History only grows, and a run's status changes only along the corridor, whoever writes."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from bookkeeping import (
    GOLD,
    Bookkeeping,
    bookkeeping,
    failed,
    finish,
    finished,
    intended,
    released,
    run_job,
    status_of,
    submitted,
)

from production.model import RunFilter, Status
from production.store.runs import RunStore

# What may happen to a run, as the corridor has it: claimed, submitted, finished or given up, and
# sent back by a user.
CORRIDOR = {"NC", "CR", "RF", "CN", "RN", "CE", "RE", "EN", "FN"}


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Bookkeeping]:
    with bookkeeping(tmp_path) as books:
        books.label(range(1, 6))
        yield books


@pytest.fixture
def store(books: Bookkeeping) -> RunStore:
    return books.manager(books.start())


def refused(books: Bookkeeping, sql: str, *parameters: object) -> str:
    """Why the database does not take a statement; it must leave no trace."""
    before = books.dump()
    with pytest.raises(sqlite3.IntegrityError) as raised, books.db.write() as tx:
        tx.execute(sql, parameters)
    assert books.dump() == before
    return str(raised.value)


# --------------------------------------------------------------------------- changes of status


def test_the_lawful_changes_are_those_of_the_corridor(books: Bookkeeping) -> None:
    table = books.rows("SELECT before, after, meaning FROM lawful_change")
    assert {f"{before}{after}" for before, after, _ in table} == CORRIDOR
    assert all(meaning for *_, meaning in table)
    assert {status.value for status in Status} == set("".join(CORRIDOR))


@pytest.mark.parametrize(("before", "after"), [*itertools.permutations("NCRFE", 2)])
def test_every_other_change_is_refused_whoever_writes(
    tmp_path: Path, before: str, after: str
) -> None:
    books = Bookkeeping(tmp_path)  # rows without their attempts: not a sound one
    with books.db:
        books.label([1])
        production = books.start()
        manager = books.manager(production).manager

        def change(status: str) -> None:
            with books.db.write() as tx:
                tx.execute(
                    "UPDATE run SET status = ?, manager = ?",
                    (status, manager if status in "CR" else None),
                )

        for status in {"N": "", "C": "C", "R": "CR", "F": "CRF", "E": "CE"}[before]:
            change(status)
        if before + after in CORRIDOR:
            change(after)
            assert books.column("SELECT status FROM run") == [after]
        else:
            with pytest.raises(sqlite3.IntegrityError, match="not lawful"):
                change(after)
            assert books.column("SELECT status FROM run") == [before]


@pytest.mark.parametrize("status", ["X", "n", "", "NC", None])
def test_there_is_no_other_status(books: Bookkeeping, store: RunStore, status: str | None) -> None:
    with books.db.write() as tx:  # even if somebody thought that it was lawful
        tx.execute("INSERT INTO lawful_change VALUES ('N', ?, 'new')", (status or "",))
    why = refused(books, "UPDATE run SET status = ?", status)
    assert why in {"CHECK constraint failed: status IN ('N', 'C', 'R', 'F', 'E')"} | (
        {"NOT NULL constraint failed: run.status"} if status is None else set()
    )


@pytest.mark.parametrize("status", ["C", "R"])
def test_a_run_in_hand_has_a_manager(books: Bookkeeping, store: RunStore, status: str) -> None:
    (claim,) = store.claim(1, GOLD)
    if status == "R":
        run_job(store, claim)
    assert "CHECK" in refused(books, "UPDATE run SET manager = NULL WHERE run = ?", claim.run)
    assert "CHECK" in refused(books, "UPDATE run SET status = 'N' WHERE run = ?", claim.run)
    assert "CHECK" in refused(books, "UPDATE run SET manager = 1 WHERE status = 'N'")
    assert "FOREIGN KEY" in refused(books, "UPDATE run SET manager = 99 WHERE run = ?", claim.run)


def test_token_and_attempt_only_grow(books: Bookkeeping, store: RunStore) -> None:
    for claim in store.claim(2, GOLD):
        store.apply([released(claim)])
    assert "only grow" in refused(books, "UPDATE run SET token = 0 WHERE run = 1")
    assert "only grow" in refused(books, "UPDATE run SET attempt = attempt - 1 WHERE run = 2")


def test_what_does_not_exist_is_not_referred_to(books: Bookkeeping, store: RunStore) -> None:
    (claim,) = store.claim(1, GOLD)
    for sql in (
        "INSERT INTO run (production, run) VALUES (99, 1)",
        "INSERT INTO attempt (production, run, attempt, manager) VALUES (1, 99, 1, 1)",
        "INSERT INTO attempt (production, run, attempt, manager) VALUES (1, 1, 2, 99)",
        "INSERT INTO output (attempt, name, path) VALUES (99, 'tree', '/tree')",
        "UPDATE attempt SET modules = 99",
        "DELETE FROM productions",
        "DELETE FROM manager",
        f"DELETE FROM run WHERE run = {claim.run}",
        "INSERT INTO productions (type, version, software, base_type, base) "
        "VALUES ('rootana', 1, 'tag', 'alcapana', 99)",
    ):
        assert "FOREIGN KEY" in refused(books, sql)


def test_numbers_of_productions_and_attempts_are_given_once(
    books: Bookkeeping, store: RunStore
) -> None:
    store.claim(1, GOLD)
    for sql in (
        "INSERT INTO productions (type, version, software) VALUES ('alcapana', 1, 'tag')",
        "INSERT INTO run (production, run) VALUES (1, 1)",
        "INSERT INTO attempt (production, run, attempt, manager) VALUES (1, 1, 1, 1)",
    ):
        assert "UNIQUE" in refused(books, sql)


# --------------------------------------------------------------------------- attempts


def test_an_attempt_with_an_outcome_stays_as_it_is(books: Bookkeeping, store: RunStore) -> None:
    one, two, three = store.claim(3, GOLD)
    finish(store, one)
    store.apply([failed(two), released(three)])
    columns = ("outcome_code", "reason", "stop_us", "modules", "exit_code", "olog", "manager")
    for column in columns:
        assert "is history" in refused(books, f"UPDATE attempt SET {column} = NULL")
    assert "are kept" in refused(books, "DELETE FROM attempt WHERE run = 2")
    assert "are kept" in refused(books, "DELETE FROM attempt")


def test_an_attempt_that_lasts_is_kept_too(books: Bookkeeping, store: RunStore) -> None:
    store.claim(1, GOLD)
    assert "are kept" in refused(books, "DELETE FROM attempt")


def test_every_try_at_a_run_can_be_read_afterwards(books: Bookkeeping, store: RunStore) -> None:
    books.label([3], "Al50")
    wanted = RunFilter(datasets=("Al50",))
    (first,) = store.claim(1, wanted)
    store.apply([failed(first)])
    (second,) = store.claim(1, wanted)
    run_job(store, second)
    store.apply([failed(second)])
    (third,) = store.claim(1, wanted)
    store.apply([intended(third, "first modules\n"), submitted(third), finished(third)])
    with books.db.write() as tx:
        tx.execute("UPDATE alcapana_v1 SET status = 'N' WHERE run = 3")
    (fourth,) = store.claim(1, wanted)
    store.apply([released(fourth)])
    (fifth,) = store.claim(1, wanted)
    store.apply([intended(fifth, "second modules\n"), submitted(fifth)])
    store.apply([finished(fifth, ["hist"])])

    crash = "alcapana was killed by SIGSEGV"
    assert books.rows(
        """
        SELECT attempt, outcome, reason, start IS NOT NULL, stop IS NOT NULL, job, exit_code, text,
               (SELECT group_concat(name) FROM output o WHERE o.attempt = a.id)
        FROM attempt a LEFT JOIN modules m ON m.id = a.modules WHERE run = 3 ORDER BY attempt
        """
    ) == [
        (1, "failed", crash, 0, 1, None, 139, None, None),
        (2, "failed", crash, 1, 1, "job-3-2", 139, "PlotMass\n", None),
        (3, "finished", None, 1, 1, "job-3-3", 0, "first modules\n", "hist,odb,tree"),
        (4, "rolled back", "rolled back", 0, 1, None, None, None, None),
        (5, "finished", None, 1, 1, "job-3-6", 0, "second modules\n", "hist"),
    ]
    claimed = books.column("SELECT claimed FROM attempt WHERE run = 3 ORDER BY attempt")
    assert claimed == sorted(claimed, key=str)
    assert len(set(claimed)) == 5


def test_what_the_node_did_is_kept(books: Bookkeeping, store: RunStore) -> None:
    (claim,) = store.claim(1, GOLD)
    finish(store, claim)
    assert books.rows(
        "SELECT host, job_start, job_stop, exit_code, cpu_seconds, peak_memory, batch, token, "
        "spool FROM attempt"
    ) == [
        (
            "node1",
            "2026-01-31 23:00:00.000000",
            "2026-01-31 23:59:59.000000",
            0,
            3480.5,
            512 * 2**20,
            "local",
            claim.token,
            str(intended(claim).spool),
        )
    ]
    assert books.rows("SELECT name, path, size, sha256 FROM output ORDER BY name") == [
        (name, f"/data/{name}/{name}00001.root", 1001, "5ea1") for name in ("hist", "odb", "tree")
    ]


def test_failures_count_until_a_user_or_a_success_intervenes(
    books: Bookkeeping, store: RunStore
) -> None:
    def failures() -> object:
        return books.cell("SELECT failures FROM run WHERE run = 1")

    for expected in (1, 2):
        (claim,) = store.claim(1, GOLD)
        store.apply([failed(claim, max_attempts=9)])
        assert failures() == expected
    (claim,) = store.claim(1, GOLD)
    store.apply([released(claim)])
    assert failures() == 2
    (claim,) = store.claim(1, GOLD)
    finish(store, claim)
    assert failures() == 0


@pytest.mark.parametrize("submit", [False, True])
def test_a_run_stands_at_e_after_its_last_attempt(
    books: Bookkeeping, store: RunStore, submit: bool
) -> None:
    seen = []
    for _ in range(3):
        (claim,) = store.claim(1, GOLD)
        if submit:
            run_job(store, claim)
        store.apply([failed(claim, max_attempts=3)])
        seen.append(status_of(store, claim))
    assert seen == [Status.NEW, Status.NEW, Status.ERROR]
    assert books.cell("SELECT count(*) FROM attempt WHERE run = 1") == 3
