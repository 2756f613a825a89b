"""The main job: the 67 runs of dataset SiR2 from the archive through both productions.

It is `make demo` as a user runs it, then a look at everything that it left behind.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import uproot

PROJECT = Path(__file__).parent.parent
RUNS = [*range(2091, 2104), *range(2119, 2173)]

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("main job"), pytest.mark.timeout(900)]


def demo(directory: Path) -> str:
    done = subprocess.run(
        [str(PROJECT / "examples" / "demo.sh"), sys.executable],
        env={**os.environ, "DEMO_DIR": str(directory)},
        cwd=directory.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("main") / "demo"
    demo(directory)
    return directory


@pytest.fixture
def database(finished: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(finished / "production.db")
    connection.row_factory = sqlite3.Row
    yield connection
    connection.close()


def test_all_runs_are_finished_in_both_productions(database: sqlite3.Connection) -> None:
    for table in ("alcapana_v1", "rootana_v1"):
        rows = database.execute(f"SELECT run, status FROM {table} ORDER BY run").fetchall()
        assert [tuple(row) for row in rows] == [(run, "F") for run in RUNS]
    stops = database.execute("SELECT stop FROM productions WHERE stop IS NOT NULL").fetchall()
    assert len(stops) == 2
    assert database.execute("SELECT max(attempt) FROM run").fetchone()[0] == 1


def test_every_recorded_path_exists_with_its_size_and_checksum(
    finished: Path, database: sqlite3.Connection
) -> None:
    outputs = database.execute("SELECT name, path, size, sha256 FROM output").fetchall()
    assert len(outputs) == 4 * len(RUNS)
    for output in outputs:
        content = Path(output["path"]).read_bytes()
        assert len(content) == output["size"] > 0
        assert hashlib.sha256(content).hexdigest() == output["sha256"]
    row = database.execute("SELECT * FROM alcapana_v1 WHERE run = 2091").fetchone()
    data = finished / "data"
    assert row["tree"] == str(data / "tree/v1/tree02091.root")
    assert row["hist"] == str(data / "hist/v1/hist02091.root")
    assert row["odb"] == str(data / "dump/v1/dump02091.odb")
    assert row["olog"] == str(data / "log/v1/alcapana.run02091.out")
    assert row["elog"] == str(data / "log/v1/alcapana.run02091.err")
    for log in database.execute("SELECT olog, elog FROM attempt"):
        assert Path(log["olog"]).is_file()
        assert Path(log["elog"]).is_file()


def test_nothing_but_outputs_and_logs_is_left(finished: Path) -> None:
    data = finished / "data"
    kinds = {path.relative_to(data).parts[0] for path in data.rglob("*") if path.is_file()}
    assert kinds == {"tree", "hist", "dump", "out", "log"}
    assert len([path for path in data.rglob("*") if path.is_file()]) == len(RUNS) * (4 + 4)


def test_the_modules_text_is_that_of_the_file_and_kept_once(database: sqlite3.Connection) -> None:
    for table, name in (("alcapana_v1", "MODULES"), ("rootana_v1", "production.cfg")):
        text = (PROJECT / "examples" / name).read_text()
        assert [row[0] for row in database.execute(f"SELECT DISTINCT modules FROM {table}")] == [
            text
        ]
    assert database.execute("SELECT count(*) FROM modules").fetchone()[0] == 2


def test_the_events_of_the_raw_files_are_in_the_trees(
    finished: Path, database: sqlite3.Connection
) -> None:
    import midas

    for run in (RUNS[0], RUNS[-1]):
        raw = finished / "archive" / "mu2e" / "run2013" / f"run{run:05d}.mid"
        events = sum(1 for event in midas.read_events(raw) if event.id < 0x8000)
        row = database.execute("SELECT tree FROM alcapana_v1 WHERE run = ?", (run,)).fetchone()
        with uproot.open(row["tree"]) as file:
            assert file["events"].num_entries == events


def test_the_bookkeeping_answers_the_sqlite3_shell(finished: Path) -> None:
    query = "SELECT run, status, user, start, stop, tree FROM alcapana_v1 WHERE run = 2091"
    said = subprocess.run(
        ["sqlite3", str(finished / "production.db"), query], capture_output=True, text=True
    )
    run, status, user, start, stop, tree = said.stdout.strip().split("|")
    assert (run, status) == ("2091", "F")
    assert user
    assert start < stop
    assert tree.endswith("tree/v1/tree02091.root")


def test_run_again_the_demo_starts_the_next_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEMO_RUNS", "2091-2093")
    first = demo(tmp_path / "demo")
    assert "INFO: Starting new production, version 1" in first
    assert (tmp_path / "demo" / "mass.png").read_bytes().startswith(b"\x89PNG")
    assert "INFO: Starting new production, version 2" in demo(tmp_path / "demo")
