"""Nothing that the loop asks the database costs more because there are many runs."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from bookkeeping import (
    GOLD,
    Bookkeeping,
    bookkeeping,
    failed,
    finish_all,
    finished,
    intended,
    released,
    submitted,
)

from production.model import Production, RunFilter
from production.store import managers, productions, recorded, sizes
from production.store.runs import RunStore

SECOND_TRANCHE = RunFilter(datasets=("SiR2",), tranches=(2,))
ANY_SECOND_TRANCHE = RunFilter(tranches=(2,))
FILTERS = [
    pytest.param(GOLD, id="all runs"),
    pytest.param(RunFilter(qualities=()), id="any quality"),
    pytest.param(RunFilter(datasets=("SiR2",)), id="a dataset"),
    pytest.param(SECOND_TRANCHE, id="a tranche"),
    pytest.param(ANY_SECOND_TRANCHE, id="a tranche of all datasets"),
]


@contextmanager
def statements(connection: sqlite3.Connection) -> Iterator[list[str]]:
    """Every statement that is executed meanwhile, in SQLite's own words."""
    seen: list[str] = []
    connection.set_trace_callback(seen.append)
    try:
        yield seen
    finally:
        connection.set_trace_callback(None)


def steps_of(connection: sqlite3.Connection, action: Callable[[], object]) -> int:
    """How much work ``action`` is: the steps of SQLite's virtual machine, triggers included."""
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += 1

    connection.set_progress_handler(count, 1)
    try:
        action()
    finally:
        connection.set_progress_handler(None, 0)
    return steps


def connection_of(books: Bookkeeping) -> sqlite3.Connection:
    with books.db.write() as tx:
        return tx


def work_through(books: Bookkeeping, production: Production) -> None:
    """All that a manager asks of its production while it works."""
    store, dead = books.manager(production), books.manager(production)
    for wanted in (GOLD, RunFilter(datasets=("SiR2",)), SECOND_TRANCHE, ANY_SECOND_TRANCHE):
        one, two, three = store.claim(3, wanted)
        store.apply([intended(one), intended(two), intended(three)])
        store.apply([submitted(one), submitted(two)])
        store.apply([finished(one), failed(two), released(three)])
        store.next_claim(wanted)
        store.has_waiting(wanted)
    store.claim(1, GOLD)
    dead.claim(2, GOLD)
    managers.beat(books.db, store.manager)
    managers.holders(books.db, production.id, store.manager)
    store.take_over(dead.manager)
    store.held()
    store.at_error(10)
    recorded.outcome(books.db, production, one.run, one.attempt)
    productions.outputs(books.db, production.id, one.run)
    productions.counts(books.db, production.id)
    sizes.output_sizes(books.db, production.id)
    sizes.jobs_of_others(books.db, "somebody", store.manager)
    managers.sign_off(books.db, store.manager)


def test_every_statement_of_the_loop_follows_an_index(books: Bookkeeping) -> None:
    books.label(range(2000, 2030), tranche=2)
    base = books.start()
    with statements(connection_of(books)) as primary:
        work_through(books, base)
    finish_all(books.manager(base))
    derived = books.start("rootana", base=base)
    with statements(connection_of(books)) as second:
        work_through(books, derived)

    asked = {s for s in primary + second if s.split()[0] in {"SELECT", "UPDATE", "INSERT", "WITH"}}
    assert len(asked) > 30
    large = (
        *("run", "r", "i", "attempt", "a", "output", "o", "unclaimed", "u", "datasets", "d"),
        *("input", "place"),
    )
    for statement in asked:
        plan = [row[3] for row in books.rows(f"EXPLAIN QUERY PLAN {statement}")]
        scans = [step for step in plan if step.split()[0] == "SCAN" and step.split()[1] in large]
        assert not scans, (statement, plan)
        if statement.startswith(("SELECT r.run", "SELECT u.run")):  # a claim is in order as found
            assert not [step for step in plan if "TEMP B-TREE" in step], (statement, plan)


@pytest.fixture(scope="module")
def small_and_large(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Bookkeeping, Bookkeeping]]:
    """The same production twice, with 400 and with 8000 runs, half of them finished."""
    with (
        bookkeeping(tmp_path_factory.mktemp("small")) as small,
        bookkeeping(tmp_path_factory.mktemp("large")) as large,
    ):
        for books, size in ((small, 20), (large, 400)):
            for number in range(10):
                first = 10_000 * number
                books.label(range(first, first + size), f"set{number}", tranche=1)
                books.label(range(first + size, first + 2 * size), f"set{number}", tranche=2)
            books.label(range(2 * size), "SiR2", tranche=2)
            store = books.manager(books.start())
            half = store.claim(10 * size, RunFilter(tranches=(1,)))
            for change in (submitted, finished):
                assert store.apply([change(claim) for claim in half]) == []
        yield small, large


def cost(books: Bookkeeping, action: Callable[[RunStore], object]) -> int:
    store = books.manager(productions.find(books.db, "alcapana", 1))
    return steps_of(connection_of(books), lambda: action(store))


@pytest.mark.slow
@pytest.mark.parametrize("wanted", FILTERS)
def test_a_claim_costs_the_same_whatever_else_there_is(
    small_and_large: tuple[Bookkeeping, Bookkeeping], wanted: RunFilter
) -> None:
    def claim(store: RunStore) -> None:
        store.apply([released(claim) for claim in store.claim(3, wanted)])

    small, large = (cost(books, claim) for books in small_and_large)
    assert 0 < large < 1.3 * small


@pytest.mark.slow
def test_changes_of_status_cost_the_same_whatever_else_there_is(
    small_and_large: tuple[Bookkeeping, Bookkeeping],
) -> None:
    def corridor(store: RunStore) -> None:
        one, two, three = store.claim(3, SECOND_TRANCHE)
        store.apply([intended(one), intended(two), intended(three)])
        store.apply([submitted(one), submitted(two)])
        store.apply([finished(one), failed(two), released(three)])

    small, large = (cost(books, corridor) for books in small_and_large)
    assert 0 < large < 1.3 * small


@pytest.mark.slow
def test_minding_managers_costs_the_same_whatever_else_there_is(
    small_and_large: tuple[Bookkeeping, Bookkeeping],
) -> None:
    def mind(store: RunStore) -> None:
        dead = RunStore(store.db, store.production, store.manager + 1000)
        managers.beat(store.db, store.manager)
        managers.holders(store.db, store.production.id, store.manager)
        assert (store.take_over(dead.manager), store.held(), store.at_error(10)) == ([], [], [])

    small, large = (cost(books, mind) for books in small_and_large)
    assert 0 < large < 1.3 * small


@pytest.mark.slow
def test_learning_sizes_costs_the_same_whatever_else_there_is(
    small_and_large: tuple[Bookkeeping, Bookkeeping],
) -> None:
    def learn(store: RunStore) -> None:
        assert len(sizes.output_sizes(store.db, store.production.id)) == sizes.SAMPLE
        assert sizes.jobs_of_others(store.db, "somebody", store.manager) == {}

    small, large = (cost(books, learn) for books in small_and_large)
    assert 0 < large < 1.3 * small


@pytest.mark.slow
@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM alcapana_v1 WHERE run = 5",
        "SELECT run, tree FROM alcapana_v1 WHERE status = 'F' LIMIT 5",
        "UPDATE alcapana_v1 SET status = 'N' WHERE run = 5",
        "SELECT run FROM datasets WHERE dataset = 'set3' AND tranche = 2 LIMIT 5",
        "SELECT 1 FROM datasets WHERE dataset = 'no such' LIMIT 1",
    ],
)
def test_what_is_looked_up_by_hand_is_found_at_once(
    small_and_large: tuple[Bookkeeping, Bookkeeping], sql: str
) -> None:
    small, large = (cost(books, lambda store: store.db.rows(sql)) for books in small_and_large)
    assert 0 < large < 1.3 * small
