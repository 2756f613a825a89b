"""Claims: whoever claims, and whatever others do, a run is in one manager's hands."""

from __future__ import annotations

import sqlite3
import subprocess
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import pytest
from bookkeeping import (
    ANY,
    CHANGES,
    GOLD,
    Bookkeeping,
    answer,
    bookkeeping,
    check_sound,
    failed,
    finish,
    finish_all,
    finished,
    intended,
    processes,
    python,
    released,
    run_job,
    says,
    status_of,
    submitted,
    tell,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from job_orders import until

from production.model import Claim, Orphan, RunFilter, Status
from production.store import datasets
from production.store.connection import Database
from production.store.datasets import Label
from production.store.rests import KEPT, Rests

CLAIMER = """
    import sys
    from pathlib import Path
    from production.model import RunFilter
    from production.store import managers, productions
    from production.store.connection import Database
    from production.identity import this_process
    from production.store.runs import RunStore

    with Database(Path(sys.argv[1])) as db:
        production = productions.find(db, "alcapana")
        me = managers.register(db, this_process(), production.id)
        store = RunStore(db, production, me)
        claims = store.claim(5, RunFilter())
        print("begun", flush=True)
        sys.stdin.readline()
        while more := store.claim(5, RunFilter()):
            claims += more
        print(me, *(c.run for c in claims))
"""


def runs(claims: list[Claim]) -> list[int]:
    return [claim.run for claim in claims]


# --------------------------------------------------------------------------- who gets a run


@pytest.mark.slow
def test_many_processes_at_once_share_the_runs_out(books: Bookkeeping) -> None:
    books.label(range(2000, 2600))
    books.start()
    started: list[subprocess.Popen[str]] = []
    with processes(started):
        for _ in range(8):
            started.append(python(CLAIMER, books.path))
        for process in started:
            says(process, "begun")
        for process in started:
            tell(process)
        answers = [[int(word) for word in answer(process).split()] for process in started]

    claimed = Counter(run for _, *mine in answers for run in mine)
    assert claimed == Counter(range(2000, 2600))
    assert all(len(mine) >= 5 for _, *mine in answers)
    for manager, *mine in answers:
        held = books.column("SELECT run FROM run WHERE manager = ? ORDER BY run", manager)
        assert held == sorted(mine)
    assert books.rows("SELECT DISTINCT status, attempt, token FROM run") == [("C", 1, 1)]
    assert books.cell("SELECT count(*) FROM attempt") == 600


def test_a_claimed_run_is_not_claimed_again(books: Bookkeeping) -> None:
    books.label(range(2091, 2096))
    production = books.start()
    one, other = books.manager(production), books.manager(production)
    assert runs(one.claim(3, GOLD)) == [2091, 2092, 2093]
    assert runs(other.claim(3, GOLD)) == [2094, 2095]
    assert one.claim(3, GOLD) == other.claim(3, GOLD) == []


def test_a_claim_says_how_often_the_run_was_tried(books: Bookkeeping) -> None:
    books.label([2091])
    store = books.manager(books.start())
    (first,) = store.claim(1, GOLD)
    store.apply([failed(first)])
    (second,) = store.claim(1, GOLD)
    store.apply([released(second)])
    (third,) = store.claim(1, GOLD)
    assert [first, second, third] == [
        Claim(2091, attempt=1, token=1, failures=0),
        Claim(2091, attempt=2, token=2, failures=1),
        Claim(2091, attempt=3, token=3, failures=1),
    ]


def test_an_idle_manager_takes_no_write_lock(books: Bookkeeping) -> None:
    books.label([2091])
    store = books.manager(books.start())
    finish_all(store)
    commits = books.commits()
    with Database(books.path) as other, other.write():
        books.db.patience = 0.0
        assert store.claim(5, GOLD) == []
        assert not store.has_waiting(GOLD)
    assert books.commits() == commits


def test_a_claim_of_many_runs_is_one_transaction(books: Bookkeeping) -> None:
    books.label(range(2091, 2191))
    store = books.manager(books.start())
    commits = books.commits()
    claims = store.claim(100, GOLD)
    assert len(claims) == 100
    assert books.commits() == commits + 1


# --------------------------------------------------------------------------- which runs


def label_some(books: Bookkeeping) -> None:
    """Runs as real lists have them: in two datasets, in tranches, of no quality."""
    books.label([2103, 2091, 2092], "SiR2")
    books.label([3200, 3201], "Al50")
    books.label([3200, 3201, 3300], "Common", quality=None)
    books.label([100, 101], "Ti50", tranche=2)
    books.label([102, 103], "Ti50", tranche=1)
    books.label([104], "Ti50", tranche=1, quality="silver")
    books.label([90], "Pb", tranche=1, quality="silver")


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        pytest.param(
            GOLD, [3200, 3201, 2091, 2092, 2103, 102, 103, 100, 101], id="by default all gold runs"
        ),
        pytest.param(
            ANY,
            [3200, 3201, 3300, 90, 2091, 2092, 2103, 102, 103, 104, 100, 101],
            id="any quality, also none",
        ),
        pytest.param(RunFilter(qualities=("silver",)), [90, 104], id="another quality"),
        pytest.param(
            RunFilter(qualities=("silver", "gold"), datasets=("Ti50",)),
            [102, 103, 104, 100, 101],
            id="two qualities",
        ),
        pytest.param(RunFilter(datasets=("SiR2",)), [2091, 2092, 2103], id="a dataset"),
        pytest.param(RunFilter(datasets=("Ti50",)), [102, 103, 100, 101], id="tranche by tranche"),
        pytest.param(
            RunFilter(datasets=("SiR2", "Al50")), [2091, 2092, 2103, 3200, 3201], id="two datasets"
        ),
        pytest.param(
            RunFilter(datasets=("Al50", "SiR2")), [3200, 3201, 2091, 2092, 2103], id="as one asks"
        ),
        pytest.param(RunFilter(datasets=("Ti50",), tranches=(2,)), [100, 101], id="a tranche"),
        pytest.param(
            RunFilter(datasets=("Ti50",), tranches=(2, 1)), [100, 101, 102, 103], id="two tranches"
        ),
        pytest.param(RunFilter(tranches=(1,)), [102, 103], id="a tranche of all datasets"),
        pytest.param(RunFilter(datasets=("SiR2",), tranches=(1,)), [], id="in no tranche"),
        pytest.param(RunFilter(datasets=("Common",)), [], id="gold elsewhere is not gold here"),
        pytest.param(
            RunFilter(datasets=("Common",), qualities=()), [3200, 3201, 3300], id="of no quality"
        ),
        pytest.param(
            RunFilter(datasets=("Al50", "Common"), qualities=()),
            [3200, 3201, 3300],
            id="runs in two datasets once",
        ),
    ],
)
def test_what_is_asked_for_is_claimed_in_order(
    books: Bookkeeping, wanted: RunFilter, expected: list[int]
) -> None:
    label_some(books)
    store = books.manager(books.start(wanted=ANY))
    assert runs(store.claim(100, wanted)) == expected
    assert store.claim(100, wanted) == []


def test_a_production_has_only_the_runs_that_it_was_started_with(books: Bookkeeping) -> None:
    label_some(books)
    store = books.manager(books.start(wanted=GOLD))
    books.label([2104])
    assert runs(store.claim(100, ANY)) == [3200, 3201, 2091, 2092, 2103, 102, 103, 100, 101]


def test_two_datasets_with_the_same_runs_fill_a_claim(books: Bookkeeping) -> None:
    books.label([1, 2], "A")
    books.label([1, 2, 3, 4], "B")
    store = books.manager(books.start())
    assert runs(store.claim(3, RunFilter(datasets=("A", "B")))) == [1, 2, 3]


LABELS = st.builds(
    Label,
    run=st.integers(1, 12),
    dataset=st.sampled_from("ABC"),
    tranche=st.sampled_from([None, 1, 2]),
    quality=st.sampled_from([None, "gold", "silver"]),
)
FILTERS = st.builds(
    RunFilter,
    datasets=st.lists(st.sampled_from("ABC"), unique=True, max_size=2).map(tuple),
    tranches=st.lists(st.sampled_from([1, 2]), unique=True, max_size=2).map(tuple),
    qualities=st.sampled_from([(), ("gold",), ("gold", "silver")]),
)


def expected_order(labels: list[Label], wanted: RunFilter) -> list[int]:
    """Which runs a filter means, in the order of claiming, written down the slow way."""
    fitting = [
        label
        for label in labels
        if (not wanted.qualities or label.quality in wanted.qualities)
        and (not wanted.datasets or label.dataset in wanted.datasets)
        and (not wanted.tranches or label.tranche in wanted.tranches)
    ]
    datasets = wanted.datasets or tuple("ABC")
    fitting.sort(
        key=lambda label: (
            datasets.index(label.dataset),
            wanted.tranches.index(label.tranche or 0) if wanted.tranches else label.tranche or 0,
            label.run,
        )
    )
    return list(dict.fromkeys(label.run for label in fitting))


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(
    labels=st.lists(LABELS, min_size=1, unique_by=lambda label: (label.run, label.dataset)),
    filters=st.lists(st.tuples(FILTERS, st.integers(1, 5)), min_size=1, max_size=8),
)
def test_claims_follow_labels_and_filters(
    labels: list[Label], filters: list[tuple[RunFilter, int]]
) -> None:
    with ExitStack() as stack:
        directory = stack.enter_context(TemporaryDirectory())
        books = stack.enter_context(bookkeeping(Path(directory)))
        datasets.add(books.db, labels)
        store = books.manager(books.start(wanted=ANY))
        taken: list[int] = []
        for wanted, count in filters:
            left = [run for run in expected_order(labels, wanted) if run not in taken]
            assert runs(store.claim(count, wanted)) == left[:count]
            taken += left[:count]


# --------------------------------------------------------------------------- labels that change


def test_a_run_that_lost_its_labels_is_claimed_when_any_quality_will_do(
    books: Bookkeeping,
) -> None:
    books.label([1, 2, 3])
    store = books.manager(books.start())
    with books.db.write() as tx:
        tx.execute("DELETE FROM datasets WHERE run <= 2")
    check_sound(books)
    assert runs(store.claim(9, GOLD)) == [3]
    claims = store.claim(1, ANY)
    assert runs(claims) == [1]
    check_sound(books)
    store.apply([released(claims[0])])
    books.label([1], "Ti50")
    check_sound(books)
    assert runs(store.claim(9, RunFilter(datasets=("Ti50",)))) == [1]
    assert runs(store.claim(9, ANY)) == [2]


def test_new_labels_are_found_at_once(books: Bookkeeping) -> None:
    books.label([1, 2, 3], "A")
    store = books.manager(books.start())
    books.label([2], "B", tranche=4)
    assert runs(store.claim(9, RunFilter(tranches=(4,)))) == [2]
    books.label([1, 3], "A", tranche=5)
    assert runs(store.claim(1, RunFilter(datasets=("A",), tranches=(5,)))) == [1]
    with books.db.write() as tx:
        tx.execute("UPDATE datasets SET dataset = 'C' WHERE dataset = 'A'")
    assert store.claim(9, RunFilter(datasets=("A",))) == []
    with books.db.write() as tx:
        tx.execute("DELETE FROM datasets WHERE run = 3")
    assert store.claim(9, RunFilter(datasets=("C",))) == []


def test_runs_that_come_back_are_found_under_the_labels_of_today(books: Bookkeeping) -> None:
    books.label([1], "A", tranche=1)
    store = books.manager(books.start())
    (claim,) = store.claim(1, RunFilter(datasets=("A",)))
    books.label([1], "A", tranche=2)
    store.apply([released(claim)])
    assert store.claim(1, RunFilter(tranches=(1,))) == []
    assert runs(store.claim(1, RunFilter(tranches=(2,)))) == [1]


def test_labels_replaced_by_hand_do_not_double_a_run(tmp_path: Path) -> None:
    # REPLACE deletes a row without firing triggers (sqlite.org/lang_conflict.html).
    books = Bookkeeping(tmp_path)
    by_name = RunFilter(datasets=("A",), qualities=())

    def relabel(tranche: int) -> None:
        with books.db.write() as tx:
            tx.execute(
                "INSERT OR REPLACE INTO datasets VALUES (1, 'A', ?, 'gold', '', '')", (tranche,)
            )

    with books.db:
        books.label([1, 2], "A", tranche=1)
        store = books.manager(books.start())
        relabel(tranche=2)
        first = store.claim(9, by_name)
        assert runs(first) == [2, 1]
        assert store.claim(9, by_name) == []
        relabel(tranche=1)
        assert store.claim(9, by_name) == []
        finish(store, first[1])
        assert store.claim(9, by_name) == store.claim(9, RunFilter(tranches=(1,))) == []


# --------------------------------------------------------------------------- back-off


def test_a_failed_run_is_left_alone_until_its_back_off_is_over(books: Bookkeeping) -> None:
    books.label([2091, 2092])
    store = books.manager(books.start())
    first, second = store.claim(2, GOLD)
    store.apply([failed(first, wait=3600), failed(second, wait=0.05)])
    assert store.has_waiting(GOLD)
    until(lambda: runs(store.claim(2, GOLD)) == [2092])
    for wanted in (GOLD, ANY, RunFilter(datasets=("SiR2",))):
        assert store.claim(2, wanted) == []
        assert store.has_waiting(wanted)
    assert not store.has_waiting(RunFilter(datasets=("Al50",)))


class Clocks:
    """The clocks of one's own host and of another's, in the test's hands."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self._right = time.time_ns()
        self.passed = 1000.0  # seconds, the same everywhere
        here = SimpleNamespace(monotonic=lambda: self.passed)
        monkeypatch.setattr("production.store.rests.time", here)
        self.set()

    def set(self, ahead: float = 0.0) -> None:
        """From now on the host's clock is that of one that is ahead."""
        set_ = self._monkeypatch.setattr
        set_(time, "time", lambda: self._right / 1e9 + self.passed - 1000.0 + ahead)
        set_(time, "time_ns", lambda: round(time.time() * 1e9))


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    return Clocks(monkeypatch)


@pytest.mark.parametrize("ahead", [15, 200, 299, 301, 3600, 1e7, 1e9])
def test_a_rest_by_a_clock_that_is_ahead_is_as_long_as_any(
    books: Bookkeeping, clocks: Clocks, ahead: float
) -> None:
    """Or managers would wait for years, or all attempts would be used up within seconds."""
    books.label([2091])
    production = books.start()
    store, other = books.manager(production), books.manager(production)
    for number in (1, 2):
        (claim,) = store.claim(1, GOLD)
        assert claim.attempt == number
        clocks.set(ahead)
        store.apply([failed(claim, wait=10)])
        clocks.set()
        for observer in (store, other):
            assert observer.claim(1, GOLD) == []
            assert observer.next_claim(GOLD) is None
            assert observer.has_waiting(GOLD)
        clocks.passed += 9.9
        assert store.claim(1, GOLD) == other.claim(1, GOLD) == []
        clocks.passed += 0.2
        assert other.next_claim(GOLD) == store.next_claim(GOLD)
    (again,) = other.claim(1, GOLD)
    assert again.attempt == 3
    # What is returned without blame does not rest, whoever had set the end of a rest before.
    other.apply([released(again)])
    assert runs(store.claim(1, GOLD)) == [2091]


def test_many_rests_by_a_clock_that_is_ahead_hide_no_run_behind_them(
    books: Bookkeeping, clocks: Clocks
) -> None:
    books.label(range(1, 201))
    store = books.manager(books.start())
    claims = store.claim(190, GOLD)
    clocks.set(3600)
    store.apply([failed(claim, wait=10) for claim in claims])
    clocks.set()
    assert runs(store.claim(3, GOLD)) == [191, 192, 193]
    assert runs(store.claim(100, GOLD)) == list(range(194, 201))
    assert store.claim(3, GOLD) == []
    clocks.passed += 10.1
    assert runs(store.claim(200, GOLD)) == list(range(1, 191))


def test_rests_that_are_over_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    clocks = Clocks(monkeypatch)
    rests = Rests()
    assert not rests.is_over(1, 1, 10.0)
    assert not rests.is_over(2, 1, 5000.0)
    clocks.passed += KEPT
    rests.forget()
    assert rests.is_over(1, 1, 10.0)
    assert not rests.is_over(2, 1, 10.0)
    clocks.passed += 11.0
    rests.forget()
    assert not rests.is_over(1, 1, 10.0)  # measured anew, if it still is there


def test_nothing_is_due_when_all_attempts_are_used_up(books: Bookkeeping) -> None:
    books.label([2091])
    store = books.manager(books.start())
    for _ in range(3):
        (claim,) = store.claim(1, GOLD)
        store.apply([failed(claim, max_attempts=3)])
    assert status_of(store, claim) is Status.ERROR
    assert store.at_error(10) == [2091]
    assert store.claim(1, GOLD) == []
    assert not store.has_waiting(GOLD)


# --------------------------------------------------------------------------- derived productions


def test_a_derived_production_takes_what_its_base_has_finished(books: Bookkeeping) -> None:
    books.label([1, 2, 3, 4], "A")
    base = books.start()
    maker = books.manager(base)
    store = books.manager(books.start("rootana", base=base))
    by_name = RunFilter(datasets=("A",))
    assert store.claim(9, GOLD) == store.claim(9, by_name) == []
    assert not store.has_waiting(GOLD)
    assert store.waiting_for_base() == 4

    one, two, three, _ = maker.claim(4, GOLD)
    finish(maker, two)
    run_job(maker, three)
    maker.apply([failed(one, max_attempts=1)])
    assert store.waiting_for_base() == 3
    assert runs(store.claim(9, GOLD)) == [2]

    maker.apply([finished(three)])
    assert runs(store.claim(9, by_name)) == [3]
    assert store.waiting_for_base() == 2


def test_only_the_own_base_counts(books: Bookkeeping) -> None:
    books.label([1, 2])
    first, second = books.start(), books.start()
    finish_all(books.manager(first))
    derived = books.manager(books.start("rootana", base=second))
    assert derived.claim(9, GOLD) == []
    assert runs(books.manager(books.start("rootana", base=first)).claim(9, GOLD)) == [1, 2]


def test_a_run_that_its_base_does_again_waits(books: Bookkeeping) -> None:
    books.label([1, 2])
    base = books.start()
    finish_all(books.manager(base))
    store = books.manager(books.start("rootana", base=base))
    with books.db.write() as tx:
        tx.execute("UPDATE alcapana_v1 SET status = 'N' WHERE run = 1")
    assert runs(store.claim(9, GOLD)) == [2]
    assert store.waiting_for_base() == 1


# --------------------------------------------------------------------------- lost claims


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("status", ["C", "R"])
def test_after_a_take_over_the_old_manager_changes_nothing(
    books: Bookkeeping, name: str, status: str
) -> None:
    books.label([2091])
    production = books.start()
    slow, quick = books.manager(production), books.manager(production)
    (claim,) = slow.claim(1, GOLD)
    if status == "R":
        run_job(slow, claim)
    (orphan,) = quick.take_over(slow.manager)
    assert orphan.claim == Claim(2091, attempt=1, token=2)
    before = books.dump()
    assert slow.apply([CHANGES[name](claim)]) == [claim]
    # Not even with the new token, which is the other's.
    assert slow.apply([CHANGES[name](orphan.claim)]) == [orphan.claim]
    assert books.dump() == before
    assert quick.apply([released(orphan.claim)]) == []


@pytest.mark.parametrize("name", CHANGES)
def test_an_old_claim_of_the_same_manager_changes_nothing(books: Bookkeeping, name: str) -> None:
    books.label([2091])
    store = books.manager(books.start())
    (old,) = store.claim(1, GOLD)
    store.apply([released(old)])
    (new,) = store.claim(1, GOLD)
    run_job(store, new)
    before = books.dump()
    assert store.apply([CHANGES[name](old)]) == [old]
    assert books.dump() == before


@pytest.mark.parametrize("name", CHANGES)
def test_a_run_given_back_by_hand_is_lost_to_its_manager(books: Bookkeeping, name: str) -> None:
    books.label([2091])
    store = books.manager(books.start())
    (claim,) = store.claim(1, GOLD)
    with books.db.write() as tx:
        tx.execute("UPDATE alcapana_v1 SET status = 'N' WHERE run = 2091")
    before = books.dump()
    assert store.apply([CHANGES[name](claim)]) == [claim]
    assert books.dump() == before


def test_a_lost_claim_concerns_its_run_only(books: Bookkeeping) -> None:
    books.label([1, 2, 3])
    store = books.manager(books.start())
    one, two, three = store.claim(3, GOLD)
    with books.db.write() as tx:
        tx.execute("UPDATE alcapana_v1 SET status = 'N' WHERE run = 2")
    assert store.apply([submitted(one), submitted(two), released(three)]) == [two]
    assert books.column("SELECT status FROM run ORDER BY run") == ["R", "N", "N"]


def test_a_dead_managers_runs_come_with_all_that_is_known(books: Bookkeeping) -> None:
    books.label([1, 2, 3])
    production = books.start()
    dead, heir = books.manager(production), books.manager(production)
    _, two, three = dead.claim(3, GOLD)
    dead.apply([intended(two), intended(three), submitted(three)])
    orphans = heir.take_over(dead.manager)
    assert [o.claim for o in orphans] == [Claim(run, attempt=1, token=2) for run in (1, 2, 3)]
    assert [o.status for o in orphans] == [Status.CLAIMED, Status.CLAIMED, Status.RUNNING]
    assert [o.job_name for o in orphans] == [None, books.job_name(two), books.job_name(three)]
    assert [o.job_id for o in orphans] == [None, None, submitted(three).job]
    assert [o.spool for o in orphans] == [None, intended(two).spool, intended(three).spool]
    assert [o.batch for o in orphans] == [None, "local", "local"]
    assert heir.held() == [o.claim for o in orphans]
    assert dead.held() == []


def test_what_is_taken_over_once_is_not_taken_over_twice(books: Bookkeeping) -> None:
    books.label([1, 2])
    production = books.start()
    dead, heir, late = (books.manager(production) for _ in range(3))
    dead.claim(2, GOLD)
    assert len(heir.take_over(dead.manager)) == 2
    assert late.take_over(dead.manager) == []


def test_runs_that_are_out_of_reach_stay_with_the_dead(books: Bookkeeping) -> None:
    books.label([1, 2, 3])
    production = books.start()
    dead, heir = books.manager(production), books.manager(production)
    claims = dead.claim(3, GOLD)
    taken = heir.take_over(dead.manager, lambda orphan: orphan.claim.run != 2)
    assert [orphan.claim.run for orphan in taken] == [1, 3]
    assert heir.orphans(dead.manager) == [
        Orphan(replace(claims[1], token=2), Status.CLAIMED, None, None, None, None)
    ]
    assert dead.held() == [claims[1]]
    assert heir.apply([released(orphan.claim) for orphan in taken]) == []
    assert dead.apply([released(claim) for claim in claims]) == [claims[0], claims[2]]


def test_what_changes_while_it_is_looked_at_is_not_taken_over(books: Bookkeeping) -> None:
    """The manager only seemed to be dead, and goes on: its files may be closed to the other."""
    books.label([1, 2])
    production = books.start()
    dead, heir = books.manager(production), books.manager(production)
    one, _ = dead.claim(2, GOLD)

    def goes_on_meanwhile(orphan: Orphan) -> bool:
        dead.apply([intended(one)])
        return orphan.job_name is None

    taken = heir.take_over(dead.manager, goes_on_meanwhile)
    assert [orphan.claim.run for orphan in taken] == [2]
    assert dead.held() == [one]


def test_runs_of_other_productions_stay_where_they_are(books: Bookkeeping) -> None:
    books.label([1])
    first, second = books.manager(books.start()), books.manager(books.start())
    first.claim(1, GOLD)
    assert second.take_over(first.manager) == []
    assert first.held() == [Claim(1, attempt=1, token=1)]


# --------------------------------------------------------------------------- batches


def test_many_changes_are_one_transaction(books: Bookkeeping) -> None:
    books.label(range(1, 101))
    store = books.manager(books.start())
    claims = store.claim(100, GOLD)
    for change in (intended, submitted, finished):
        commits = books.commits()
        assert store.apply([change(claim) for claim in claims]) == []
        assert books.commits() == commits + 1
    commits = books.commits()
    assert store.apply([]) == []
    assert books.commits() == commits


def test_a_batch_is_recorded_as_a_whole_or_not_at_all(books: Bookkeeping) -> None:
    books.label([1, 2, 3])
    store = books.manager(books.start())
    one, two, three = store.claim(3, GOLD)
    before = books.dump()
    with pytest.raises(sqlite3.IntegrityError, match="not lawful"):
        store.apply([submitted(one), finished(two), released(three)])  # 2 was never submitted
    assert books.dump() == before


def test_the_production_stops_with_its_last_run(books: Bookkeeping) -> None:
    books.label([1, 2, 3])
    store = books.manager(books.start())
    one, two, three = store.claim(3, GOLD)
    finish(store, one)
    run_job(store, two)
    run_job(store, three)
    store.apply([failed(three, max_attempts=1)])
    store.apply([finished(two)])
    assert books.cell("SELECT stop FROM productions") is None
    with books.db.write() as tx:
        tx.execute("UPDATE alcapana_v1 SET status = 'N' WHERE run = 3")
    (again,) = store.claim(1, GOLD)
    finish(store, again)
    stop = books.cell("SELECT stop FROM productions")
    assert stop == books.cell("SELECT max(stop) FROM attempt") or str(stop) > str(
        books.cell("SELECT max(stop) FROM attempt")
    )
    check_sound(books)
