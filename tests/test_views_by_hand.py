"""The views ``<type>_v<version>``: what people see and do by hand, with Python or the shell."""

from __future__ import annotations

import re
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bookkeeping import (
    GOLD,
    Bookkeeping,
    bookkeeping,
    check_sound,
    failed,
    finish,
    finished,
    intended,
    released,
    run_job,
    status_of,
    submitted,
)

from production.model import Claim, Status
from production.store.choice import RunChoice
from production.store.interventions import retry
from production.store.runs import RunStore
from production.store.views import view_statements

MODULES = "[ MODULES ]\nPlotMass\nµ ✓\n"
N, C, R, F, E, WAITING = 1, 2, 3, 4, 5, 6  # the runs of the fixture, by what became of them
By = Callable[[str], list[list[str]]]


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Bookkeeping]:
    with bookkeeping(tmp_path) as books:
        books.label(range(1, 7))
        books.start()
        yield books


@pytest.fixture
def store(books: Bookkeeping) -> RunStore:
    """A production with a run in each status; WAITING is N again after a failure."""
    production = books.start()
    store = books.manager(production)
    claims = {claim.run: claim for claim in store.claim(6, GOLD)}
    store.apply([released(claims.pop(N))])
    store.apply([intended(claim, MODULES) for run, claim in claims.items() if run != C])
    store.apply([submitted(claims[run]) for run in (R, F, E, WAITING)])
    store.apply([finished(claims[F])])
    store.apply([failed(claims[E], max_attempts=1), failed(claims[WAITING], wait=3600)])
    return store


def with_module(path: Path) -> By:
    """SQL by the sqlite3 module with its defaults; an error is one line of text."""

    def run(sql: str) -> list[list[str]]:
        connection = sqlite3.connect(path)
        try:
            with connection:
                rows = connection.execute(sql).fetchall()
        except sqlite3.Error as error:
            return [[f"refused: {error}"]]
        finally:
            connection.close()
        return [["" if value is None else str(value) for value in row] for row in rows]

    return run


def with_shell(path: Path) -> By:
    """SQL by the shell that people have, without any settings."""

    def run(sql: str) -> list[list[str]]:
        done = subprocess.run(
            ["sqlite3", "-init", "/dev/null", "-separator", "\x1f", "-newline", "\x1e", path, sql],
            capture_output=True,
            text=True,
            timeout=60,
        )
        if done.returncode:
            # Shells differ in how they begin the line and in whether they show the code.
            text = done.stderr.strip().splitlines()[0].split(": ", 1)[1]
            text = text.split("line 1: ")[-1].removeprefix("stepping, ").rsplit(" (", 1)[0]
            return [[f"refused: {text}"]]
        return [line.split("\x1f") for line in done.stdout.split("\x1e")[:-1]]

    return run


@pytest.fixture(params=["module", "shell"])
def by_hand(request: pytest.FixtureRequest, books: Bookkeeping, store: RunStore) -> By:
    if request.param == "module":
        return with_module(books.path)
    if shutil.which("sqlite3") is None:
        pytest.skip("the sqlite3 shell is not installed")
    return with_shell(books.path)


# --------------------------------------------------------------------------- reading


def test_columns_are_as_documented_and_in_that_order(books: Bookkeeping) -> None:
    primary = books.start()
    books.start("rootana", base=primary)

    def columns(view: str) -> list[str]:
        return [str(row[1]) for row in books.rows(f"PRAGMA table_info({view})")]

    leading = ["run", "status", "user", "start", "stop"]
    trailing = ["olog", "elog", "modules"]
    assert columns("alcapana_v2")[:11] == [*leading, "tree", "hist", "odb", *trailing]
    assert columns("rootana_v1")[:9] == [*leading, "out", *trailing]
    further = {"host", "job", "attempt", "exit_code", "reason"}
    assert further <= set(columns("alcapana_v2")[11:]) == set(columns("rootana_v1")[9:])
    assert columns("productions")[:6] == ["type", "version", "software", "start", "stop", "base"]
    assert columns("datasets")[:5] == ["run", "dataset", "tranche", "quality", "geometry"]


def test_each_production_has_its_own_view(books: Bookkeeping, store: RunStore) -> None:
    assert books.rows("SELECT DISTINCT status FROM alcapana_v1") == [("N",)]
    assert books.cell("SELECT count(DISTINCT status) FROM alcapana_v2") == 5
    assert books.rows("SELECT run FROM alcapana_v2") == [(run,) for run in range(1, 7)]


def test_the_documented_queries_answer(by_hand: By, store: RunStore) -> None:
    assert by_hand("SELECT run, status, tree FROM alcapana_v2 WHERE run = 4") == [
        ["4", "F", "/data/tree/tree00004.root"]
    ]
    assert by_hand("SELECT type, version, software, base FROM productions") == [
        ["alcapana", "1", "alcapana-tag", ""],
        ["alcapana", "2", "alcapana-tag", ""],
    ]
    assert by_hand("SELECT run, status FROM alcapana_v2 WHERE status IN ('N', 'E')") == [
        ["1", "N"],
        ["5", "E"],
        ["6", "N"],
    ]
    assert by_hand("SELECT modules FROM alcapana_v2 WHERE run = 4") == [[MODULES]]


def test_the_name_of_2014_for_the_quality_reads_as_well(by_hand: By) -> None:
    assert by_hand("SELECT run, qual, quality FROM datasets WHERE qual = 'gold' LIMIT 1") == [
        ["1", "gold", "gold"]
    ]
    (refused,) = by_hand("UPDATE datasets SET qual = 'silver'")
    assert 'cannot UPDATE generated column "qual"' in refused[0]


def test_a_run_that_waits_shows_nobody_and_no_times(books: Bookkeeping, store: RunStore) -> None:
    for run in (N, WAITING):
        assert books.rows(
            "SELECT user, start, stop, tree, hist, odb, olog, elog, modules, host, job "
            "FROM alcapana_v2 WHERE run = ?",
            run,
        ) == [(None,) * 11]


def test_why_the_last_try_failed_shows_until_the_next_one_begins(
    books: Bookkeeping, store: RunStore
) -> None:
    why = "SELECT status, attempt, exit_code, reason FROM alcapana_v2 WHERE run = ?"
    reason = "alcapana was killed by SIGSEGV"
    assert books.rows(why, WAITING) == [("N", 1, 139, reason)]
    assert books.rows(why, E) == [("E", 1, 139, reason)]
    assert books.rows(why, N) == [("N", 1, None, "rolled back")]
    with books.db.write() as tx:
        tx.execute("UPDATE alcapana_v2 SET status = 'N' WHERE run = 5")
    assert books.rows(why, E) == [("N", 1, 139, reason)]
    assert [claim.run for claim in store.claim(1, GOLD)] == [N]
    assert books.rows(why, N) == [("C", 2, None, None)]


def test_a_finished_run_shows_all_that_is_known(books: Bookkeeping, store: RunStore) -> None:
    (row,) = books.db.rows("SELECT * FROM alcapana_v2 WHERE status = 'F'")
    seen = dict(row)
    start, stop = seen.pop("start"), seen.pop("stop")
    assert seen == {
        "run": F,
        "status": "F",
        "user": books.cell("SELECT user FROM manager"),
        "tree": "/data/tree/tree00004.root",
        "hist": "/data/hist/hist00004.root",
        "odb": "/data/odb/odb00004.root",
        "olog": "/data/log/run00004.out",
        "elog": "/data/log/run00004.err",
        "modules": MODULES,
        "host": "node1",
        "job": "job-4-1",
        "attempt": 1,
        "exit_code": 0,
        "reason": None,
        "cpu_seconds": 3480.5,
        "peak_memory": 512 * 2**20,
    }
    for time in (start, stop):
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}", time)
        assert books.cell("SELECT abs(julianday('now') - julianday(?)) < 0.1", time) == 1
    assert start <= stop


def test_runs_in_hand_show_their_manager_and_job(books: Bookkeeping, store: RunStore) -> None:
    user = books.cell("SELECT user FROM manager")
    assert books.rows(
        "SELECT status, user, start IS NULL, job, stop, tree FROM alcapana_v2 WHERE run IN (2, 3)"
    ) == [("C", user, 1, None, None, None), ("R", user, 0, "job-3-1", None, None)]


def test_outputs_of_an_earlier_attempt_do_not_show(books: Bookkeeping, store: RunStore) -> None:
    with books.db.write() as tx:
        tx.execute("UPDATE alcapana_v2 SET status = 'N' WHERE run = 4")
    assert books.rows("SELECT status, tree FROM alcapana_v2 WHERE run = 4") == [("N", None)]
    (claim,) = (claim for claim in store.claim(9, GOLD) if claim.run == F)
    assert books.rows("SELECT status, tree FROM alcapana_v2 WHERE run = 4") == [("C", None)]
    run_job(store, claim)
    store.apply([finished(claim, ["hist"])])
    assert books.rows("SELECT status, tree, hist FROM alcapana_v2 WHERE run = 4") == [
        ("F", None, "/data/hist/hist00004.root")
    ]


def test_a_text_is_stored_once_however_many_runs_had_it(books: Bookkeeping) -> None:
    store = books.manager(books.start())
    claims = store.claim(6, GOLD)
    text = MODULES * 2000
    store.apply([intended(claim, text) for claim in claims])
    assert books.rows("SELECT DISTINCT modules FROM alcapana_v2") == [(text,)]
    assert books.rows("SELECT text FROM modules") == [(text,)]
    store.apply([intended(claims[0], text + "x")])
    assert books.cell("SELECT count(*) FROM modules") == 2
    store.apply([intended(claims[1], None)])
    assert books.cell("SELECT modules FROM alcapana_v2 WHERE run = ?", claims[1].run) is None


# --------------------------------------------------------------------------- writing: lawful


@pytest.mark.parametrize("run", [N, C, F, E, WAITING])
def test_a_run_can_be_sent_back_to_n(
    books: Bookkeeping, store: RunStore, by_hand: By, run: int
) -> None:
    others = "SELECT * FROM run WHERE production <> 2 OR run <> ?"
    before = books.rows(others, run)
    assert by_hand(f"UPDATE alcapana_v2 SET status='N' WHERE run={run}") == []
    assert books.rows(
        "SELECT status, attempt, token, failures, manager, not_before FROM run "
        "WHERE production = 2 AND run = ?",
        run,
    ) == [("N", 1, 2, 0, None, None)]
    assert books.rows(others, run) == before
    assert run in [claim.run for claim in store.claim(9, GOLD)]


def test_what_was_given_back_by_hand_is_in_the_history(
    books: Bookkeeping, store: RunStore, by_hand: By
) -> None:
    by_hand("UPDATE alcapana_v2 SET status='N' WHERE run=2")
    (row,) = books.rows("SELECT outcome, reason, stop FROM attempt WHERE run = 2")
    assert row[:2] == ("rolled back", "given back by hand")
    assert len(str(row[2])) == 26
    assert books.cell("SELECT abs(julianday('now') - julianday(?)) < 0.1", row[2]) == 1


def test_a_production_that_was_done_is_not_when_a_run_is_done_again(books: Bookkeeping) -> None:
    store = books.manager(books.start())
    for claim in store.claim(6, GOLD):
        finish(store, claim)
    assert books.cell("SELECT stop FROM productions WHERE version = 2") is not None
    by_hand = with_module(books.path)
    assert by_hand("UPDATE alcapana_v2 SET status = status") == []
    assert books.cell("SELECT stop FROM productions WHERE version = 2") is not None
    assert by_hand("UPDATE alcapana_v2 SET status = 'N' WHERE run = 4") == []
    assert books.cell("SELECT stop FROM productions WHERE version = 2") is None


def test_many_runs_can_be_sent_back_at_once(books: Bookkeeping, store: RunStore) -> None:
    by_hand = with_module(books.path)
    assert by_hand("UPDATE alcapana_v2 SET status = 'N' WHERE status IN ('E', 'F')") == []
    assert books.column("SELECT status FROM alcapana_v2") == ["N", "C", "R", "N", "N", "N"]


def test_setting_what_is_there_already_changes_nothing(books: Bookkeeping, store: RunStore) -> None:
    by_hand = with_module(books.path)
    before = books.dump()
    assert by_hand("UPDATE alcapana_v2 SET status = 'R' WHERE status = 'R'") == []
    assert by_hand("UPDATE alcapana_v2 SET status = 'F', user = user WHERE run = 4") == []
    assert by_hand("UPDATE alcapana_v2 SET user = user WHERE status <> 'N'") == []
    assert books.dump() == before


def test_a_run_can_be_added(books: Bookkeeping, store: RunStore, by_hand: By) -> None:
    books.label([7], tranche=3)
    assert by_hand("INSERT INTO alcapana_v2 (run) VALUES (7)") == []
    assert by_hand("INSERT INTO alcapana_v2 (run, status) VALUES (8, 'N')") == []
    assert books.rows("SELECT run, status FROM alcapana_v2 WHERE run > 6") == [(7, "N"), (8, "N")]
    assert [claim.run for claim in store.claim(9, GOLD)] == [N, 7]  # 8 is in no dataset


def test_an_added_run_reopens_the_production(books: Bookkeeping) -> None:
    store = books.manager(books.start())
    for claim in store.claim(6, GOLD):
        finish(store, claim)
    assert with_module(books.path)("INSERT INTO alcapana_v2 (run) VALUES (7)") == []
    assert books.cell("SELECT stop FROM productions WHERE version = 2") is None


def test_an_untouched_run_can_be_removed(books: Bookkeeping, by_hand: By) -> None:
    assert by_hand("DELETE FROM alcapana_v1 WHERE run = 4") == []
    assert books.column("SELECT run FROM alcapana_v1") == [1, 2, 3, 5, 6]
    assert books.cell("SELECT count(*) FROM alcapana_v2") == 6


def test_failed_runs_are_tried_again_with_a_clean_count(
    books: Bookkeeping, store: RunStore
) -> None:
    assert retry(books.db, store.production, RunChoice([E, F, 99])) == [E]
    assert retry(books.db, store.production) == []
    claims = {claim.run: claim for claim in store.claim(9, GOLD)}
    assert claims[E] == Claim(E, attempt=2, token=2, failures=0)
    store.apply([failed(claims[E], max_attempts=1)])
    assert retry(books.db, store.production) == [E]


# --------------------------------------------------------------------------- writing: refused

STATUS_ONLY = "only status can be set by hand: the rest is recorded by managers"
N_ONLY = "only status N can be set by hand: managers set the others"
HAS_JOB = "a job of this run is in the batch system: stop its manager first"
GETS_JOB = "a job of this run is being submitted: stop its manager first"
NUMBER_ONLY = "a run is added with its number only: it starts as N"
HISTORY = "this run has a history: only untouched runs can be removed"


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("UPDATE alcapana_v2 SET status = 'N' WHERE run = 3", HAS_JOB),
        ("UPDATE alcapana_v2 SET status = 'N'", HAS_JOB),
        *[
            (f"UPDATE alcapana_v2 SET status = '{status}' WHERE run = {run}", N_ONLY)
            for run in (N, C, R, F, E)
            for status in ("C", "R", "F", "E")
            if "NCRFE"[run - 1] != status
        ],
        ("UPDATE alcapana_v2 SET status = 'n' WHERE run = 4", N_ONLY),
        ("UPDATE alcapana_v2 SET status = 'X' WHERE run = 1", N_ONLY),
        ("UPDATE alcapana_v2 SET status = NULL WHERE run = 4", N_ONLY),
        ("UPDATE alcapana_v2 SET run = 7 WHERE run = 1", STATUS_ONLY),
        ("UPDATE alcapana_v2 SET run = NULL WHERE run = 1", STATUS_ONLY),
        ("UPDATE alcapana_v2 SET user = 'alice' WHERE run = 1", STATUS_ONLY),
        ("UPDATE alcapana_v2 SET status = 'N', user = NULL WHERE run = 2", STATUS_ONLY),
        ("UPDATE alcapana_v2 SET tree = '/elsewhere' WHERE run = 4", STATUS_ONLY),
        ("UPDATE alcapana_v2 SET odb = NULL WHERE run = 4", STATUS_ONLY),
        ("UPDATE alcapana_v2 SET modules = 'other' WHERE run = 4", STATUS_ONLY),
        ("UPDATE alcapana_v2 SET stop = NULL WHERE run = 4", STATUS_ONLY),
        ("UPDATE alcapana_v2 SET attempt = 0 WHERE run = 4", STATUS_ONLY),
        ("UPDATE alcapana_v2 SET reason = '' WHERE run = 5", STATUS_ONLY),
        ("UPDATE alcapana_v2 SET exit_code = 1 WHERE run = 4", STATUS_ONLY),
        ("UPDATE alcapana_v2 SET peak_memory = 1 WHERE run = 4", STATUS_ONLY),
        ("INSERT INTO alcapana_v2 (run, status) VALUES (7, 'F')", NUMBER_ONLY),
        ("INSERT INTO alcapana_v2 (status) VALUES ('N')", NUMBER_ONLY),
        ("INSERT INTO alcapana_v2 (run, user) VALUES (7, 'alice')", NUMBER_ONLY),
        ("INSERT INTO alcapana_v2 (run, tree) VALUES (7, '/tree')", NUMBER_ONLY),
        ("INSERT INTO alcapana_v2 (run, attempt) VALUES (7, 3)", NUMBER_ONLY),
        (
            "INSERT INTO alcapana_v2 (run) VALUES (4)",
            "UNIQUE constraint failed: run.production, run.run",
        ),
        *[(f"DELETE FROM alcapana_v2 WHERE run = {run}", HISTORY) for run in range(1, 7)],
        ("DELETE FROM alcapana_v2", HISTORY),
    ],
)
def test_what_is_not_lawful_is_refused_with_the_reason(
    books: Bookkeeping, by_hand: By, sql: str, reason: str
) -> None:
    before = books.dump()
    assert by_hand(sql) == [[f"refused: {reason}"]]
    assert books.dump() == before


def test_a_run_whose_job_is_being_submitted_is_not_given_back(
    books: Bookkeeping, store: RunStore, by_hand: By
) -> None:
    (claim,) = (claim for claim in store.held() if claim.run == C)
    store.apply([intended(claim)])
    before = books.dump()
    sql = f"UPDATE alcapana_v2 SET status = 'N' WHERE run = {C}"
    assert by_hand(sql) == [[f"refused: {GETS_JOB}"]]
    assert books.dump() == before
    store.apply([released(claim)])
    assert by_hand(sql) == []


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO alcapana_v2 (run) VALUES ('2091a')",
        "INSERT INTO alcapana_v2 (run) VALUES (2091.5)",
        "INSERT INTO datasets (run, dataset) VALUES ('2091a', 'SiR2')",
        "INSERT INTO datasets (run, dataset) VALUES (x'00', 'SiR2')",
        "INSERT INTO datasets (run, dataset) VALUES (2091, '')",
        "INSERT INTO datasets (run, dataset) VALUES (2091, NULL)",
        "INSERT INTO datasets (run, dataset, tranche) VALUES (2091, 'SiR2', 'first')",
        "UPDATE datasets SET run = 'all'",
    ],
)
def test_a_run_is_a_number(books: Bookkeeping, by_hand: By, sql: str) -> None:
    before = books.dump()
    ((refused,),) = by_hand(sql)
    assert "constraint failed" in refused
    assert books.dump() == before


def test_a_manager_goes_on_beside_what_is_done_by_hand(books: Bookkeeping, store: RunStore) -> None:
    by_hand = with_module(books.path)
    (claim,) = (claim for claim in store.held() if claim.run == R)
    by_hand("UPDATE alcapana_v2 SET status = 'N' WHERE run <> 3")
    assert store.apply([finished(claim)]) == []
    assert status_of(store, claim) is Status.FINISHED
    check_sound(books)


def test_names_that_would_break_the_sql_are_not_taken(books: Bookkeeping) -> None:
    for label, outputs in (("alca-pana_v1", ["tree"]), ("alcapana_v1", ["a b"]), ("1_v1", [])):
        with pytest.raises(ValueError):
            list(view_statements(label, 1, outputs))
