"""Tables of what is recorded say what plain SQL finds, too; and all tables come in all forms.

They are those of ``history``, ``datasets list``, ``recover``, ``release``, ``trace``, ``audit``.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from asked_twice import Database, Rows, in_order, make_real, make_up, without

from production.view.tables import FORMS

EVERY_RUN = "2000-2120"
LABEL = "p.type || '_v' || p.version"
ATTEMPTS = f"""
    SELECT r.run, {LABEL} AS production, r.status, a.attempt, a.outcome, m.user,
           m.host AS manager_host, a.claimed, a.start, a.stop, a.batch, a.job, a.host, a.exit_code,
           a.reason
    FROM run r JOIN productions p ON p.id = r.production
    LEFT JOIN attempt a USING (production, run) LEFT JOIN manager m ON m.id = a.manager
"""
FILES = f"""
    SELECT {LABEL} AS production, r.run, o.name, o.path, o.size, o.sha256
    FROM run r JOIN productions p ON p.id = r.production
    JOIN attempt a USING (production, run, attempt) JOIN output o ON o.attempt = a.id
    WHERE r.status = 'F'
"""
HOLDERS = f"""
    SELECT m.id AS manager, m.user, m.host, m.pid, {LABEL} AS production, m.started, m.beat_at,
           sum(a.spool IS NULL) AS claims, sum(a.spool IS NOT NULL) AS jobs
    FROM run r JOIN productions p ON p.id = r.production JOIN manager m ON m.id = r.manager
    JOIN attempt a USING (production, run, attempt)
    WHERE r.status IN ('C', 'R') GROUP BY m.id, p.id
"""
LAST = f"""
    SELECT p.type, p.version, {LABEL} AS production, r.run, r.status, r.attempt, m.user, a.stop,
           a.reason
    FROM run r JOIN productions p ON p.id = r.production
    LEFT JOIN attempt a USING (production, run, attempt) LEFT JOIN manager m ON m.id = a.manager
"""
DATASETS = """
    SELECT dataset, count(DISTINCT run) AS runs, min(run) AS first, max(run) AS last,
           count(DISTINCT tranche) AS tranches
    FROM datasets GROUP BY dataset ORDER BY dataset
"""


@pytest.fixture(scope="module", params=["made up", pytest.param("real", marks=pytest.mark.slow)])
def db(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Database:
    directory = tmp_path_factory.mktemp("records")
    made = Database((make_real if request.param == "real" else make_up)(directory))
    # So that an audit has something to find, whichever tests run before.
    Path(made.sql(FILES)[0]["path"]).unlink(missing_ok=True)
    return made


@pytest.fixture
def copy(db: Database, tmp_path: Path) -> Database:
    """The same database, to be changed."""
    return Database(Path(shutil.copy(db.path, tmp_path / "production.db")))


# ------------------------------------------------------------------------------- what is in them


def test_history_is_all_attempts(db: Database) -> None:
    rows = db.table("history", EVERY_RUN)
    assert in_order(rows) == in_order(db.sql(ATTEMPTS))
    some = db.table("history", "--dataset=Al50", "--production=alcapana", "--version=1")
    condition = (
        f"WHERE {LABEL} = 'alcapana_v1' AND r.run IN "
        "(SELECT run FROM datasets WHERE dataset = 'Al50')"
    )
    assert in_order(some) == in_order(db.sql(ATTEMPTS + condition))


def test_datasets_are_those_of_the_table(db: Database) -> None:
    rows = db.table("datasets", "list")
    assert without(rows, "qualities", "campaign") == db.sql(DATASETS)
    for row in rows:
        name = row["dataset"].replace("'", "''")
        for column, many in (("quality", "qualities"), ("campaign", "campaign")):
            found = db.sql(
                f"SELECT DISTINCT {column} AS label FROM datasets WHERE dataset = '{name}'"
            )
            assert set(filter(None, row[many].split(","))) == {
                one["label"] for one in found if one["label"]
            }


def test_recover_shows_who_holds_runs(db: Database) -> None:
    rows = db.table("recover", "--dry-run")
    assert in_order(without(rows, "state", "done")) == in_order(db.sql(HOLDERS))


def test_release_tells_what_it_has_done(copy: Database) -> None:
    def statuses() -> dict[int, str]:
        found = copy.sql(
            "SELECT run, status FROM run r JOIN productions p ON p.id = r.production "
            f"WHERE {LABEL} = 'alcapana_v1'"
        )
        return {row["run"]: row["status"] for row in found}

    before = statuses()
    rows = copy.table("release", EVERY_RUN, "--production=alcapana", "--version=1", code=48)
    after = statuses()
    assert {row["run"] for row in rows} >= set(before)
    for row in rows:
        run = row["run"]
        assert row["released"] == (before.get(run) == "C" and after[run] == "N")
        assert (before.get(run) != after.get(run)) == row["released"]


def test_trace_is_what_is_recorded_of_the_attempt(db: Database) -> None:
    for made in db.sql(f"{ATTEMPTS} WHERE r.status = 'F' AND a.attempt = r.attempt"):
        type_, version = made["production"].split("_v")
        said = db.printed(
            *("trace", str(made["run"]), f"--production={type_}", f"--version={version}"),
            "--output=json",
        )
        row = json.loads(said)
        assert {name: row[name] for name in made} == made
        files = db.sql(f"{FILES} AND r.run = {made['run']} AND {LABEL} = '{made['production']}'")
        told = [
            {**{name: output[name] for name in ("name", "path", "size", "sha256")},
             "production": row["production"], "run": row["run"]}
            for output in row["outputs"]
        ]  # fmt: skip
        assert in_order(told) == in_order(files)
        assert (row["base"] is None) == (type_ == "alcapana")


def test_audit_finds_what_is_not_there(db: Database) -> None:
    """None of the made-up files is; all of those that real jobs have made are, but for some."""
    real = [row for row in db.sql(FILES) if Path(row["path"]).exists()]
    for row in real[::3]:
        Path(row["path"]).unlink()
    gone = [row for row in db.sql(FILES) if not Path(row["path"]).exists()]
    found = db.table("audit", EVERY_RUN, code=46)
    assert in_order(
        [
            {name: row[name] for name in ("production", "run", "path")}
            for row in found
            if row["finding"] == "missing"
        ]
    ) == in_order([{name: row[name] for name in ("production", "run", "path")} for row in gone])
    for row in real[::3]:
        Path(row["path"]).write_text("x")
    sizes = [row for row in real[::3] if row["size"] != 1]
    told = [row for row in db.table("audit", EVERY_RUN, code=46) if row["finding"] == "size"]
    assert {row["path"] for row in told} == {row["path"] for row in sizes}


def test_explain_says_of_each_run_what_is_recorded(db: Database) -> None:
    """Where a run has come to its end the words are the bookkeeping's own."""
    ends = {"F": "finished", "E": "attempts_used_up"}
    for run in db.sql(LAST):
        which = (f"--production={run['type']}", f"--version={run['version']}")
        (first, *_) = db.table("explain", str(run["run"]), *which)
        assert (first["run"], first["production"]) == (run["run"], run["production"])
        assert (first["cause"] in ends.values()) == (run["status"] in ends)
        if run["status"] in ends:
            assert first["cause"] == ends[run["status"]]
        if run["status"] == "F":
            end = f"attempt {run['attempt']}, by {run['user']}, {run['stop'][:19]} UTC"
            assert first["what"] == f"Run {run['run']} is finished: {end}"
        elif run["status"] == "E":
            assert run["reason"] in first["what"]


# ------------------------------------------------------------------------------- the forms

TABLES: dict[str, tuple[str, ...]] = {
    "status": (),
    "runs": ("--limit=all",),
    "failures": ("--all",),
    "stats": (),
    "history": (EVERY_RUN,),
    "datasets": ("list",),
    "recover": ("--dry-run",),
    "release": ("1", "--production=alcapana"),
    "audit": (EVERY_RUN,),
    "clean": ("--dry-run",),
}
CODES = {"release": 48, "audit": 46}
MOVING = ("rate", "expected_end")  # from one moment to the next


def printed(db: Database, command: str, form: str) -> str:
    words: Sequence[str] = (command, *TABLES[command], f"--output={form}")
    return db.printed(*words, code=CODES.get(command, 0))


@pytest.fixture(autouse=True)
def nobodys_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The data directory is below it, where the configuration names none."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "data").mkdir()
    monkeypatch.delenv("PRODUCTION_CONFIG", raising=False)


@pytest.mark.parametrize("command", TABLES)
def test_csv_has_the_values_of_json(db: Database, command: str) -> None:
    rows: Rows = json.loads(printed(db, command, "json"))
    text = list(csv.DictReader(io.StringIO(printed(db, command, "csv"))))
    told = [{k: "" if v is None else str(v) for k, v in row.items()} for row in rows]
    assert without(text, *MOVING) == without(told, *MOVING)


@pytest.mark.parametrize("command", TABLES)
def test_github_and_latex_have_a_line_for_each_row(db: Database, command: str) -> None:
    rows: Rows = json.loads(printed(db, command, "json"))
    github = [line for line in printed(db, command, "github").splitlines() if line.startswith("|")]
    assert len(github) == len(rows) + 2
    latex = printed(db, command, "latex").splitlines()
    assert (latex[0][:15], latex[-1]) == (r"\begin{tabular}", r"\end{tabular}")
    assert len([line for line in latex if line.endswith(r"\\")]) == len(rows) + 1
    names = [cell.strip() for cell in github[0].strip("|").split("|")]
    assert not rows or names == list(rows[0])


@pytest.mark.parametrize("form", FORMS)
def test_a_trace_has_all_forms(db: Database, form: str) -> None:
    (made,) = db.sql(f"{FILES} ORDER BY p.id DESC, r.run, o.name LIMIT 1")
    type_, version = made["production"].split("_v")
    words = ("trace", str(made["run"]), f"--production={type_}", f"--version={version}")
    said = db.printed(*words, f"--output={form}")
    if form == "csv":
        rows = list(csv.DictReader(io.StringIO(said)))
        assert list(rows[0]) == ["production", "run", "fact", "text"]
        files = [row for row in rows if row["fact"] == "output"]
        assert f"{made['name']}: {made['path']}" in [row["text"] for row in files]
        assert {row["production"] for row in rows} >= {made["production"]}
    elif form == "quiet":
        assert said == f"{made['production']} {made['run']}\n"
    else:
        assert made["path"].replace("_", r"\_" if form == "latex" else "_") in said
