"""A new production: the next version, with its runs and its view, all at once or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from bookkeeping import (
    ANY,
    GOLD,
    OUTPUTS,
    PROJECT,
    Bookkeeping,
    answer,
    finish,
    finish_all,
    processes,
    python,
    says,
    tell,
)

from production.errors import UnknownProduction, UsageError
from production.model import Production, RunFilter, Status
from production.store import productions
from production.store.connection import Database
from production.store.productions import NewProduction

ALCAPANA = NewProduction("alcapana", "alcapana_v4", "recipe text", OUTPUTS["alcapana"])
STARTER = """
    import os, signal, sys
    from pathlib import Path
    from production.model import RunFilter
    from production.store import productions
    from production.store.connection import Database
    from production.store.productions import NewProduction

    new = NewProduction("alcapana", f"tag of {os.getpid()}", "recipe text", ("tree", "hist"))
    with Database(Path(sys.argv[1])) as db:
        with db.write() as tx:
            tx.execute("PRAGMA cache_size = 10")  # so that much is written before the end
        print("ready", flush=True)
        sys.stdin.readline()
        steps = 0
        last = int(sys.argv[2])

        def step():
            global steps
            steps += 1
            if steps == last:
                os.kill(os.getpid(), signal.SIGKILL)

        tx.set_progress_handler(step, 100)
        production, runs = productions.start(db, new, RunFilter())
        print(production.version, runs, steps)
"""


def tables(books: Bookkeeping) -> list[object]:
    return books.column("SELECT name FROM sqlite_master ORDER BY 1")


# --------------------------------------------------------------------------- what it is


def test_a_production_says_what_it_was_started_with(books: Bookkeeping) -> None:
    books.label([2091, 2092])
    before = datetime.now(UTC)
    production, count = productions.start(books.db, ALCAPANA, GOLD)
    assert count == 2
    assert production == Production(
        production.id, "alcapana", 1, "alcapana_v4", production.start, stop=None, base=None
    )
    assert production.start is not None
    assert before <= datetime.fromisoformat(f"{production.start}+00:00") <= datetime.now(UTC)
    assert production.label == "alcapana_v1"
    assert productions.find(books.db, "alcapana") == production
    assert productions.recipe_text(books.db, production) == "recipe text"
    assert books.rows("SELECT DISTINCT status, attempt, token, manager FROM run") == [
        ("N", 0, 0, None)
    ]


def test_versions_count_up_for_each_type(books: Bookkeeping) -> None:
    books.label([2091])
    versions = []
    for type_ in ("alcapana", "alcapana", "rootana", "alcapana", "rootana"):
        expected = productions.next_version(books.db, type_)
        production = books.start(type_)
        assert production.version == expected
        versions.append(production.label)
    assert versions == ["alcapana_v1", "alcapana_v2", "rootana_v1", "alcapana_v3", "rootana_v2"]
    assert [p.label for p, _ in productions.list_all(books.db)] == sorted(versions)


def test_it_goes_on_after_the_highest_version(books: Bookkeeping) -> None:
    books.label([2091])
    with books.db.write() as tx:
        tx.execute(
            "INSERT INTO productions (type, version, software) VALUES ('alcapana', 41, 'tag')"
        )
    assert books.start().version == 42


@pytest.mark.parametrize(
    ("wanted", "runs"),
    [
        (GOLD, [1, 2, 3]),
        (RunFilter(qualities=("silver",)), [4]),
        (RunFilter(qualities=("gold", "silver")), [1, 2, 3, 4]),
        (ANY, [1, 2, 3, 4, 5]),
        (RunFilter(datasets=("Al50",), tranches=(7,)), [1, 2, 3]),
    ],
)
def test_all_datasets_take_part_and_only_the_quality_decides(
    books: Bookkeeping, wanted: RunFilter, runs: list[int]
) -> None:
    books.label([1, 2], "SiR2")
    books.label([2, 3], "Al50", tranche=7)
    books.label([2], "Common", quality=None)
    books.label([4], "Ti50", quality="silver")
    books.label([5], "Common", quality=None)
    production = books.start(wanted=wanted)
    assert books.column("SELECT run FROM alcapana_v1") == runs
    assert productions.counts(books.db, production.id) == {Status.NEW: len(runs)}


def test_a_production_without_runs_is_not_started(books: Bookkeeping) -> None:
    books.label([2091], quality="silver")
    before = tables(books), books.dump()
    with pytest.raises(UsageError, match="no runs of quality gold in the datasets"):
        productions.start(books.db, ALCAPANA, GOLD)
    assert (tables(books), books.dump()) == before


# --------------------------------------------------------------------------- derived ones


def test_a_derived_production_takes_the_runs_of_its_base(books: Bookkeeping) -> None:
    books.label([1, 2, 3])
    base = books.start()
    finish_all(books.manager(base))
    books.label([4])
    with books.db.write() as tx:
        tx.execute("DELETE FROM datasets WHERE run = 3")  # in no dataset any more
    derived = books.start("rootana", base=base)
    assert books.column("SELECT run FROM rootana_v1") == [1, 2]
    assert derived.base == 1
    assert books.rows("SELECT base_type, base FROM productions WHERE type = 'rootana'") == [
        ("alcapana", 1)
    ]
    books.start("rootana", base=base, wanted=ANY)
    assert books.column("SELECT run FROM rootana_v2") == [1, 2, 3]


def test_a_run_in_two_datasets_is_done_once(books: Bookkeeping) -> None:
    books.label([1, 2], "SiR2")
    books.label([2, 3], "Al50")
    base = books.start()
    books.start("rootana", base=base)
    assert books.column("SELECT run FROM alcapana_v1") == [1, 2, 3]
    assert books.column("SELECT run FROM rootana_v1") == [1, 2, 3]


def test_a_derived_production_without_runs_is_not_started(books: Bookkeeping) -> None:
    books.label([1])
    base = books.start()
    new = NewProduction("rootana", "tag", "", ("out",), base)
    with pytest.raises(UsageError, match="no runs of quality silver in alcapana_v1"):
        productions.start(books.db, new, RunFilter(qualities=("silver",)))
    assert [p.label for p, _ in productions.list_all(books.db)] == ["alcapana_v1"]


# --------------------------------------------------------------------------- where it would begin


@pytest.mark.parametrize("derived", [False, True])
@pytest.mark.parametrize(
    "wanted",
    [
        GOLD,
        ANY,
        RunFilter(qualities=("gold", "silver")),
        RunFilter(datasets=("SiR2", "Al50")),
        RunFilter(datasets=("Ti50", "SiR2"), qualities=()),
        RunFilter(tranches=(3, 2)),
        RunFilter(datasets=("SiR2", "Al50"), tranches=(3, 2), qualities=()),
        RunFilter(datasets=("Al50",), tranches=(1,)),
    ],
    ids=str,
)
def test_it_is_known_before_it_is_started_which_run_comes_first(
    books: Bookkeeping, wanted: RunFilter, derived: bool
) -> None:
    books.label([6, 7], "SiR2", tranche=2)
    books.label([8, 9], "SiR2", tranche=3)
    books.label([5, 6], "Al50", tranche=2)
    books.label([4], "Al50", quality="silver")
    books.label([2], "Ti50", quality=None)
    books.label([1, 3], "Zn64", tranche=1)
    base = None
    if derived:
        base = books.start(wanted=ANY)
        finish_all(books.manager(base))
        with books.db.write() as tx:
            tx.execute("UPDATE alcapana_v1 SET status = 'N' WHERE run IN (5, 8)")
            tx.execute("DELETE FROM datasets WHERE run = 9")  # in no dataset any more
    said = productions.first_run(books.db, base, wanted)
    claim = books.manager(books.start("rootana", base=base, wanted=wanted)).next_claim(wanted)
    assert said == (claim.run if claim else None)


# --------------------------------------------------------------------------- finding one


def test_the_newest_version_is_found_unless_another_is_named(books: Bookkeeping) -> None:
    books.label([1])
    made = [books.start() for _ in range(3)]
    books.start("rootana")
    assert productions.find(books.db, "alcapana") == made[2]
    assert productions.find(books.db, "alcapana", 2) == made[1]


def test_what_does_not_exist_is_said(books: Bookkeeping) -> None:
    with pytest.raises(UnknownProduction, match=r"^No alcapana production exists yet\."):
        productions.find(books.db, "alcapana")
    books.label([1])
    books.start()
    books.start()
    with pytest.raises(UnknownProduction, match=r"version 7\. Existing versions: 1, 2$"):
        productions.find(books.db, "alcapana", 7)


def test_outputs_of_a_finished_run_are_found(books: Bookkeeping) -> None:
    books.label([1, 2])
    production = books.start()
    store = books.manager(production)
    one, _ = store.claim(2, GOLD)
    finish(store, one)
    assert productions.outputs(books.db, production.id, 1) == {
        name: Path(f"/data/{name}/{name}00001.root") for name in OUTPUTS["alcapana"]
    }
    assert productions.outputs(books.db, production.id, 2) == {}
    with books.db.write() as tx:
        tx.execute("UPDATE alcapana_v1 SET status = 'N' WHERE run = 1")
    assert productions.outputs(books.db, production.id, 1) == {}


# --------------------------------------------------------------------------- all at once


@pytest.mark.slow
def test_several_at_once_get_different_versions(books: Bookkeeping) -> None:
    books.label(range(300))
    started: list[subprocess.Popen[str]] = []
    with processes(started):
        for _ in range(6):
            started.append(python(STARTER, books.path, 0))
        for process in started:
            says(process, "ready")
        for process in started:
            tell(process)
        answers = [answer(process).split() for process in started]
    assert sorted(int(version) for version, *_ in answers) == [1, 2, 3, 4, 5, 6]
    assert {runs for _, runs, _ in answers} == {"300"}
    for process, (version, *_) in zip(started, answers, strict=True):
        production = productions.find(books.db, "alcapana", int(version))
        assert production.software == f"tag of {process.pid}"
        assert books.cell(f"SELECT count(*) FROM {production.label}") == 300


@pytest.mark.slow
def test_killed_half_way_it_leaves_nothing(books: Bookkeeping) -> None:
    books.label(range(3000))
    before = tables(books), books.dump()
    started: list[subprocess.Popen[str]] = []

    def start(last: int) -> subprocess.Popen[str]:
        started.append(python(STARTER, books.path, last))
        says(started[-1], "ready")
        tell(started[-1])
        return started[-1]

    journals = 0
    with processes(started):
        for last in (1, 5, 20, 300, 1000, 2000):
            assert start(last).wait(timeout=60) == -signal.SIGKILL
            journals += books.path.with_name("production.db-journal").exists()
            with Database(books.path) as db:
                assert productions.next_version(db, "alcapana") == 1
            assert (tables(books), books.dump()) == before
        version, runs, steps = answer(start(0)).split()
        assert (version, runs) == ("1", "3000")
        assert int(steps) > 2000  # so each of these kills came before the end
    assert journals, "none of the kills left a journal to be played back"
    assert books.cell("SELECT count(*) FROM alcapana_v1") == 3000


@pytest.mark.slow
def test_the_base_is_the_newest_one_unless_a_version_is_named(
    books: Bookkeeping, tmp_path: Path
) -> None:
    modules = tmp_path / "production.cfg"
    modules.write_text("PlotMass\n")
    books.label([2091, 2092])
    for _ in range(3):
        books.start()
    for version in ([], ["--version=2"], []):
        done = subprocess.run(
            [
                *(sys.executable, PROJECT / "run_production.py", "--production=rootana"),
                *("--new=rootana_v2.1", *version, f"--database={books.path}"),
                *(f"--modules={modules}", "--pause=0.1"),
            ],
            env={**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(PROJECT)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
    assert "INFO: Starting new production, version 3" in done.stdout
    assert "2 runs still to be finished by the base production" in done.stdout
    assert books.rows(
        "SELECT version, software, base_type, base FROM productions WHERE type = 'rootana'"
    ) == [
        (1, "rootana_v2.1", "alcapana", 3),
        (2, "rootana_v2.1", "alcapana", 2),
        (3, "rootana_v2.1", "alcapana", 3),
    ]
