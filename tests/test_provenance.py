"""What was tried at a run, and what an output was made from, can always be told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from bookkeeping import (
    ANY,
    Bookkeeping,
    bookkeeping,
    failed,
    finish,
    finish_all,
    intended,
    released,
    submitted,
)

from production.cli import main
from production.errors import NotRecorded, UnknownProduction, UsageError
from production.store import history, trace
from production.store.choice import RunChoice, choose_productions
from production.store.trace import Provenance


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Bookkeeping]:
    with bookkeeping(tmp_path) as books:
        books.label(range(1, 4))
        books.label([3, 4], "Al50")
        yield books


def history_of(books: Bookkeeping, *runs: int, datasets: tuple[str, ...] = ()) -> list[object]:
    everywhere = choose_productions(books.db, None, None)
    found = history.attempts(books.db, RunChoice(runs, datasets), everywhere)
    return [(tried.run, tried.production, tried.attempt, tried.outcome) for tried in found]


# --------------------------------------------------------------------------- history


def test_all_attempts_in_all_productions_are_told_in_order(books: Bookkeeping) -> None:
    first = books.manager(books.start())
    (claim,) = first.claim(1, ANY)
    first.apply([failed(claim)])
    (claim,) = first.claim(1, ANY)
    finish(first, claim)
    second = books.manager(books.start())
    (claim,) = second.claim(1, ANY)
    assert claim.run == 3  # Al50 comes first
    assert history_of(books, 3, 2) == [
        (2, "alcapana_v1", None, None),
        (2, "alcapana_v2", None, None),
        (3, "alcapana_v1", 1, "failed"),
        (3, "alcapana_v1", 2, "finished"),
        (3, "alcapana_v2", 1, None),
    ]
    second.apply([released(claim)])


def test_an_attempt_tells_who_where_when_and_why(books: Bookkeeping) -> None:
    store = books.manager(books.start())
    (claim,) = store.claim(1, ANY)
    store.apply([intended(claim), submitted(claim)])
    store.apply([failed(claim)])
    (tried,) = history.attempts(
        books.db, RunChoice([claim.run]), choose_productions(books.db, None, None)
    )
    manager = books.rows("SELECT user, host FROM manager")
    assert [(tried.user, tried.manager_host)] == manager
    assert (tried.batch, tried.job, tried.exit_code) == ("local", "job-3-1", 139)
    assert tried.reason == "alcapana was killed by SIGSEGV"
    assert tried.claimed and tried.start and tried.stop
    assert tried.claimed <= tried.start <= tried.stop


def test_runs_are_chosen_by_dataset_as_well(books: Bookkeeping) -> None:
    books.start()
    assert history_of(books, datasets=("Al50",)) == [
        (3, "alcapana_v1", None, None),
        (4, "alcapana_v1", None, None),
    ]
    assert history_of(books, 1, 2, 3, datasets=("Al50",)) == [(3, "alcapana_v1", None, None)]


def test_a_run_that_nobody_knows_is_said_so(books: Bookkeeping) -> None:
    books.start()
    with pytest.raises(NotRecorded, match=r"run 7 in alcapana_v1\."):
        history_of(books, 7)
    with pytest.raises(NotRecorded, match=r"runs 7, 8, 9, 10, 11, … of dataset SiR2"):
        history_of(books, *range(7, 100), datasets=("SiR2",))


def test_productions_are_chosen_by_type_and_version(books: Bookkeeping) -> None:
    def labels(*which: object) -> list[str]:
        return [production.label for production in choose_productions(books.db, *which)]  # type: ignore[arg-type]

    base = books.start()
    books.start()
    books.start("rootana", base=base)
    assert labels(None, None) == ["alcapana_v1", "alcapana_v2", "rootana_v1"]
    assert labels("alcapana", None) == ["alcapana_v1", "alcapana_v2"]
    assert labels("alcapana", 2) == ["alcapana_v2"]
    with pytest.raises(UnknownProduction):
        labels("alcapana", 3)
    with pytest.raises(UsageError):
        labels(None, 1)


def test_the_command_shows_history_as_table_and_json(
    books: Bookkeeping, capsys: pytest.CaptureFixture[str]
) -> None:
    store = books.manager(books.start())
    (claim,) = store.claim(1, ANY)
    store.apply([failed(claim, max_attempts=1)])
    where = f"--database={books.path}"
    assert main(["history", "3", where]) == 0
    assert "alcapana was killed by SIGSEGV" in capsys.readouterr().out
    assert main(["history", "1-9", "--dataset=Al50", "--output=json", where]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["run"], row["status"], row["outcome"]) for row in rows] == [
        (3, "E", "failed"),
        (4, "N", None),
    ]
    assert main(["history", where]) == 2
    assert main(["history", "--dataset=nil", where]) == 17
    assert main(["history", "9", where]) == 18


# --------------------------------------------------------------------------- trace


def chain(made: Provenance) -> list[tuple[str, int, int | None]]:
    """Production, run and attempt, from an output back."""
    first = [(made.production.label, made.run, made.attempt)]
    return first + (chain(made.base) if made.base else [])


def test_an_output_is_traced_through_its_base(books: Bookkeeping) -> None:
    base = books.start()
    finish_all(books.manager(base))
    derived = books.start("rootana", base=base)
    finish_all(books.manager(derived))
    path = Path("/data/out/out00002.root")
    made = trace.of_file(books.db, [path])
    assert chain(made) == [("rootana_v1", 2, 1), ("alcapana_v1", 2, 1)]
    assert [(f.name, f.path, f.size, f.sha256) for f in made.outputs] == [
        ("out", path, 1002, "5ea1")
    ]
    assert made.base is not None
    assert [output.name for output in made.base.outputs] == ["hist", "odb", "tree"]
    assert (made.production.software, made.base.production.software) == (
        "rootana-tag",
        "alcapana-tag",
    )
    assert (made.modules, made.host, made.exit_code) == ("PlotMass\n", "node1", 0)
    assert chain(trace.of_run(books.db, derived, 2)) == chain(made)


def test_a_log_is_traced_as_well_and_the_name_may_be_another(books: Bookkeeping) -> None:
    finish_all(books.manager(books.start()))
    names = [Path("/link/run00001.err"), Path("/data/log/run00001.err")]
    assert chain(trace.of_file(books.db, names)) == [("alcapana_v1", 1, 1)]
    with pytest.raises(NotRecorded, match="has recorded a file /data/nothing"):
        trace.of_file(books.db, [Path("/data/nothing")])


def test_a_base_that_was_done_again_is_shown_as_it_was_read(books: Bookkeeping) -> None:
    base = books.start()
    maker = books.manager(base)
    finish_all(maker)
    derived = books.start("rootana", base=base)
    finish_all(books.manager(derived))
    with books.db.write() as tx:
        tx.execute("UPDATE alcapana_v1 SET status = 'N' WHERE run = 2")
    finish_all(maker)
    made = trace.of_run(books.db, derived, 2)
    assert chain(made) == [("rootana_v1", 2, 1), ("alcapana_v1", 2, 1)]
    assert made.base is not None
    assert (made.redone, made.base.redone) == (None, 2)
    assert chain(trace.of_run(books.db, base, 2)) == [("alcapana_v1", 2, 2)]
    # Both attempts have recorded the same name; what stands there is of the later one.
    assert trace.of_file(books.db, [Path("/data/tree/tree00002.root")]).attempt == 2


def test_a_run_without_output_is_traced_from_its_latest_attempt(books: Bookkeeping) -> None:
    production = books.start()
    store = books.manager(production)
    (claim,) = store.claim(1, ANY)
    store.apply([failed(claim, max_attempts=1)])
    made = trace.of_run(books.db, production, claim.run)
    assert (made.status, made.attempt, made.outcome, made.outputs) == ("E", 1, "failed", ())
    untried = trace.of_run(books.db, production, 1)
    assert (untried.status, untried.attempt) == ("N", None)
    with pytest.raises(NotRecorded, match="no run 77 in alcapana_v1"):
        trace.of_run(books.db, production, 77)


def test_the_command_traces_files_and_runs(
    books: Bookkeeping, capsys: pytest.CaptureFixture[str]
) -> None:
    base = books.start()
    finish_all(books.manager(base))
    finish_all(books.manager(books.start("rootana", base=base)))
    where = f"--database={books.path}"
    assert main(["trace", "2", "--production=rootana", "--modules", where]) == 0
    said = capsys.readouterr().out
    assert said.startswith("run 2 in rootana_v1, which is F\n")
    assert "    | PlotMass" in said
    assert "\n    run 2 in alcapana_v1, which is F\n" in said
    assert "MISSING: there is no such file, 1002 bytes, sha256 5ea1" in said
    assert main(["trace", "/data/out/../out/out00002.root", "--output=json", where]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["production"], told["run"]) == ("rootana_v1", 2)
    assert told["base"]["production"] == "alcapana_v1"
    assert "modules" not in told
    assert main(["trace", "2", where]) == 2
    assert main(["trace", str(10**19), "--production=rootana", where]) == 2
    assert main(["trace", "/data/out/out00002.root", "--version=1", where]) == 2
    assert main(["trace", "./2", where]) == 18
