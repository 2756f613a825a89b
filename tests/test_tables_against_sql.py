"""The tables say what plain SQL says of the same database, of real productions and made-up ones."""

from __future__ import annotations

import csv
import io
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest
from asked_twice import Database, in_order, make_real, make_up, without
from bookkeeping import (
    ANY,
    GOLD,
    Bookkeeping,
    bookkeeping,
    failed,
    finish_all,
    finished,
    run_job,
    submitted,
)

from production.cli import main
from production.explain.gather import from_database
from production.model import Production, RunFilter, Status
from production.store import productions
from production.store.choice import EVERY_RUN, RunChoice
from production.store.reports import facts as facts_module
from production.store.reports import pieces
from production.store.reports import standing as standing_module
from production.store.reports.failures import Failure, kind, open_failures
from production.store.reports.runs import COLUMNS, RunQuery, find
from production.store.reports.standing import HOUR, Try, active_runs, rate, standings
from production.store.reports.stats import stats


@pytest.fixture(scope="module", params=["made up", pytest.param("real", marks=pytest.mark.slow)])
def db(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Database:
    directory = tmp_path_factory.mktemp("tables")
    return Database((make_real if request.param == "real" else make_up)(directory))


@pytest.fixture(params=["as a whole", "in pieces"])
def in_pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "in pieces":
        monkeypatch.setattr(pieces, "sizes", lambda: repeat(3))


RUNS = """
    SELECT r.run, p.type || '_v' || p.version AS production, r.status, r.attempt, r.failures,
           r.not_before, m.user, a.manager, a.claimed, a.start, a.stop, a.outcome, a.exit_code,
           a.reason, a.batch, a.job, a.host, a.job_start, a.job_stop, a.cpu_seconds,
           a.peak_memory, a.olog, a.elog
    FROM run r JOIN productions p ON p.id = r.production
    LEFT JOIN attempt a USING (production, run, attempt) LEFT JOIN manager m ON m.id = a.manager
"""


# ------------------------------------------------------------------------------- status


def test_status_counts_what_is_there(db: Database) -> None:
    rows = db.table("status")
    assert [row["production"] for row in rows] == [
        row["label"]
        for row in db.sql("SELECT type || '_v' || version AS label FROM productions ORDER BY 1")
    ]
    for row in rows:
        (known,) = db.sql(
            "SELECT p.*, count(*) AS runs, sum(status = 'F') AS F FROM productions p "
            "JOIN run r ON r.production = p.id "
            f"WHERE p.type || '_v' || p.version = '{row['production']}'"
        )
        for status in "NCRFE":
            (count,) = db.sql(
                f"SELECT count(*) AS n FROM run WHERE production = {known['id']} "
                f"AND status = '{status}'"
            )
            assert row[status] == count["n"]
        for name in ("software", "base", "start", "stop", "user"):
            assert row[name] == known[name]
        assert row["percent"] == pytest.approx(100 * known["F"] / known["runs"], abs=0.1)
        assert (row["percent"] == 100) == (known["F"] == known["runs"])
        assert (row["rate"] is None) == (known["F"] == 0)
        left = row["N"] + row["C"] + row["R"]
        assert (row["expected_end"] is None) == (row["rate"] is None or not left)


def test_status_of_some_productions(db: Database) -> None:
    chosen = db.table("status", "--production=alcapana", "--version=1")
    (same,) = [row for row in db.table("status") if row["production"] == "alcapana_v1"]
    assert [row["N"] for row in chosen] == [same["N"]]


# ------------------------------------------------------------------------------- runs


@pytest.mark.usefixtures("in_pieces")
def test_runs_are_all_runs(db: Database) -> None:
    rows = db.table("runs", "--columns=all")
    assert list(rows[0]) == list(COLUMNS)
    assert in_order(without(rows, "dataset", "wall_seconds")) == in_order(db.sql(RUNS))
    for row in rows:
        labels = db.sql(f"SELECT dataset FROM datasets WHERE run = {row['run']} ORDER BY 1")
        assert row["dataset"] == ",".join(label["dataset"] for label in labels)
    walls = db.sql(
        "SELECT (job_stop_us - job_start_us) / 1e6 AS s FROM run "
        "JOIN attempt USING (production, run, attempt) WHERE job_stop_us IS NOT NULL"
    )
    told = [row["wall_seconds"] for row in rows if row["wall_seconds"] is not None]
    assert sorted(told) == sorted(wall["s"] for wall in walls)


@pytest.mark.usefixtures("in_pieces")
@pytest.mark.parametrize(
    ("arguments", "condition"),
    [
        (["--status=E"], "r.status = 'E'"),
        (["--status=N"], "r.status = 'N'"),
        (["--status=F", "--status=R"], "r.status IN ('F', 'R')"),
        (["--status=C"], "r.status = 'C'"),
        (["--production=rootana"], "p.type = 'rootana'"),
        (["--reason=BANK adc"], "a.reason LIKE '%bank adc%'"),
        (["--user=nobody at all"], "false"),
        (["--dataset=Al50"], "r.run IN (SELECT run FROM datasets WHERE dataset = 'Al50')"),
        (["2010-2094", "--status=F"], "r.run BETWEEN 2010 AND 2094 AND r.status = 'F'"),
        (["2010-2096", "--dataset=Al50"], "r.run BETWEEN 2010 AND 2096 AND r.run IN "
         "(SELECT run FROM datasets WHERE dataset = 'Al50')"),
        (["--since=1d"], "a.id IS NOT NULL"),
        (["--until=2020-01-01"], "false"),
        (["--since=2020-01-01", "--until=2120-01-01 06:00"], "a.id IS NOT NULL"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_runs_are_chosen(db: Database, arguments: list[str], condition: str) -> None:
    rows = db.table("runs", *arguments, "--columns=all")
    wanted = db.sql(f"{RUNS} WHERE {condition}")
    assert in_order(without(rows, "dataset", "wall_seconds")) == in_order(wanted)


@pytest.mark.usefixtures("in_pieces")
def test_runs_that_go_on_come_first_and_the_latest_of_the_others(db: Database) -> None:
    rows = db.table("runs", "--columns=status,attempt,claimed")
    ranks = ["RCE".find(row["status"]) % 4 + (row["attempt"] == 0) for row in rows]
    assert ranks == sorted(ranks)
    claims = [r["claimed"] for r in rows if r["status"] in "NF" and r["attempt"]]
    assert claims == sorted(claims, reverse=True)


@pytest.mark.usefixtures("in_pieces")
@pytest.mark.parametrize("limit", ["1", "7", "all"])
@pytest.mark.parametrize(
    ("sort", "sql"),
    [
        ("run", "run"),
        ("-run", "run DESC"),
        ("status,-run", "status, run DESC"),
        ("-reason,run", "reason IS NULL, reason DESC, run"),
        ("exit_code,run", "exit_code IS NULL, exit_code, run"),
    ],
)
def test_runs_are_sorted(db: Database, sort: str, sql: str, limit: str) -> None:
    rows = db.table("runs", "--production=alcapana", "--version=1", f"--sort={sort}",
                    f"--limit={limit}", "--columns=run,status,reason,exit_code")  # fmt: skip
    wanted = db.sql(
        f"SELECT run, status, reason, exit_code FROM alcapana_v1 ORDER BY {sql} "
        f"LIMIT {-1 if limit == 'all' else limit}"
    )
    assert rows == wanted


def test_a_table_of_runs_is_cut_and_says_so(
    db: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    (count,) = db.sql("SELECT count(*) AS n FROM run")
    assert main(["runs", "--limit=3", f"--database={db.path}"]) == 0
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 2 + 3
    assert "more runs than the 3 shown; --limit=all" in said.err
    assert main(["runs", f"--limit={count['n']}", f"--database={db.path}"]) == 0
    assert capsys.readouterr().err == ""


def test_no_run_is_no_error(db: Database, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "1", f"--database={db.path}"]) == 0
    assert capsys.readouterr().err == ""
    assert main(["runs", "1", "--output=quiet", f"--database={db.path}"]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "wrong",
    [
        "--columns=run,nonsense", "--sort=nonsense", "--limit=0", "--limit=some", "--since=soon",
        "--status=X", "--columns=run,run",
    ],
)  # fmt: skip
def test_what_is_asked_for_wrongly_is_told(
    db: Database, wrong: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["runs", wrong, f"--database={db.path}"]) == 2
    assert wrong.split("=")[1].split(",")[-1] in capsys.readouterr().err


# ------------------------------------------------------------------------------- the forms


def test_csv_is_the_same_as_json(db: Database) -> None:
    for command in ("status", "runs", "failures", "stats"):
        rows = db.table(command)
        text = list(csv.DictReader(io.StringIO(db.printed(command, "--output=csv"))))
        told = [{k: "" if v is None else str(v) for k, v in row.items()} for row in rows]
        moving = ("rate", "expected_end")  # from one moment to the next
        assert without(text, *moving) == without(told, *moving)


@pytest.mark.parametrize("form", ["table", "github", "latex"])
def test_tables_for_people_have_the_same_columns_and_rows(db: Database, form: str) -> None:
    rows = db.table("failures", "--all")
    lines = db.printed("failures", "--all", f"--output={form}").splitlines()
    (header,) = [line for line in lines if "production" in line and "reason" in line]
    assert [name for name in rows[0] if name.replace("_", r"\_" if form == "latex" else "_")
            not in header] == []  # fmt: skip
    frame = {"table": 2, "github": 2, "latex": 6}[form]  # heading, lines, begin and end
    assert len(lines) == frame + len(rows)


# ------------------------------------------------------------------------------- failures


@pytest.mark.usefixtures("in_pieces")
def test_failures_count_the_runs_that_are_not_done(db: Database) -> None:
    rows = db.table("failures")
    for production in db.sql("SELECT id, type || '_v' || version AS label FROM productions"):
        mine = [row for row in rows if row["production"] == production["label"]]
        (known,) = db.sql(
            "SELECT count(*) AS runs, count(CASE WHEN status = 'E' THEN 1 END) AS at_error "
            f"FROM run WHERE production = {production['id']} AND failures > 0 AND status <> 'F'"
        )
        assert sum(row["runs"] for row in mine) == known["runs"]
        assert sum(row["at_error"] for row in mine) == known["at_error"]
        for row in mine:
            example = db.sql(
                "SELECT max(attempt) AS attempt, max(stop) AS stop FROM attempt "
                f"WHERE production = {production['id']} AND run = {row['run']} "
                "AND outcome = 'failed'"
            )
            assert [(row["attempt"], row["last"])] == [(e["attempt"], e["stop"]) for e in example]


@pytest.mark.usefixtures("in_pieces")
def test_all_failures_are_all_that_ever_failed(db: Database) -> None:
    rows = db.table("failures", "--all")
    (known,) = db.sql("SELECT count(*) AS n FROM attempt WHERE outcome = 'failed'")
    assert sum(row["attempts"] for row in rows) == known["n"]
    for row in rows:
        if "#" in row["reason"] or "RUN" in row["reason"]:
            continue  # several reasons
        same = row["reason"].replace("'", "''")
        (own,) = db.sql(
            "SELECT count(*) AS attempts, count(DISTINCT run) AS runs, min(a.stop) AS first, "
            "max(a.stop) AS last FROM attempt a JOIN productions p ON p.id = a.production "
            f"WHERE reason = '{same}' AND p.type || '_v' || p.version = '{row['production']}' "
            "AND outcome = 'failed'"
        )
        assert {name: row[name] for name in own} == own


@pytest.mark.parametrize(
    ("reason", "kind_of_it"),
    [
        ("exit code 4: bank ADC0 is damaged", "exit code 4: bank ADC0 is damaged"),
        ("no run02093.mid on the archive", "no runRUN.mid on the archive"),
        ("over the time limit: 3612 s", "over the time limit: # s"),
        ("output /data/v4/tree02093.root has 12 bytes", "output /data/v4/treeRUN.root has # bytes"),
        ("see alcapana.run02093.attempt2.err", "see alcapana.runRUN.attemptN.err"),
        ("killed by signal 11 at 0x2f", "killed by signal 11 at 0x2f"),
        ("", ""),
    ],
)
def test_reasons_are_the_same_but_for_numbers(reason: str, kind_of_it: str) -> None:
    status: Any = "E"
    assert kind(Failure("p", 2093, 2, status, reason, None, None, None)) == kind_of_it


def test_a_run_may_have_the_number_of_a_signal() -> None:
    for run in (4, 11):
        reason = f"ended by signal {run} after exit code {run} of run {run}"
        failure = Failure("p", run, 1, Status.ERROR, reason, None, None, None)
        assert kind(failure) == f"ended by signal {run} after exit code {run} of run RUN"


# ------------------------------------------------------------------------------- stats


@pytest.mark.usefixtures("in_pieces")
@pytest.mark.parametrize(
    ("by", "group"),
    [("dataset", "d.dataset"), ("production", "NULL"), ("host", "a.host"), ("user", "m.user")],
)
def test_stats_are_those_of_the_attempts(db: Database, by: str, group: str) -> None:
    wall = "CASE WHEN a.outcome = 'finished' THEN (job_stop_us - job_start_us) / 1e6 END"
    wanted = db.sql(
        f"""
        SELECT p.type || '_v' || p.version AS production, {group} AS "group",
               count(DISTINCT a.run) AS runs, sum(a.outcome IS 'failed') AS failed,
               count(DISTINCT CASE WHEN a.outcome = 'finished' THEN a.run END) AS finished,
               count(*) AS attempts, avg({wall}) AS wall_seconds, max({wall}) AS wall_max,
               avg(CASE WHEN a.outcome = 'finished' THEN cpu_seconds END) AS cpu_seconds,
               sum(CASE WHEN a.outcome = 'finished' AND cpu_seconds IS NOT NULL
                   THEN cpu_seconds END) / sum(CASE WHEN cpu_seconds IS NOT NULL THEN {wall} END)
                   AS efficiency,
               sum({wall}) / sum((job_stop_us - job_start_us) / 1e6) AS useful,
               avg(CASE WHEN a.outcome = 'finished' THEN peak_memory END) AS memory,
               max(CASE WHEN a.outcome = 'finished' THEN peak_memory END) AS memory_max,
               avg(max(job_start_us - start_us, 0) / 1e6) AS waiting_seconds,
               sum((SELECT sum(size) FROM output WHERE attempt = a.id)) AS output_bytes,
               min(a.start) AS first, max(CASE WHEN a.outcome = 'finished' THEN a.stop END) AS last
        FROM attempt a JOIN productions p ON p.id = a.production
        JOIN manager m ON m.id = a.manager
        {"LEFT JOIN datasets d USING (run)" if by == "dataset" else ""}
        GROUP BY p.id, {group} ORDER BY production, "group" IS NULL, "group"
        """
    )
    rows = db.table("stats", f"--by={by}")
    assert len(rows) == len(wanted)
    for row, known in zip(rows, wanted, strict=True):
        for name, value in known.items():
            close = pytest.approx(value) if isinstance(value, float) else value
            assert row[name] == close, name


def test_stats_tell_the_throughput(db: Database) -> None:
    for row in db.table("stats", "--by=production"):
        assert (row["per_hour"] is None) == (row["finished"] == 0)
        assert row["per_hour"] is None or row["per_hour"] > 0


def test_an_hour_and_a_day_have_the_throughput_of_what_ended_in_them(tmp_path: Path) -> None:
    with bookkeeping(tmp_path) as books:
        books.label(range(3))
        finish_all(books.manager(books.start()))
    with closing(sqlite3.connect(books.path)) as connection:
        connection.executescript("""
            DROP TRIGGER attempt_is_history;
            UPDATE attempt SET start_us = strftime('%s', '2026-01-31 02:00') * 1000000,
                stop_us = strftime('%s', '2026-01-31 12:10') * 1000000 + run * 600000000;
            """)
    db = Database(books.path)
    (hour,), (day,), (all_of_it,) = (
        db.table("stats", f"--by={by}") for by in ("hour", "day", "production")
    )
    assert (hour["group"], hour["per_hour"]) == ("2026-01-31 12:00", pytest.approx(3.0))
    assert (day["group"], day["per_hour"]) == ("2026-01-31", pytest.approx(3 / 24))
    assert all_of_it["per_hour"] == pytest.approx(3 / 10.5)


# ------------------------------------------------------------------------------- the rate


def at(hour: float) -> int:
    return round(hour * HOUR * 1e6)


def evenly(first: float, last: float, an_hour: float, lasting: float) -> Iterator[Try]:
    """Attempts of that length (hours) that end one after the other."""
    for number in range(round((last - first) * an_hour)):
        end = first + (number + 1) / an_hour
        yield Try(at(end - lasting), at(end), finished=True)


@pytest.mark.parametrize(
    ("tries", "now", "wanted"),
    [
        pytest.param(list(evenly(100, 110, 60, 0.1)), 110, 60, id="an even rate"),
        pytest.param(list(evenly(100, 110, 2, 3)), 110, 2, id="few long jobs"),
        pytest.param(list(evenly(109.9, 110, 600, 0.01)), 110, 600, id="just begun"),
        pytest.param(
            [*evenly(50, 60, 60, 0.1), *evenly(109.5, 110, 20, 0.1)], 110, 20, id="after a rest"
        ),
        pytest.param(
            [Try(at(90), at(109.5), finished=False), *evenly(109.5, 110, 18, 0.1)],
            110,
            18,
            id="after a crash and a rest",
        ),
        pytest.param([Try(at(109), None, finished=False)], 110, None, id="nothing is finished"),
        pytest.param(list(evenly(1, 2, 60, 0.1)), 110, None, id="long ago"),
        pytest.param([], 110, None, id="nothing"),
    ],
)
def test_the_rate_is_that_of_late(tries: list[Try], now: float, wanted: float | None) -> None:
    found = rate(tries, now * HOUR)
    assert found == (None if wanted is None else pytest.approx(wanted, rel=0.25))


def test_many_long_jobs_have_a_rate() -> None:
    tries = list(evenly(0, 100, 350, 10))
    lasting = [
        replace(one, stopped=None, finished=False) if one.stopped > at(90) else one  # type: ignore[operator]
        for one in tries
    ]
    latest = sorted(lasting, key=lambda one: one.claimed)[-standing_module.TAIL :]
    found = rate(latest, 90 * HOUR, latest[0].claimed)
    assert found == pytest.approx(350, rel=0.25)


def test_runs_without_a_label_have_no_dataset(tmp_path: Path) -> None:
    books = Bookkeeping(tmp_path)
    books.label([1])
    production = books.start()
    books.db.close()
    with closing(sqlite3.connect(books.path)) as connection:
        connection.execute("DELETE FROM datasets")
        connection.commit()
    db = Database(books.path)
    assert db.table("runs", "--columns=run,dataset") == [{"run": 1, "dataset": None}]
    assert [row["production"] for row in db.table("status")] == [production.label]
    assert db.table("stats") == []


def test_other_tranches_and_qualities_do_not_matter_to_a_table(tmp_path: Path) -> None:
    books = Bookkeeping(tmp_path)
    books.label([1, 2], tranche=1)
    books.label([3], tranche=2, quality="silver")
    store = books.manager(books.start(wanted=ANY))
    store.claim(1, RunFilter(tranches=(2,), qualities=()))
    books.db.close()
    rows = Database(books.path).table("runs", "--columns=run,status")
    assert [(row["run"], row["status"]) for row in rows] == [(3, "C"), (1, "N"), (2, "N")]


# ------------------------------------------------------------------------------- what it costs


def steps_of(books: Bookkeeping, action: Callable[[], object]) -> int:
    """How much work it is: the steps of SQLite's virtual machine."""
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += 1

    with books.db.read() as connection:
        connection.set_progress_handler(count, 1)
    action()
    connection.set_progress_handler(None, 0)
    return steps


@pytest.fixture(scope="module")
def small_and_large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bookkeeping, Bookkeeping]:
    """The same production twice, with 2000 and with 8000 runs, half of them finished."""

    def make(size: int) -> Bookkeeping:
        books = Bookkeeping(tmp_path_factory.mktemp("size"))
        books.label(range(size))
        store = books.manager(books.start())
        done = store.claim(size // 2, GOLD)
        for change in (submitted, finished):
            assert store.apply([change(claim) for claim in done]) == []
        for claim in store.claim(10, GOLD):
            run_job(store, claim)
            if claim.run % 2:
                store.apply([failed(claim, max_attempts=1 + claim.run % 4)])
        return books

    return make(2000), make(8000)


@pytest.mark.slow
@pytest.mark.parametrize(
    "ask",
    [
        pytest.param(lambda db, _: standings(db), id="status"),
        pytest.param(active_runs, id="active runs"),
        pytest.param(lambda db, p: find(db, RunQuery([p], limit=40)), id="runs"),
        pytest.param(
            lambda db, p: find(db, RunQuery([p], statuses=frozenset("E"), limit=40)),  # type: ignore[arg-type]
            id="runs at E",
        ),
        pytest.param(lambda db, p: find(db, RunQuery([p], order=("run",), limit=40)), id="sorted"),
        pytest.param(lambda db, p: from_database(db, p, "", None), id="explain"),
        pytest.param(lambda db, p: from_database(db, p, "", 1999), id="explain a run"),
    ],
)
def test_the_first_look_costs_about_the_same_at_any_size(
    small_and_large: tuple[Bookkeeping, Bookkeeping],
    ask: Callable[[Any, Production], object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in (standing_module, facts_module):
        monkeypatch.setattr(module, "TAIL", 500)  # both productions have more attempts than that
    small, large = (
        steps_of(books, lambda: ask(books.db, productions.find(books.db, "alcapana")))  # noqa: B023
        for books in small_and_large
    )
    assert large < 1.3 * small


DATASET = RunChoice(datasets=("SiR2",))


@pytest.mark.slow
@pytest.mark.parametrize(
    "ask",
    [
        pytest.param(lambda db, p: stats(db, [p], EVERY_RUN, "dataset"), id="stats"),
        pytest.param(lambda db, p: stats(db, [p], DATASET, "day"), id="stats of a dataset"),
        pytest.param(lambda db, p: list(open_failures(db, [p], EVERY_RUN)), id="failures"),
        pytest.param(lambda db, p: find(db, RunQuery([p], order=("-stop",))), id="sorted runs"),
    ],
)
def test_what_looks_at_all_runs_looks_at_each_once(
    small_and_large: tuple[Bookkeeping, Bookkeeping],
    ask: Callable[[Any, Production], object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pieces, "PIECE", 500)
    small, large = (
        steps_of(books, lambda: ask(books.db, productions.find(books.db, "alcapana")))  # noqa: B023
        for books in small_and_large
    )
    assert large < 4 * 1.1 * small
