"""People send runs back with commands: what is lawful is done, else they are told why not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from bookkeeping import (
    ANY,
    Bookkeeping,
    bookkeeping,
    failed,
    finish,
    finish_all,
    finished,
    intended,
    run_job,
    submitted,
)

from production.cli import main
from production.identity import Identity, current_user, this_process
from production.model import Claim, Finished, Status
from production.store import managers
from production.store.choice import RunChoice
from production.store.interventions import Asked, release, retry, standing_at
from production.store.runs import RunStore

ME = this_process()
ELSEWHERE = Identity("colleague", "lxplus7", "another boot", 4711, 1)
GONE = replace(ME, user="colleague", pid_start=1)  # this pid, but another process


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Bookkeeping]:
    with bookkeeping(tmp_path) as books:
        books.label(range(1, 7))
        books.label([5, 6], "Al50", tranche=1)
        yield books


@pytest.fixture
def store(books: Bookkeeping) -> RunStore:
    return books.manager(books.start())


def manager(books: Bookkeeping, store: RunStore, who: Identity) -> RunStore:
    """A manager of the same production that is somebody else's process."""
    production = store.production
    return RunStore(books.db, production, managers.register(books.db, who, production.id))


def claim(store: RunStore, run: int) -> Claim:
    """Claim one run, whichever it is."""
    with store.db.write() as tx:  # the others wait
        tx.execute("UPDATE run SET not_before = '9999' WHERE run <> ? AND status = 'N'", (run,))
    (claim,) = store.claim(1, ANY)
    with store.db.write() as tx:
        tx.execute("UPDATE run SET not_before = NULL WHERE not_before = '9999'")
    return claim


def fail(store: RunStore, run: int, *reasons: str) -> None:
    """Have a run fail, at last for good."""
    for number, reason in enumerate(reasons, 1):
        last = number == len(reasons)
        change = failed(claim(store, run), max_attempts=number if last else 99)
        store.apply([replace(change, reason=reason)])


def statuses(books: Bookkeeping, type_: str = "alcapana") -> str:
    return "".join(books.column(f"SELECT status FROM {type_}_v1 ORDER BY run"))


# --------------------------------------------------------------------------- retry


def test_failed_runs_are_chosen_by_number_dataset_and_reason(
    books: Bookkeeping, store: RunStore
) -> None:
    fail(store, 1, "bank ADC0 is damaged")
    fail(store, 2, "bank ADC0 is damaged", "No space left")
    fail(store, 5, "BANK ADC1 is damaged")

    def found(*runs: int, datasets: tuple[str, ...] = (), reason: str = "") -> list[int]:
        chosen = RunChoice(runs, datasets)
        return standing_at(books.db, store.production, chosen, Status.ERROR, reason)

    assert found() == [1, 2, 5]
    assert found(2, 3, 5) == [2, 5]
    assert found(datasets=("Al50",)) == [5]
    assert found(reason="bank adc") == [1, 5]  # of run 2 it is not the latest
    assert found(reason="100%") == []
    assert found(1, reason="space") == []
    assert retry(books.db, store.production, RunChoice([1, 2]), reason="space") == [2]
    assert statuses(books) == "ENNNEN"
    assert retry(books.db, store.production) == [1, 5]
    assert books.column("SELECT DISTINCT failures FROM run") == [0]


def test_finished_runs_are_done_again(books: Bookkeeping, store: RunStore) -> None:
    finish_all(store)
    derived = books.start("rootana", base=store.production)
    assert books.cell("SELECT stop IS NOT NULL FROM productions WHERE type = 'alcapana'") == 1
    assert retry(books.db, store.production, RunChoice([1, 2]), Status.FINISHED) == [1, 2]
    assert statuses(books) == "NNFFFF"
    assert books.cell("SELECT stop FROM productions WHERE type = 'alcapana'") is None
    # What is made from them waits until they are there again.
    assert finish_all(books.manager(derived)) == [5, 6, 3, 4]
    assert finish_all(store) == [1, 2]
    assert books.column("SELECT attempt FROM run WHERE production = 1") == [2, 2, 1, 1, 1, 1]


def test_the_command_retries_what_it_is_told(
    books: Bookkeeping, store: RunStore, capsys: pytest.CaptureFixture[str]
) -> None:
    fail(store, 1, "crash")
    fail(store, 2, "tape")
    command = ["retry", "--production=alcapana", f"--database={books.path}"]
    assert main([*command, "1-3", "--reason=tape"]) == 0
    assert capsys.readouterr().out == (
        "alcapana_v1: 1 run will be tried again: 2\n"
        "alcapana_v1: these do not stand at E with that reason and stay as they are: 1,3\n"
    )
    assert main([*command, "--dataset=nil"]) == 17
    assert main(command) == 0
    assert capsys.readouterr().out == "alcapana_v1: 1 run will be tried again: 1\n"


def test_runs_outside_of_the_dataset_are_told_so(
    books: Bookkeeping, store: RunStore, capsys: pytest.CaptureFixture[str]
) -> None:
    fail(store, 1, "crash")
    fail(store, 5, "crash")
    which = ["--production=alcapana", "--dataset=Al50", f"--database={books.path}"]
    assert main(["release", "1", *which]) == 48
    assert "run 1 is not in alcapana_v1, or not in that dataset\n" in capsys.readouterr().err
    assert main(["retry", "1,5", *which]) == 0
    assert capsys.readouterr().out == (
        "alcapana_v1: 1 run will be tried again: 5\n"
        "alcapana_v1: these do not stand at E in that dataset and stay as they are: 1\n"
    )


@pytest.mark.parametrize("command", ["retry", "export", "audit", "history"])
def test_runs_of_which_none_exists_are_a_mistake(
    books: Bookkeeping, store: RunStore, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    fail(store, 1, "crash")
    words = [command, "--production=alcapana", f"--database={books.path}"]
    assert main([*words, "99-100"]) == 18
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("ERROR: Nothing is known of runs 99, 100 in alcapana_v1. See: ")
    assert main([*words, "1-100"]) == 0  # ranges have gaps


def test_history_tells_a_run_that_was_tried_twice_once(
    books: Bookkeeping, store: RunStore, capsys: pytest.CaptureFixture[str]
) -> None:
    claim(store, 1)
    release(books.db, store.production, RunChoice([1]), ME)
    claim(store, 1)
    assert main(["history", "1,2", "--output=quiet", f"--database={books.path}"]) == 0
    assert capsys.readouterr().out == "1\n2\n"


def test_finished_runs_need_a_confirmation_and_their_outputs_out_of_the_way(
    books: Bookkeeping, store: RunStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held = claim(store, 3)
    change = finished(held)
    tree, *others = change.record.outputs
    path = tmp_path / "tree.root"
    path.touch()
    outputs = (replace(tree, path=path), *others)
    store.apply([submitted(held)])
    store.apply([Finished(held, replace(change.record, outputs=outputs), tmp_path, tmp_path)])
    command = ["retry", "--production=alcapana", f"--database={books.path}"]
    for words in (["3", "--status=F"], ["--status=F", "--again"], ["3", "--again"]):
        assert main([*command, *words]) == 2
    assert main([*command, "3,4", "--status=F", "--again"]) == 48
    said = capsys.readouterr().err
    assert f"Outputs of these runs are still there (1), the first is {path}. " in said
    assert statuses(books) == "NNFNNN"
    path.unlink()
    assert main([*command, "3,4", "--status=F", "--again"]) == 0
    assert capsys.readouterr().out == (
        "alcapana_v1: 1 run will be done again: 3\n"
        "alcapana_v1: these do not stand at F and stay as they are: 4\n"
    )
    assert main([*command, "3,4", "--status=F", "--again"]) == 0
    assert "0 runs will be done again\n" in capsys.readouterr().out
    assert statuses(books) == "NNNNNN"


# --------------------------------------------------------------------------- release


def test_claims_of_ones_own_and_of_the_dead_are_given_back(
    books: Bookkeeping, store: RunStore
) -> None:
    mine = claim(store, 1)
    theirs = claim(manager(books, store, GONE), 2)
    ended = manager(books, store, ELSEWHERE)
    third = claim(ended, 3)
    managers.sign_off(books.db, ended.manager)
    asked = release(books.db, store.production, RunChoice([1, 2, 3]), ME)
    assert [(answer.run, answer.released) for answer in asked] == [(1, True), (2, True), (3, True)]
    assert asked[0].why == f"was held by manager {store.manager} ({ME.user} on {ME.host})"
    assert statuses(books) == "NNNNNN"
    assert books.rows("SELECT DISTINCT outcome, reason, stop IS NULL FROM attempt") == [
        ("rolled back", f"given back by {ME.user}", 0)
    ]
    # Who held them finds out.
    assert store.apply([intended(mine)]) == [mine]
    assert ended.apply([intended(theirs), intended(third)]) == [theirs, third]
    assert claim(store, 1).token > mine.token


def test_what_must_not_be_given_back_is_refused_with_its_reason(
    books: Bookkeeping, store: RunStore
) -> None:
    run_job(store, claim(store, 1))
    store.apply([intended(claim(store, 2))])
    other = manager(books, store, ELSEWHERE)
    claim(other, 3)
    dead = manager(books, store, GONE)
    run_job(dead, claim(dead, 4))
    finish(store, claim(store, 5))
    before = books.dump()
    asked = release(books.db, store.production, RunChoice([1, 2, 3, 4, 5, 6, 77]), ME)
    a_job = f"has a job: see production stop or kill --manager={store.manager}"
    assert asked == [
        Asked(1, False, a_job),
        Asked(2, False, a_job),
        Asked(
            3,
            False,
            f"is held by manager {other.manager} (colleague on lxplus7): see production recover",
        ),
        Asked(
            4,
            False,
            f"has a job, and manager {dead.manager} (colleague on {ME.host}) is gone: "
            "the next manager takes it over",
        ),
        Asked(5, False, "stands at F: nobody holds it"),
        Asked(6, False, "stands at N: nobody holds it"),
        Asked(77, False, "is not in alcapana_v1"),
    ]
    assert books.dump() == before


def test_of_a_dataset_only_runs_that_are_held_are_meant(
    books: Bookkeeping, store: RunStore
) -> None:
    claim(store, 5)
    claim(store, 1)
    asked = release(books.db, store.production, RunChoice(datasets=["Al50"]), ME)
    assert [(answer.run, answer.released) for answer in asked] == [(5, True)]
    assert statuses(books) == "CNNNNN"


def test_the_command_tells_of_each_run(
    books: Bookkeeping, store: RunStore, capsys: pytest.CaptureFixture[str]
) -> None:
    claim(store, 1)
    command = ["release", "--production=alcapana", f"--database={books.path}"]
    assert main([*command, "1,2"]) == 48
    said = capsys.readouterr()
    assert f" was held by manager {store.manager} ({current_user()} on " in said.out
    assert said.err == ("ERROR: Not released (1 of 2): run 2 stands at N: nobody holds it\n")
    assert main(command) == 2
    claim(store, 2)
    assert main([*command, "2", "--output=quiet"]) == 0
    assert capsys.readouterr().out == ""
