"""Runs are exported as they stand, in little memory; and the database can be made shorter."""

from __future__ import annotations

import csv
import json
import shutil
from collections import namedtuple
from collections.abc import Iterator
from io import StringIO
from itertools import islice
from pathlib import Path

import pytest
from bookkeeping import (
    ANY,
    Bookkeeping,
    bookkeeping,
    check_sound,
    failed,
    finish,
    processes,
    python,
    says,
)

from production.cli import main
from production.errors import DatabaseLocked, DatabaseTrouble
from production.model import Production
from production.store import export, vacuum
from production.store.choice import EVERY_RUN, RunChoice
from production.store.views import FIXED_COLUMNS


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Bookkeeping]:
    with bookkeeping(tmp_path) as books:
        books.label(range(1, 5))
        books.label([4], "Al50")
        yield books


@pytest.fixture
def production(books: Bookkeeping) -> Production:
    """Run 1 is finished, run 2 has failed, with a reason that CSV must quote."""
    production = books.start()
    store = books.manager(production)
    fourth, first, second = store.claim(3, ANY)
    finish(store, first)
    change = failed(second, max_attempts=1)
    object.__setattr__(change, "reason", 'bank "ADC0", block 7\nis damaged; é')
    store.apply([change])
    store.apply([failed(fourth)])
    return production


def exported(books: Bookkeeping, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["export", "--production=alcapana", *words, f"--database={books.path}"]) == 0
    return capsys.readouterr().out


# --------------------------------------------------------------------------- export


def test_csv_has_the_views_columns_and_rows(
    books: Bookkeeping, production: Production, capsys: pytest.CaptureFixture[str]
) -> None:
    header, *rows = csv.reader(StringIO(exported(books, capsys)))
    assert header == [
        *("run", "status", "user", "start", "stop", "tree", "hist", "odb"),
        *(name for name in FIXED_COLUMNS[5:] if name != "modules"),
    ]
    names = ", ".join(header)
    found = books.rows(f"SELECT {names} FROM alcapana_v1 ORDER BY run")
    assert rows == [["" if value is None else str(value) for value in row] for row in found]
    assert rows[1][header.index("reason")] == 'bank "ADC0", block 7\nis damaged; é'


def test_json_keeps_numbers_and_what_is_missing(
    books: Bookkeeping, production: Production, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--output=json", "--columns=run, modules,status,exit_code,tree")
    said = exported(books, capsys, *words)
    assert len(said.splitlines()) == 4 + 2
    assert json.loads(said)[:2] == [
        {
            "run": 1,
            "modules": "PlotMass\n",
            "status": "F",
            "exit_code": 0,
            "tree": "/data/tree/tree00001.root",
        },
        {"run": 2, "modules": None, "status": "E", "exit_code": 139, "tree": None},
    ]
    books.label([77], "Cu30")  # later than the production was started
    assert json.loads(exported(books, capsys, "--dataset=Cu30", "--output=json")) == []


def test_blanks_between_columns_are_no_matter(
    books: Bookkeeping, production: Production, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--columns=run, status", "--sort=status, -run", "--status=N", "--output=csv")
    assert main(["runs", "3-4", *words, f"--database={books.path}"]) == 0
    assert capsys.readouterr().out == "run,status\n4,N\n3,N\n"


def test_runs_are_chosen_by_number_and_dataset(
    books: Bookkeeping, production: Production, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exported(books, capsys, "2-4", "--columns=run") == "run\n2\n3\n4\n"
    assert exported(books, capsys, "--dataset=Al50", "--columns=run") == "run\n4\n"
    assert exported(books, capsys, "1", "--dataset=Al50", "--columns=run") == "run\n"


def test_it_is_read_piece_by_piece_and_nobody_waits(
    books: Bookkeeping, production: Production, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "PIECE", 2)
    rows = export.rows(books.db, production, EVERY_RUN, ["status", "run"])
    assert list(islice(rows, 1)) == [("F", 1)]
    with books.db.write() as tx:  # would wait for an unfinished query
        tx.execute("UPDATE alcapana_v1 SET status = 'N' WHERE run = 2")
        tx.execute("DELETE FROM alcapana_v1 WHERE run = 3")
    assert list(rows) == [("E", 2), ("N", 4)]  # run 2 was read before
    chosen = RunChoice(range(2, 5))
    found = export.rows(books.db, production, chosen, ["run", "modules", "run"])
    assert list(found) == [(2, None, 2), (4, None, 4)]


def test_a_file_appears_when_it_is_complete(
    books: Bookkeeping, production: Production, tmp_path: Path
) -> None:
    command = ["export", "--production=alcapana", f"--database={books.path}", "--columns=run"]
    file = tmp_path / "runs.csv"
    assert main([*command, f"--file={file}"]) == 0
    assert file.read_text() == "run\n1\n2\n3\n4\n"
    assert main([*command, f"--file={file}", "4"]) == 15
    assert file.read_text() == "run\n1\n2\n3\n4\n"
    assert main([*command, f"--file={file}", "4", "--force"]) == 0
    assert file.read_text() == "run\n4\n"
    assert main([*command, f"--file={tmp_path}/nowhere/runs.csv"]) == 49
    assert {path.name for path in tmp_path.iterdir()} == {"production.db", "runs.csv"}


def test_what_cannot_be_exported_is_said(
    books: Bookkeeping, production: Production, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["export", "--production=alcapana", f"--database={books.path}"]
    assert main([*command, "--columns=run,tre"]) == 2
    assert "alcapana_v1 has no column tre; its columns: run, status, " in capsys.readouterr().err
    assert main([*command, "--dataset=nil"]) == 17
    assert main([*command, "--version=2"]) == 18


# --------------------------------------------------------------------------- vacuum


def test_a_vacuum_gives_space_back_and_changes_nothing(
    books: Bookkeeping, production: Production, capsys: pytest.CaptureFixture[str]
) -> None:
    with books.db.write() as tx:
        tx.execute("CREATE TABLE large AS SELECT randomblob(1000000)")
    with books.db.write() as tx:
        tx.execute("DROP TABLE large")
    before, size = books.dump(), books.path.stat().st_size
    assert main(["vacuum", f"--database={books.path}"]) == 0
    now = books.path.stat().st_size
    assert now < size - 900_000
    assert capsys.readouterr().out == f"{books.path}: {now} bytes, {size} before\n"
    assert books.dump() == before
    check_sound(books)


def test_a_vacuum_waits_for_its_turn(books: Bookkeeping, production: Production) -> None:
    holder = python(
        """
        import sqlite3, sys
        connection = sqlite3.connect(sys.argv[1], isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        print("holding", flush=True)
        input()
        """,
        books.path,
    )
    with processes([holder]):
        says(holder, "holding")
        books.db.patience = 0.0
        with pytest.raises(DatabaseLocked):
            vacuum.vacuum(books.db)
        books.db.patience = 60.0
        books.db.check = holder.kill  # is called while it waits
        vacuum.vacuum(books.db)
        books.db.check = lambda: None
        assert holder.wait() != 0


def test_without_space_enough_nothing_is_tried(
    books: Bookkeeping, production: Production, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(books.path.stat().st_size - 1))
    before = books.path.read_bytes()
    with pytest.raises(DatabaseTrouble, match=r"bytes free, and .* may be needed to rewrite it"):
        vacuum.vacuum(books.db)
    assert books.path.read_bytes() == before


def test_temporary_files_are_where_sqlite_puts_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SQLITE_TMPDIR", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    assert next(vacuum._temporary()) == Path("/var/tmp")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert next(vacuum._temporary()) == tmp_path
    monkeypatch.setenv("SQLITE_TMPDIR", str(tmp_path / "nowhere"))
    assert next(vacuum._temporary()) == tmp_path
