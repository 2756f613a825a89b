"""Who holds what is seen, and what the dead have left is taken back; nothing runs twice."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from bookkeeping import (
    ANY,
    Bookkeeping,
    bookkeeping,
    finished,
    intended,
    run_job,
    submitted,
)
from experiment import Experiment, ManagerProcess, experiment

from production.cli import main
from production.identity import Identity, this_process
from production.store import managers
from production.store.holdings import Holding, holdings, states, take_back, take_by_force
from production.store.managers import LeaseWatch
from production.store.runs import RunStore

ME = this_process()
ELSEWHERE = Identity("colleague", "lxplus7", "another boot", 4711, 1)
GONE = replace(ME, user="colleague", pid_start=1)  # this pid, but another process


class Held:
    """A manager that holds a claim, one with an intent to submit, and one with a job."""

    def __init__(self, books: Bookkeeping, who: Identity, lease: int = 600) -> None:
        production = books.start()
        id_ = managers.register(books.db, who, production.id, lease)
        self.books = books
        self.store = RunStore(books.db, production, id_)
        self.bare, self.intent, self.job = self.store.claim(3, ANY)
        self.store.apply([intended(self.intent)])
        run_job(self.store, self.job)

    @property
    def holding(self) -> Holding:
        (found,) = holdings(self.books.db, [self.store.production])
        return found

    def next_one(self) -> tuple[RunStore, list[tuple[int, str | None]]]:
        """Another manager, and what it adopts at once from managers that it sees to be dead."""
        store = self.books.manager(self.store.production)
        dead = [
            holder
            for holder in managers.holders(self.books.db, store.production.id, store.manager)
            if holder.alive is False
        ]
        taken = [orphan for holder in dead for orphan in store.take_over(holder.id)]
        return store, [(orphan.claim.run, orphan.job_name) for orphan in taken]


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Bookkeeping]:
    with bookkeeping(tmp_path) as books:
        books.label([1, 2, 3])
        yield books


def state(watch: LeaseWatch, held: Held) -> bool | None:
    (alive,) = states(watch, [held.holding]).values()
    return alive


# --------------------------------------------------------------------------- seeing


def test_it_is_seen_who_holds_what(books: Bookkeeping) -> None:
    held = Held(books, ELSEWHERE)
    other = Held(books, GONE)
    books.manager(books.start())  # holds nothing
    found = holdings(books.db, [held.store.production, other.store.production])
    assert [(h.holder.id, h.holder.user, h.production.label) for h in found] == [
        (held.store.manager, "colleague", "alcapana_v1"),
        (other.store.manager, "colleague", "alcapana_v2"),
    ]
    assert [(h.claims, h.jobs) for h in found] == [(1, 2), (1, 2)]
    assert [h.holder.alive for h in found] == [None, False]
    assert held.holding == found[0]


def test_a_manager_elsewhere_is_judged_by_its_signs_of_life(books: Bookkeeping) -> None:
    held = Held(books, ELSEWHERE)
    watch = LeaseWatch()
    assert state(watch, held) is None
    assert state(watch, held) is None  # silent, but not for the length of its lease
    managers.beat(books.db, held.store.manager)
    assert state(watch, held) is True


def test_a_manager_elsewhere_that_stays_silent_for_its_lease_is_dead(books: Bookkeeping) -> None:
    held = Held(books, ELSEWHERE, lease=-1)  # over already
    assert state(LeaseWatch(), held) is False


def test_a_manager_that_has_ended_is_dead_wherever_it_was(books: Bookkeeping) -> None:
    held = Held(books, ELSEWHERE)
    managers.sign_off(books.db, held.store.manager)
    assert state(LeaseWatch(), held) is False


# --------------------------------------------------------------------------- taking back


def test_of_a_dead_manager_claims_return_and_jobs_are_adopted_at_once(books: Bookkeeping) -> None:
    held = Held(books, ELSEWHERE)
    done = take_back(books.db, held.holding, ME)
    assert (done.returned, done.left, done.kept) == (
        [held.bare.run],
        [held.intent.run, held.job.run],
        [],
    )
    assert books.column("SELECT status FROM run ORDER BY run") == ["N", "C", "R"]
    assert books.rows("SELECT outcome, reason FROM attempt ORDER BY run")[0] == (
        "rolled back",
        f"taken back by {ME.user}",
    )
    _, adopted = held.next_one()  # does not wait for the lease of a manager elsewhere
    assert adopted == [
        (held.intent.run, books.job_name(held.intent)),
        (held.job.run, books.job_name(held.job)),
    ]


def test_a_manager_taken_for_dead_goes_on_with_the_jobs_that_nobody_took(
    books: Bookkeeping,
) -> None:
    held = Held(books, ELSEWHERE)
    take_back(books.db, held.holding, ME)
    assert managers.beat(books.db, held.store.manager) is False  # it learns of it
    assert held.store.apply([finished(held.job)]) == []
    assert held.store.apply([intended(held.bare)]) == [held.bare]


def test_by_force_the_runs_are_taken_whatever_the_manager_does(books: Bookkeeping) -> None:
    held = Held(books, ME)
    done = take_by_force(books.db, held.holding, ME, lambda _: True)
    assert (done.returned, done.left, done.kept) == (
        [held.bare.run],
        [held.intent.run, held.job.run],
        [],
    )
    managers.beat(books.db, held.store.manager)  # it lives
    for change in (submitted(held.intent), finished(held.job), intended(held.bare)):
        assert held.store.apply([change]) == [change.claim]
    assert held.store.held() == []
    adopter, adopted = held.next_one()
    assert [run for run, _ in adopted] == [held.intent.run, held.job.run]
    (orphan,) = [claim for claim in adopter.held() if claim.run == held.job.run]
    assert orphan.token > held.job.token + 1
    assert adopter.apply([finished(orphan)]) == []
    assert books.column("SELECT DISTINCT manager FROM attempt") == [held.store.manager]


def test_by_force_runs_out_of_reach_stay_with_their_manager(books: Bookkeeping) -> None:
    held = Held(books, ELSEWHERE)
    done = take_by_force(
        books.db, held.holding, ME, lambda orphan: orphan.claim.run != held.job.run
    )
    assert (done.returned, done.left, done.kept) == (
        [held.bare.run],
        [held.intent.run],
        [held.job.run],
    )
    assert held.store.apply([finished(held.job)]) == []


def test_what_comes_to_a_job_at_the_last_moment_is_not_returned(books: Bookkeeping) -> None:
    held = Held(books, ME)

    def submit_meanwhile(_: object) -> bool:
        held.store.apply([intended(held.bare)])
        return True

    done = take_by_force(books.db, held.holding, ME, submit_meanwhile)
    assert done.returned == []
    assert done.left == [held.bare.run, held.intent.run, held.job.run]


# --------------------------------------------------------------------------- the command


def command(books: Bookkeeping, *words: str) -> int:
    return main(["recover", *words, f"--database={books.path}"])


def test_the_command_takes_back_from_the_dead_only(
    books: Bookkeeping, capsys: pytest.CaptureFixture[str]
) -> None:
    living, dead, unknown = Held(books, ME), Held(books, GONE), Held(books, ELSEWHERE)
    before = books.dump()
    assert command(books, "--dry-run", "--output=json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["production"], row["state"], row["done"]) for row in rows] == [
        ("alcapana_v1", "alive", ""),
        ("alcapana_v2", "dead", ""),
        ("alcapana_v3", "unknown", ""),
    ]
    assert books.dump() == before
    assert command(books, "--watch=0.1") == 0
    said = capsys.readouterr().out
    assert said.count("1 returned, 2 left for the next manager") == 1
    held = [[claim.run for claim in each.store.held()] for each in (living, dead, unknown)]
    assert held == [[1, 2, 3], [2, 3], [1, 2, 3]]
    assert command(books, "--force", f"--manager={unknown.store.manager}") == 0
    # The spools that a test names do not exist: their files are closed to everybody.
    assert "1 returned, 2 kept, for their files are closed to you" in capsys.readouterr().out
    assert command(books, "--manager=999") == 0
    assert capsys.readouterr().out == "Manager 999 holds no runs.\n"


def test_force_needs_to_know_against_whom(books: Bookkeeping) -> None:
    assert command(books, "--force") == 2
    assert command(books, "--version=1") == 2
    assert command(books, "--production=alcapana") == 18


# --------------------------------------------------------------------------- whole programs


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Experiment]:
    with experiment(tmp_path) as lab:
        lab.open_archive()
        yield lab


def occupied(lab: Experiment) -> ManagerProcess:
    """A manager at work on a job, with two more runs in hand."""
    lab.hold("payload")
    manager = lab.start("--nproc=1", "--nprep=2")
    manager.until(lambda: sorted(lab.statuses()) == ["C", "C", "R"], "the first job")
    manager.until(lambda: len(lab.ledger("begin")) == 1, "its payload")
    return manager


@pytest.mark.slow
def test_after_a_killed_manager(lab: Experiment) -> None:
    manager = occupied(lab)
    manager.send(signal.SIGKILL)
    manager.wait()
    assert "2 returned, 1 left for the next manager" in lab.production("recover")
    assert sorted(lab.statuses()) == ["N", "N", "R"]
    assert "Adopted run" in lab.finish().said
    assert lab.production("recover") == "No manager holds runs.\n"
    assert set(lab.completions().values()) == {1}


@pytest.mark.slow
@pytest.mark.parametrize("asleep", [False, True])
def test_by_force_from_a_manager_that_lives(lab: Experiment, asleep: bool) -> None:
    manager = occupied(lab)
    if asleep:
        manager.send(signal.SIGSTOP)
    assert "alive" in lab.production("recover")
    said = lab.production("recover", "--force", "--manager=1")
    assert "2 returned, 1 left for the next manager" in said
    second = lab.start()
    second.until_it_says("Adopted run")
    if asleep:
        manager.send(signal.SIGCONT)
    lab.let_go("payload")
    assert second.wait() == 0, second.said
    assert manager.wait() == 0, manager.said
    assert "was taken over by somebody else" in manager.said
    # It has swept away what it had prepared for jobs that it could not submit any more.
    lab.check_nothing_under_way()
    assert lab.completions() == dict.fromkeys(lab.runs, 1)
