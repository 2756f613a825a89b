"""Databases of the old program: everything in them is found again, once."""

from __future__ import annotations

import csv
import hashlib
import os
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from bookkeeping import ANY, GOLD, OUTPUTS, PROJECT, Bookkeeping, finish

from production.errors import ImportRefused
from production.model import RunFilter
from production.store import legacy, productions
from production.store.productions import NewProduction

Cell = str | int | bytes | None
Row = tuple[Cell, ...]

COMMON = "run INTEGER, status TEXT, user TEXT, start TIMESTAMP, stop TIMESTAMP, "
LOGS = ", olog TEXT, elog TEXT, modules TEXT"
ALCAPANA = COMMON + "tree TEXT, hist TEXT, odb TEXT" + LOGS
ROOTANA = COMMON + "out TEXT" + LOGS
PRODUCTIONS = "type TEXT, version INTEGER, software TEXT, start TIMESTAMP, stop TIMESTAMP"
MODULES = "common/MTreeOutput\nalcap/MuSC µ\n"
REAL = PROJECT.parent / "shared" / "data" / "alcap"
needs_real_lists = pytest.mark.skipif(
    not REAL.exists(), reason=f"the real run lists are not there: {REAL}"
)


class OldDatabase:
    """What the old program made: real tables without any key."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def execute(self, sql: str, rows: Sequence[Row] = ((),)) -> None:
        connection = sqlite3.connect(self.path)
        with connection:
            connection.executemany(sql, rows)
        connection.close()

    def table(self, name: str, columns: str, rows: Sequence[Row] = ()) -> None:
        self.execute(f"CREATE TABLE {name} ({columns})")
        self.insert(name, rows)

    def insert(self, name: str, rows: Sequence[Row]) -> None:
        if rows:
            self.execute(f"INSERT INTO {name} VALUES ({', '.join('?' * len(rows[0]))})", rows)

    def rows(self, sql: str) -> list[Row]:
        connection = sqlite3.connect(self.path)
        try:
            return connection.execute(sql).fetchall()
        finally:
            connection.close()

    def layout_of_2014(self, quality: str = "quality") -> None:
        self.table("datasets", f"run INT, dataset TEXT, {quality} TEXT")
        self.table("productions", PRODUCTIONS + ", base INTEGER")

    def layout_of_2016(self) -> None:
        self.table(
            "R15bdatasets", "run INT, dataset TEXT, tranche INT, quality TEXT, geometry TEXT"
        )
        self.table("productions", PRODUCTIONS + ", base INTEGER")


@pytest.fixture
def old(tmp_path: Path) -> OldDatabase:
    return OldDatabase(tmp_path / "old.db")


def taken_over(books: Bookkeeping, old: OldDatabase) -> list[str]:
    return legacy.take_over(books.db, legacy.read(old.path))


def tree_row(run: int, status: str = "F", user: str | None = "edmonds_a", day: int = 16) -> Row:
    """A row of alcapana_v3 as the old program left it."""
    start = f"2014-06-{day} 10:00:00.123456" if status in "RF" else None
    if status != "F":
        return (run, status, user, start, *[None] * 7)
    paths = (f"/data/{kind}/v3/{kind}{run:05d}.root" for kind in ("tree", "hist", "odb"))
    logs = (f"/data/log/v3/alcapana.run{run:05d}.{ending}" for ending in ("out", "err"))
    return (run, "F", user, start, f"2014-06-{day} 11:00:00", *paths, *logs, MODULES)


def out_row(run: int) -> Row:
    times = ("2014-07-01 00:00:00", "2014-07-01 01:00:00")
    return (run, "F", "jrquirk", *times, f"/data/out/v8/out{run:05d}.root", "o", "e", "PlotMass\n")


def build(old: OldDatabase) -> None:
    """A database of 2014 in the middle of its life."""
    old.layout_of_2014()
    old.insert("datasets", [(run, "SiR2", "gold") for run in range(2091, 2097)])
    old.insert("datasets", [(run, "Al50awithoutNDet2", "gold") for run in (3200, 3201)])
    old.insert("datasets", [(run, "Common", None) for run in (3200, 3201)])
    old.insert(
        "productions",
        [
            ("rootana", 8, "rootana_v2.1", "2014-07-01 00:00:00", None, 3),
            ("alcapana", 3, "alcapana_v3", "2014-06-16 00:00:00", "2014-06-20 00:00:00", None),
        ],
    )
    old.table(
        "alcapana_v3",
        ALCAPANA,
        [
            tree_row(2091),
            tree_row(2092, user="labounty"),
            tree_row(2093, "N", None),
            tree_row(2094, "C", "labounty"),
            tree_row(2095, "R"),
            tree_row(3732, user="jrquirk"),  # in no dataset
        ],
    )
    old.table("rootana_v8", ROOTANA, [out_row(2091), (2092, "N", *[None] * 7)])


# --------------------------------------------------------------------------- row by row


def old_rows(old: OldDatabase, table: str, outputs: Sequence[str]) -> Counter[Row]:
    """The rows that tell of work, as the old program has them."""
    columns = ", ".join(["run", "user", "start", "stop", *outputs, "olog", "elog", "modules"])
    return Counter(old.rows(f"SELECT {columns} FROM {table} WHERE status <> 'N'"))


def new_rows(books: Bookkeeping, table: str, outputs: Sequence[str]) -> Counter[Row]:
    """The same from the attempts that were recorded."""
    type_, version = table.rsplit("_v", 1)
    paths = "".join(
        f"(SELECT path FROM output o WHERE o.attempt = a.id AND o.name = '{name}'), "
        for name in outputs
    )
    rows = books.rows(
        f"""
        SELECT a.run, m.user, a.start, a.stop, {paths} a.olog, a.elog, t.text
        FROM attempt a JOIN productions p ON p.id = a.production
        JOIN manager m ON m.id = a.manager LEFT JOIN modules t ON t.id = a.modules
        WHERE p.type = ? AND p.version = ?
        """,
        type_,
        int(version),
    )
    return Counter(rows)


def test_every_row_is_found_again_once(books: Bookkeeping, old: OldDatabase) -> None:
    build(old)
    assert taken_over(books, old) == [
        "datasets: 10 new, 0 changed",
        "alcapana_v3: 6 runs",
        "rootana_v8: 2 runs",
    ]
    for table, outputs in (("alcapana_v3", OUTPUTS["alcapana"]), ("rootana_v8", ["out"])):
        assert new_rows(books, table, outputs) == old_rows(old, table, outputs)
    assert Counter(books.rows("SELECT run, dataset, quality FROM datasets")) == Counter(
        old.rows("SELECT * FROM datasets")
    )
    productions_ = "SELECT type, version, software, start, stop, base FROM productions"
    assert Counter(books.rows(productions_)) == Counter(old.rows(productions_))
    assert books.rows("SELECT DISTINCT user, host, recipe FROM productions") == [(None,) * 3]


def test_people_see_what_they_saw(books: Bookkeeping, old: OldDatabase) -> None:
    build(old)
    taken_over(books, old)
    seen = "SELECT run, user, start, stop, tree, hist, odb, olog, elog, modules FROM alcapana_v3"
    finished = " WHERE status = 'F'"
    assert books.rows(seen + finished) == old.rows(seen + finished)
    seen = "SELECT run, status, user, start, stop, out, olog, elog, modules FROM rootana_v8"
    assert books.rows(seen) == old.rows(seen)


def test_runs_in_hand_are_unclaimed_again_and_their_story_is_kept(
    books: Bookkeeping, old: OldDatabase
) -> None:
    build(old)
    taken_over(books, old)
    assert books.rows("SELECT run, status, attempt, reason FROM alcapana_v3") == [
        (2091, "F", 1, None),
        (2092, "F", 1, None),
        (2093, "N", 0, None),
        (2094, "N", 1, "had status C when it was imported"),
        (2095, "N", 1, "had status R when it was imported"),
        (3732, "F", 1, None),
    ]
    assert books.rows("SELECT run, outcome FROM attempt WHERE outcome <> 'finished'") == [
        (2094, "rolled back"),
        (2095, "rolled back"),
    ]


def test_a_manager_goes_on_where_the_old_program_ended(
    books: Bookkeeping, old: OldDatabase
) -> None:
    build(old)
    taken_over(books, old)
    store = books.manager(productions.find(books.db, "alcapana"))
    claims = store.claim(9, RunFilter(datasets=("SiR2",)))
    assert [(claim.run, claim.attempt) for claim in claims] == [(2093, 1), (2094, 2), (2095, 2)]
    derived = books.manager(productions.find(books.db, "rootana"))
    assert [claim.run for claim in derived.claim(9, GOLD)] == [2092]
    finish(store, claims[0])
    assert books.start().version == 4


def test_users_of_the_old_program_are_managers_that_have_ended(
    books: Bookkeeping, old: OldDatabase
) -> None:
    build(old)
    taken_over(books, old)
    assert books.rows("SELECT user, pid FROM manager WHERE stopped IS NOT NULL ORDER BY user") == [
        ("edmonds_a", None),
        ("jrquirk", None),
        ("labounty", None),
    ]
    assert books.cell("SELECT count(*) FROM manager") == 3


def test_a_text_is_stored_once(books: Bookkeeping, old: OldDatabase) -> None:
    build(old)
    taken_over(books, old)
    assert books.column("SELECT text FROM modules ORDER BY text") == ["PlotMass\n", MODULES]


def test_the_old_file_is_only_read(books: Bookkeeping, old: OldDatabase) -> None:
    build(old)
    before = hashlib.sha256(old.path.read_bytes()).hexdigest()
    taken_over(books, old)
    assert hashlib.sha256(old.path.read_bytes()).hexdigest() == before
    assert sorted(old.path.parent.glob("old.db*")) == [old.path]


# --------------------------------------------------------------------------- layouts


@pytest.mark.parametrize("column", ["quality", "qual"])
def test_both_names_of_the_quality_are_read(
    books: Bookkeeping, old: OldDatabase, column: str
) -> None:
    old.layout_of_2014(column)
    old.insert("datasets", [(1, "SiR2", "gold"), (2, "SiR2", None), (3, "SiR2", "")])
    taken_over(books, old)
    assert books.rows("SELECT run, qual, quality FROM datasets") == [
        (1, "gold", "gold"),
        (2, None, None),
        (3, None, None),
    ]


def test_the_layout_of_2016_has_tranches_and_geometries(
    books: Bookkeeping, old: OldDatabase
) -> None:
    old.layout_of_2016()
    labels: list[Row] = [
        (9040, "Al100", 1, "gold", "Al100"),
        (9041, "Al100", 2, None, "Al100"),
        (9890, "Ti50", None, "silver", None),
    ]
    old.insert("R15bdatasets", labels)
    old.insert("productions", [("alcapana", 1, "R15b_v1", "2016-02-01 00:00:00", None, None)])
    old.table("alcapana_v1", ALCAPANA, [tree_row(9040), tree_row(9041, "N", None)])
    assert taken_over(books, old) == ["datasets: 3 new, 0 changed", "alcapana_v1: 2 runs"]
    columns = "SELECT run, dataset, tranche, quality, geometry, campaign FROM datasets"
    assert books.rows(columns) == [(*row, "R15b") for row in labels]
    store = books.manager(productions.find(books.db, "alcapana"))
    wanted = RunFilter(datasets=("Al100",), tranches=(2,), qualities=())
    assert [claim.run for claim in store.claim(9, wanted)] == [9041]


def test_both_layouts_may_be_in_one_file_or_come_after_each_other(
    books: Bookkeeping, old: OldDatabase, tmp_path: Path
) -> None:
    build(old)
    old.table(
        "R15bdatasets",
        "run INT, dataset TEXT, tranche INT, quality TEXT, geometry TEXT",
        [(9040, "Al100", 1, "gold", "Al100")],
    )
    assert taken_over(books, old)[0] == "datasets: 11 new, 0 changed"
    later = OldDatabase(tmp_path / "later.db")
    later.layout_of_2016()
    later.insert("R15bdatasets", [(9040, "Al100", 1, "gold", "Al100"), (9041, "Al100", 1, *"gA")])
    later.insert("productions", [("alcapana", 4, "R15b_v1", "2016-02-01 00:00:00", None, None)])
    later.table("alcapana_v4", ALCAPANA, [tree_row(9040)])
    assert taken_over(books, later) == ["datasets: 1 new, 0 changed", "alcapana_v4: 1 run"]


def test_the_layout_of_the_wiki_has_no_column_base(books: Bookkeeping, old: OldDatabase) -> None:
    old.table("datasets", "run INT, dataset TEXT, qual TEXT", [(2091, "SiR2", "gold")])
    start = "2014-07-01 00:00:00"
    old.table("productions", PRODUCTIONS, [("rootana", 8, "rootana_v2.1", start, None)])
    old.table("rootana_v8", ROOTANA, [out_row(2091)])
    taken_over(books, old)
    assert books.rows("SELECT base, base_type FROM productions") == [(None, None)]
    assert books.column("SELECT out FROM rootana_v8") == ["/data/out/v8/out02091.root"]


def test_the_base_is_found_whatever_else_has_its_version(
    books: Bookkeeping, old: OldDatabase
) -> None:
    books.label([1])
    with books.db.write() as tx:
        for version in (3, 7):
            tx.execute(
                "INSERT INTO productions (type, version, software) VALUES ('aaa', ?, 'tag')",
                (version,),
            )
    build(old)
    old.insert("productions", [("rootana", 9, "lost its base", "2014-08-01 00:00:00", None, 7)])
    assert taken_over(books, old)[-1] == "rootana_v9: 0 runs"
    assert books.rows(
        "SELECT version, base, base_type FROM productions WHERE type = 'rootana' ORDER BY version"
    ) == [(8, 3, "alcapana"), (9, 7, None)]


def test_tables_of_their_own_do_not_disturb(books: Bookkeeping, old: OldDatabase) -> None:
    build(old)
    old.table("notes", "run INT, dataset TEXT, note TEXT", [(2091, "SiR2", "nice")])
    old.table("datasets_backup", "run INT, dataset TEXT, quality TEXT", [(2091, "SiR2", "bad")])
    old.table("fit_v2", "run INT, mean REAL", [(2091, 3)])
    old.table('"a ""strange"" one"', "x")
    assert taken_over(books, old)[0] == "datasets: 10 new, 0 changed"


# --------------------------------------------------------------------------- rows as they come


def test_doubled_rows_become_one_run(books: Bookkeeping, old: OldDatabase) -> None:
    old.layout_of_2014()
    old.insert("datasets", [(run, "SiR2", "gold") for run in (1, 1, 2, 3, 4)])
    old.insert("productions", [("alcapana", 3, "tag", "2014-06-16 00:00:00", None, None)] * 2)
    again = tree_row(2, day=17)
    old.table(
        "alcapana_v3",
        ALCAPANA,
        [
            *[tree_row(1), tree_row(1)],  # the same twice
            *[again, tree_row(2)],  # done twice, the newer one stands first
            *[tree_row(3), tree_row(3, "C", "labounty"), tree_row(3, "N", None)],
            *[tree_row(4, "N", None), tree_row(4, "N", None)],
        ],
    )
    assert taken_over(books, old) == ["datasets: 4 new, 0 changed", "alcapana_v3: 4 runs"]
    assert new_rows(books, "alcapana_v3", OUTPUTS["alcapana"]) == Counter(
        set(old_rows(old, "alcapana_v3", OUTPUTS["alcapana"]))
    )
    assert books.rows("SELECT run, status, attempt, stop FROM alcapana_v3") == [
        (1, "F", 1, "2014-06-16 11:00:00"),
        (2, "F", 2, "2014-06-17 11:00:00"),
        (3, "F", 2, "2014-06-16 11:00:00"),
        (4, "N", 0, None),
    ]


def test_what_a_roll_back_forgot_is_history(books: Bookkeeping, old: OldDatabase) -> None:
    old.layout_of_2014()
    old.insert("datasets", [(1, "SiR2", "gold")])
    old.insert("productions", [("alcapana", 3, "tag", "2014-06-16 00:00:00", None, None)])
    left = (1, "N", None, None, "2014-06-16 11:00:00", None, None, None, "/log/o", "/log/e", None)
    old.table("alcapana_v3", ALCAPANA, [left])
    taken_over(books, old)
    assert books.rows("SELECT status, attempt, olog FROM alcapana_v3") == [("N", 1, None)]
    assert books.rows("SELECT outcome, start, stop, olog, elog FROM attempt") == [
        ("rolled back", None, "2014-06-16 11:00:00", "/log/o", "/log/e")
    ]


def test_a_finished_run_without_paths_stays_finished(books: Bookkeeping, old: OldDatabase) -> None:
    old.layout_of_2014()
    old.insert("datasets", [(1, "SiR2", "gold")])
    old.insert("productions", [("alcapana", 3, "tag", "2014-06-16 00:00:00", None, None)])
    old.table("alcapana_v3", ALCAPANA, [(1, "F", None, *[None] * 8)])
    taken_over(books, old)
    assert books.rows("SELECT run, status, user, tree, modules FROM alcapana_v3") == [
        (1, "F", "unknown", None, None)
    ]


@pytest.mark.parametrize(
    ("stored", "text"),
    [
        (MODULES.encode(), MODULES),
        (MODULES.encode("latin-1"), MODULES),
        (MODULES, MODULES),
        ("x" * 40_000, "x" * 40_000),
        ("", None),
    ],
    ids=["blob", "blob of latin-1", "text", "long text", "empty"],
)
def test_the_modules_text_is_as_it_was(
    books: Bookkeeping, old: OldDatabase, stored: Cell, text: str | None
) -> None:
    old.layout_of_2014()
    old.insert("datasets", [(1, "SiR2", "gold")])
    old.insert("productions", [("alcapana", 3, "tag", "2014-06-16 00:00:00", None, None)])
    old.table("alcapana_v3", ALCAPANA, [(*tree_row(1)[:-1], stored)])
    taken_over(books, old)
    assert books.column("SELECT modules FROM alcapana_v3") == [text]


def test_text_of_other_encodings_is_read(books: Bookkeeping, old: OldDatabase) -> None:
    old.layout_of_2014()
    old.execute("INSERT INTO datasets VALUES (1, CAST(x'b56d' AS TEXT), 'gold')")
    taken_over(books, old)
    assert books.column("SELECT dataset FROM datasets") == ["µm"]


# --------------------------------------------------------------------------- repeated imports


def test_an_import_may_be_repeated(books: Bookkeeping, old: OldDatabase) -> None:
    build(old)
    taken_over(books, old)
    before = books.dump()
    assert taken_over(books, old) == [
        "datasets: 0 new, 0 changed",
        "alcapana_v3: is there already",
        "rootana_v8: is there already",
    ]
    assert books.dump() == before


def test_what_was_done_since_is_not_undone(books: Bookkeeping, old: OldDatabase) -> None:
    build(old)
    taken_over(books, old)
    store = books.manager(productions.find(books.db, "alcapana"))
    for claim in store.claim(9, ANY):
        finish(store, claim)
    before = books.dump()
    taken_over(books, old)
    assert books.dump() == before


@pytest.mark.parametrize("change", ["software = 'other'", "start = '2015-01-01 00:00:00'"])
def test_a_different_production_of_the_same_version_is_refused(
    books: Bookkeeping, old: OldDatabase, change: str
) -> None:
    build(old)
    taken_over(books, old)
    old.insert("datasets", [(9999, "New", "gold")])
    old.execute(f"UPDATE productions SET {change} WHERE type = 'rootana'")
    before = books.dump()
    with pytest.raises(ImportRefused, match=r"a different rootana_v8 is in .* already\. Nothing"):
        taken_over(books, old)
    assert books.dump() == before


def test_a_production_started_here_is_not_mixed_with_an_old_one(
    books: Bookkeeping, old: OldDatabase
) -> None:
    books.label([1])
    for _ in range(3):
        productions.start(books.db, NewProduction("alcapana", "alcapana_v3", "", ("tree",)), GOLD)
    build(old)
    before = books.dump()
    with pytest.raises(ImportRefused, match="a different alcapana_v3"):
        taken_over(books, old)
    assert books.dump() == before


# --------------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("sql", "what"),
    [
        (
            "INSERT INTO datasets VALUES (2091, 'SiR2', 'silver')",
            "run 2091 in dataset SiR2: the list has it twice",
        ),
        ("INSERT INTO datasets VALUES (NULL, 'SiR2', NULL)", "a row without run number or dataset"),
        ("INSERT INTO datasets VALUES ('all', 'SiR2', NULL)", "a row without run number"),
        ("INSERT INTO datasets VALUES (2091, NULL, NULL)", "a row without run number or dataset"),
        (
            "INSERT INTO productions VALUES ('alcapana', 3, 'other tag', NULL, NULL, NULL)",
            "table productions: alcapana version 3 stands there twice",
        ),
        (
            "INSERT INTO productions VALUES (NULL, 3, 'tag', NULL, NULL, NULL)",
            "table productions: type None with version 3 is no production",
        ),
        (
            "INSERT INTO productions VALUES ('alcapana', NULL, 'tag', NULL, NULL, NULL)",
            "type 'alcapana' with version None is no production",
        ),
        (
            "INSERT INTO productions VALUES ('alcapana', -1, 'tag', NULL, NULL, NULL)",
            "type 'alcapana' with version -1 is no production",
        ),
        (
            "INSERT INTO productions VALUES ('x; DROP TABLE run', 1, 'tag', NULL, NULL, NULL)",
            "type 'x; DROP TABLE run' with version 1 is no production",
        ),
        (
            "DELETE FROM productions WHERE type = 'alcapana'",
            "table alcapana_v3: table productions does not mention it",
        ),
        ("UPDATE alcapana_v3 SET status = 'X' WHERE run = 2091", "run 2091 has status 'X'"),
        ("UPDATE alcapana_v3 SET status = NULL WHERE run = 2091", "run 2091 has status None"),
        ("UPDATE alcapana_v3 SET run = NULL WHERE run = 2091", "run None has status 'F'"),
        ("UPDATE alcapana_v3 SET run = 'all' WHERE run = 2091", "run 'all' has status 'F'"),
        ("ALTER TABLE alcapana_v3 ADD COLUMN 'x y'", "column 'x y' is no name for an output"),
        ("ALTER TABLE alcapana_v3 ADD COLUMN host", "column 'host' is no name for an output"),
        ("ALTER TABLE alcapana_v3 RENAME COLUMN status TO x", "it has no columns run and status"),
        ("DROP TABLE productions", "it has neither the layout of 2014 nor that of 2016"),
        ("DROP TABLE datasets", "it has neither the layout of 2014 nor that of 2016"),
        ("ALTER TABLE productions RENAME COLUMN type TO kind", "it has neither the layout of 2014"),
    ],
)
def test_what_cannot_be_understood_is_refused_as_a_whole(
    books: Bookkeeping, old: OldDatabase, sql: str, what: str
) -> None:
    build(old)
    old.execute(sql)
    before = books.dump()
    with pytest.raises(ImportRefused) as raised:
        taken_over(books, old)
    assert what in str(raised.value)
    assert str(raised.value).endswith("Nothing was imported.")
    assert books.dump() == before


def test_a_strange_tranche_is_refused(books: Bookkeeping, old: OldDatabase) -> None:
    old.layout_of_2016()
    old.insert("R15bdatasets", [(9040, "Al100", "first", "gold", None)])
    with pytest.raises(ImportRefused, match=r"table R15bdatasets: .* a strange tranche"):
        taken_over(books, old)


def test_files_that_are_no_old_database_are_refused(books: Bookkeeping, tmp_path: Path) -> None:
    text = tmp_path / "text.db"
    text.write_text("not a database, but long enough to be looked at\n" * 100)
    empty = tmp_path / "empty.db"
    empty.touch()
    for path, what in (
        (tmp_path / "missing.db", "No such file or directory"),
        (text, "it cannot be read as a database (file is not a database)"),
        (tmp_path, "it is not a file"),
        (empty, "it has neither the layout of 2014 nor that of 2016 (datasets, productions)"),
        (books.path, "it is a database of this program, not an old one"),
    ):
        with pytest.raises(ImportRefused) as raised:
            legacy.read(path)
        assert str(raised.value) == f"{path}: {what}. Nothing was imported."
    assert not (tmp_path / "missing.db").exists()


# --------------------------------------------------------------------------- the command


@pytest.mark.slow
def test_the_command_says_what_it_did(books: Bookkeeping, old: OldDatabase) -> None:
    build(old)
    for expected in ("alcapana_v3: 6 runs", "alcapana_v3: is there already"):
        done = subprocess.run(
            [
                *(sys.executable, "-m", "production", "import", old.path),
                f"--database={books.path}",
            ],
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        assert expected in done.stdout.splitlines()


# --------------------------------------------------------------------------- the real lists


@needs_real_lists
def test_the_real_run_lists_in_the_old_layouts(books: Bookkeeping, old: OldDatabase) -> None:
    with (REAL / "alcap_runs.csv").open(newline="") as file:
        lists = list(csv.DictReader(file))
    with (REAL / "alcapana_v3_owner.csv").open(newline="") as file:
        owners = {int(row["run"]): row["user"] for row in csv.DictReader(file)}
    old.layout_of_2014()
    old.table("R15bdatasets", "run INT, dataset TEXT, tranche INT, quality TEXT, geometry TEXT")
    labels: dict[bool, list[Row]] = {False: [], True: []}
    for row in lists:
        later = row["campaign"] == "R15b"
        label = (int(row["run"]), row["dataset"], row["quality"] or None)
        more = (int(row["tranche"]), label[2], row["geometry"] or None) if later else ()
        labels[later].append((*label[:2], *more) if later else label)
    old.insert("datasets", labels[False])
    old.insert("R15bdatasets", labels[True])
    old.insert("productions", [("alcapana", 3, "alcapana_v3", "2014-06-16", None, None)])
    rows = [tree_row(run, user=user) for run, user in owners.items()]
    old.table("alcapana_v3", ALCAPANA, rows)

    assert taken_over(books, old) == ["datasets: 2408 new, 0 changed", "alcapana_v3: 574 runs"]
    assert Counter(books.rows("SELECT run, dataset, quality FROM datasets")) == Counter(
        (int(row["run"]), row["dataset"], row["quality"] or None) for row in lists
    )
    assert dict(books.rows("SELECT run, user FROM alcapana_v3 WHERE status = 'F'")) == owners
    assert books.rows("SELECT status FROM alcapana_v3 WHERE run = 3732") == [("F",)]
    assert books.cell("SELECT count(*) FROM datasets WHERE run = 3732") == 0
    assert new_rows(books, "alcapana_v3", OUTPUTS["alcapana"]) == Counter(
        old_rows(old, "alcapana_v3", OUTPUTS["alcapana"])
    )
