"""Whatever managers and people do to the bookkeeping, in whatever order, it stays sound."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from bookkeeping import (
    ANY,
    CHANGES,
    OUTPUTS,
    Bookkeeping,
    Row,
    check_sound,
    failed,
    finished,
    intended,
    submitted,
)
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from production.model import (
    Change,
    Claim,
    Failed,
    Finished,
    Intended,
    Production,
    Released,
    RunFilter,
    Submitted,
)
from production.store import datasets, managers
from production.store.datasets import Label
from production.store.interventions import retry
from production.store.runs import RunStore

RUNS = range(1, 7)
FILTERS = [
    ANY,
    RunFilter(),
    RunFilter(datasets=("A",), qualities=()),
    RunFilter(datasets=("B", "A")),
    RunFilter(tranches=(1,), qualities=()),
]
NAMES = ("A", "B")


@dataclass
class Run:
    """What the test believes of a run."""

    status: str = "N"
    attempt: int = 0
    token: int = 0
    failures: int = 0
    manager: int | None = None
    job: str | None = None  # the name of the job that is about to be submitted, or was
    resting: bool = False  # not to be claimed before long
    outcome: str = ""  # how its last attempt has ended


@dataclass(frozen=True)
class Held:
    """A claim that somebody got at some time; it may be lost long since."""

    store: RunStore
    claim: Claim


class BookkeepingMachine(RuleBasedStateMachine):
    """A primary and a derived production, their managers, and people with sqlite3."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="bookkeeping"))
        self.books = Bookkeeping(self.directory)
        self.labels: dict[tuple[int, str], Label] = {}
        self.runs: dict[tuple[int, int], Run] = {}  # by production and run
        self.stores: list[RunStore] = []
        self.held: list[Held] = []
        self.history: dict[object, Row] = {}

    def teardown(self) -> None:
        self.books.db.close()
        shutil.rmtree(self.directory)

    # ----------------------------------------------------------------- the beginning

    @initialize()
    def begin(self) -> None:
        for run in RUNS:
            label = Label(run, NAMES[run % 2], run % 3 or None, "gold" if run % 4 else None)
            self.labels[run, label.dataset] = label
        datasets.add(self.books.db, [*self.labels.values()])
        self.primary = self.books.start(wanted=ANY)
        self.derived = self.books.start("rootana", base=self.primary, wanted=ANY)
        for production in (self.primary, self.derived):
            self.stores += [self.books.manager(production) for _ in range(2)]
            self.runs |= {(production.id, run): Run() for run in RUNS}

    # ----------------------------------------------------------------- managers

    @rule(primary=st.booleans())
    def another_manager(self, primary: bool) -> None:
        self.stores.append(self.books.manager(self.primary if primary else self.derived))

    @rule(data=st.data(), count=st.integers(1, 4), wanted=st.sampled_from(FILTERS))
    def claim(self, data: st.DataObject, count: int, wanted: RunFilter) -> None:
        store = data.draw(st.sampled_from(self.stores))
        claims = store.claim(count, wanted)
        expected = self.claimable(store.production, wanted)
        assert {claim.run for claim in claims} <= expected
        assert len(claims) == min(count, len(expected))
        self.take(store, claims)

    def take(self, store: RunStore, claims: list[Claim]) -> None:
        for claim in claims:
            run = self.runs[store.production.id, claim.run]
            run.status, run.manager, run.job = "C", store.manager, None
            run.attempt += 1
            run.token += 1
            assert claim == Claim(claim.run, run.attempt, run.token, run.failures)
            self.held.append(Held(store, claim))

    def claimable(self, production: Production, wanted: RunFilter) -> set[int]:
        return {
            run
            for (id_, run), known in self.runs.items()
            if id_ == production.id
            and known.status == "N"
            and not known.resting
            and (production == self.primary or self.base_of(run) == "F")
            and (
                any(fits(label, wanted) for label in self.labels_of(run))
                or (wanted == ANY and not self.labels_of(run))
            )
        }

    def base_of(self, run: int) -> str:
        return self.runs[self.primary.id, run].status

    def labels_of(self, run: int) -> list[Label]:
        return [label for label in self.labels.values() if label.run == run]

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def changes(self, data: st.DataObject) -> None:
        """Some changes in one transaction, by claims that hold and by others that do not."""
        store = data.draw(st.sampled_from([held.store for held in self.held]))
        late = [held.claim for held in self.held if held.store is store][-6:]
        mine = [*dict.fromkeys([*store.held(), *late])]
        claims = data.draw(st.lists(st.sampled_from(mine), min_size=1, max_size=4, unique=True))
        self.apply(store, [change_of(data, claim, store.production) for claim in claims])

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def go_on(self, data: st.DataObject) -> None:
        """What a manager does next with its runs."""
        self.go_on_with(data.draw(st.sampled_from([held.store for held in self.held])))

    def go_on_with(self, store: RunStore) -> None:
        changes: list[Change] = []
        for claim in store.held():
            if self.runs[store.production.id, claim.run].status == "C":
                changes += [intended(claim), submitted(claim)]
            else:
                changes.append(finished(claim, OUTPUTS[store.production.type]))
        self.apply(store, changes)

    @rule(data=st.data())
    def go_all_the_way(self, data: st.DataObject) -> None:
        """A manager that is left alone finishes all that it can get."""
        store = data.draw(st.sampled_from(self.stores))
        self.take(store, store.claim(100, ANY))
        for _ in range(2):
            self.go_on_with(store)
        assert store.held() == []

    def apply(self, store: RunStore, changes: list[Change]) -> None:
        before, known = self.books.dump(), deepcopy(self.runs)
        expected, lawful = [], True
        for change in changes:
            run = self.runs[store.production.id, change.claim.run]
            if self.is_recorded(change, run):
                continue
            if not self.holds(store, change.claim):
                expected.append(change.claim)
            elif isinstance(change, Finished) and run.status == "C":
                lawful = False  # it was never submitted
            else:
                self.expect(change, run)
        if lawful:
            assert store.apply(changes) == expected
        else:
            with pytest.raises(sqlite3.IntegrityError, match="not lawful"):
                store.apply(changes)
            self.runs = known
            assert self.books.dump() == before

    def holds(self, store: RunStore, claim: Claim) -> bool:
        run = self.runs[store.production.id, claim.run]
        return run.manager == store.manager and run.token == claim.token

    def is_recorded(self, change: Change, run: Run) -> bool:
        """Whether the claim has ended in just this way, and nothing has come after it."""
        return (
            run.manager is None
            and run.token == change.claim.token
            and run.outcome == type(change).__name__
        )

    def expect(self, change: Change, run: Run) -> None:
        match change:
            case Intended():
                run.job = str(change.spool)
            case Submitted():
                run.status = "R"
            case Finished():
                run.status, run.failures = "F", 0
            case Released():
                run.status = "N"
            case Failed():
                run.failures += 1
                run.status = "N" if run.failures < change.max_attempts else "E"
                run.resting = change.wait > 0
        if run.status not in "CR":
            run.manager, run.outcome = None, type(change).__name__

    @rule(data=st.data())
    def take_over(self, data: st.DataObject) -> None:
        heir = data.draw(st.sampled_from(self.stores))
        others = [s for s in self.stores if s.production == heir.production and s is not heir]
        dead = data.draw(st.sampled_from(others))
        for orphan in heir.take_over(dead.manager):
            run = self.runs[heir.production.id, orphan.claim.run]
            assert (run.manager, run.status) == (dead.manager, orphan.status)
            run.token += 1
            run.manager = heir.manager
            assert orphan.claim == Claim(orphan.claim.run, run.attempt, run.token, run.failures)
            self.held.append(Held(heir, orphan.claim))
        assert dead.held() == []

    @rule(data=st.data())
    def beat(self, data: st.DataObject) -> None:
        managers.beat(self.books.db, data.draw(st.sampled_from(self.stores)).manager)

    # ----------------------------------------------------------------- people

    @rule(run=st.sampled_from(RUNS), status=st.sampled_from("NNNCRFE"), primary=st.booleans())
    def by_hand(self, run: int, status: str, primary: bool) -> None:
        production = self.primary if primary else self.derived
        known = self.runs.get((production.id, run))
        sql = f"UPDATE {production.label} SET status = '{status}' WHERE run = {run}"
        if known is None or status == known.status != "N":
            self.execute(sql)
        elif status != "N" or known.status == "R" or (known.status == "C" and known.job):
            before = self.books.dump()
            with pytest.raises(
                sqlite3.IntegrityError, match=r"status N can be set|stop its manager"
            ):
                self.execute(sql)
            assert self.books.dump() == before
        else:
            self.execute(sql)
            self.sent_back(known)
            known.token += 1

    def sent_back(self, run: Run) -> None:
        run.status, run.failures, run.resting, run.manager = "N", 0, False, None

    @rule(primary=st.booleans())
    def retry(self, primary: bool) -> None:
        production = self.primary if primary else self.derived
        expected = [
            run
            for (id_, run), known in sorted(self.runs.items())
            if id_ == production.id and known.status == "E"
        ]
        assert retry(self.books.db, production) == expected
        for run in expected:
            self.sent_back(self.runs[production.id, run])

    @rule(run=st.sampled_from(RUNS))
    def remove_or_add(self, run: int) -> None:
        known = self.runs.get((self.derived.id, run))
        if known is None:
            self.execute(f"INSERT INTO rootana_v1 (run) VALUES ({run})")
            self.runs[self.derived.id, run] = Run()
        elif known.attempt:
            with pytest.raises(sqlite3.IntegrityError, match="this run has a history"):
                self.execute(f"DELETE FROM rootana_v1 WHERE run = {run}")
        else:
            self.execute(f"DELETE FROM rootana_v1 WHERE run = {run}")
            del self.runs[self.derived.id, run]

    @rule(
        label=st.builds(
            Label,
            st.sampled_from(RUNS),
            st.sampled_from(NAMES),
            st.sampled_from([None, 1, 2]),
            st.sampled_from([None, "gold"]),
        )
    )
    def label(self, label: Label) -> None:
        datasets.add(self.books.db, [label])
        self.labels[label.run, label.dataset] = label

    @precondition(lambda self: self.labels)
    @rule(data=st.data(), other=st.sampled_from(NAMES))
    def relabel_by_hand(self, data: st.DataObject, other: str) -> None:
        run, name = data.draw(st.sampled_from(sorted(self.labels)))
        label = self.labels.pop((run, name))
        where = f"WHERE run = {run} AND dataset = '{name}'"
        if (run, other) in self.labels or other == name:
            self.execute(f"DELETE FROM datasets {where}")
        else:
            self.execute(f"UPDATE datasets SET dataset = '{other}' {where}")
            self.labels[run, other] = replace(label, dataset=other)

    def execute(self, sql: str) -> None:
        with self.books.db.write() as tx:
            tx.execute(sql)

    # ----------------------------------------------------------------- what holds at any time

    @invariant()
    def the_tables_are_sound(self) -> None:
        check_sound(self.books)

    @invariant()
    def runs_are_where_they_should_be(self) -> None:
        """Which includes that each is in one manager's hands, and that tokens only grow."""
        rows = self.books.rows(
            """
            SELECT production, run, status, r.attempt, r.token, failures, r.manager, spool
            FROM run r LEFT JOIN attempt a USING (production, run, attempt)
            """
        )
        assert {(row[0], row[1]): row[2:] for row in rows} == {
            key: (run.status, run.attempt, run.token, run.failures, run.manager, run.job)
            for key, run in self.runs.items()
        }
        for store in self.stores:
            mine = {
                run
                for (id_, run), known in self.runs.items()
                if id_ == store.production.id and known.manager == store.manager
            }
            assert {claim.run for claim in store.held()} == mine

    @invariant()
    def every_attempt_is_kept(self) -> None:
        attempts = self.books.rows(
            "SELECT production, run, count(*) FROM attempt GROUP BY production, run"
        )
        assert attempts == [
            (*key, run.attempt) for key, run in sorted(self.runs.items()) if run.attempt
        ]
        rows = self.books.rows(
            "SELECT a.*, (SELECT group_concat(name || path) FROM output o WHERE o.attempt = a.id) "
            "FROM attempt a WHERE outcome IS NOT NULL"
        )
        now = {row[0]: row for row in rows}
        assert now.items() >= self.history.items()
        self.history = now

    @invariant()
    def finished_runs_have_the_outputs_of_their_last_attempt(self) -> None:
        rows = self.books.rows(
            """
            SELECT r.production, r.run, group_concat(o.name)
            FROM run r JOIN attempt a USING (production, run, attempt)
            LEFT JOIN output o ON o.attempt = a.id
            WHERE r.status = 'F' OR o.name IS NOT NULL AND r.status <> 'N'
            GROUP BY r.production, r.run
            """
        )
        outputs = {(row[0], row[1]): set(str(row[2]).split(",")) for row in rows}
        assert outputs == {
            (id_, run): set(OUTPUTS["alcapana" if id_ == self.primary.id else "rootana"])
            for (id_, run), known in self.runs.items()
            if known.status == "F"
        }

    @invariant()
    def a_production_that_stopped_is_done(self) -> None:
        for id_, stop in self.books.rows("SELECT id, stop FROM productions"):
            if stop is not None:
                assert {run.status for (of, _), run in self.runs.items() if of == id_} <= {"F"}


def fits(label: Label, wanted: RunFilter) -> bool:
    return (
        (not wanted.datasets or label.dataset in wanted.datasets)
        and (not wanted.tranches or label.tranche in wanted.tranches)
        and (not wanted.qualities or label.quality in wanted.qualities)
    )


def change_of(data: st.DataObject, claim: Claim, production: Production) -> Change:
    kind = data.draw(st.sampled_from([*CHANGES, "submission", "finish", "failure that rests"]))
    if kind == "finish":
        return finished(claim, OUTPUTS[production.type])
    if kind == "failure that rests":
        return failed(claim, wait=3600)
    return CHANGES[kind](claim)


TestBookkeeping = pytest.mark.slow(BookkeepingMachine.TestCase)
TestBookkeeping.settings = settings(
    max_examples=100,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
