"""A bookkeeping to test with: a database, productions, managers, and processes that use it."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from production.identity import this_process
from production.model import (
    Change,
    Checksum,
    Claim,
    Failed,
    Finished,
    InputFile,
    Intended,
    JobRecord,
    OutputFile,
    Production,
    Released,
    RunFilter,
    Status,
    Submitted,
    job_name,
)
from production.store import datasets, managers, migrations, productions
from production.store.connection import Database
from production.store.datasets import Label
from production.store.productions import NewProduction
from production.store.runs import RunStore

PROJECT = Path(__file__).parent.parent
ANY = RunFilter(qualities=())
GOLD = RunFilter()
OUTPUTS = {"alcapana": ("tree", "hist", "odb"), "rootana": ("out",)}
TABLES = (
    *("meta", "datasets", "productions", "manager", "request", "modules"),
    *("lawful_change", "run", "attempt", "output", "unclaimed", "tally", "place", "input"),
)

Row = tuple[Any, ...]
Dump = dict[str, list[Row]]


class Bookkeeping:
    """A new database, opened by one manager's connection."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "production.db"
        self.path.write_bytes(_new_database())
        self.db = Database(self.path)
        self.db.rows("PRAGMA synchronous = OFF")  # nobody pulls the plug on a test

    def label(self, runs: Iterable[int], dataset: str = "SiR2", **labels: object) -> None:
        """Enter runs in a dataset, gold ones unless told otherwise."""
        labels.setdefault("quality", "gold")
        datasets.add(self.db, [Label(run, dataset, **labels) for run in runs])  # type: ignore[arg-type]

    def start(
        self, type_: str = "alcapana", *, base: Production | None = None, wanted: RunFilter = GOLD
    ) -> Production:
        """Start the next production of a type."""
        new = NewProduction(type_, f"{type_}-tag", "recipe text", OUTPUTS[type_], base)
        return productions.start(self.db, new, wanted)[0]

    def manager(self, production: Production, db: Database | None = None) -> RunStore:
        """Another manager of ``production``."""
        db = db or self.db
        return RunStore(db, production, managers.register(db, this_process(), production.id))

    def rows(self, sql: str, *parameters: object) -> list[Row]:
        """What a query finds, as plain tuples."""
        return [tuple(row) for row in self.db.rows(sql, parameters)]

    def column(self, sql: str, *parameters: object) -> list[Any]:
        """The first column of what a query finds."""
        return [row[0] for row in self.rows(sql, *parameters)]

    def job_name(self, claim: Claim) -> str:
        """What a job of the first production is called."""
        return job_name(
            "alcapana_v1", claim, str(self.cell("SELECT value FROM meta WHERE key = 'uuid'"))
        )

    def cell(self, sql: str, *parameters: object) -> Any:
        """The only value that a query finds."""
        ((value,),) = self.rows(sql, *parameters)
        return value

    def dump(self, *, without: Sequence[str] = ()) -> Dump:
        """All that the database holds, table by table."""
        return {
            table: sorted(self.rows(f"SELECT * FROM {table}"), key=repr)
            for table in TABLES
            if table not in without
        }

    def commits(self) -> int:
        """How many transactions have changed the file (fileformat2.html, file change counter)."""
        return int.from_bytes(self.path.read_bytes()[24:28], "big")


@cache
def _new_database() -> bytes:
    """What ``production init`` makes, made once."""
    with TemporaryDirectory() as directory:
        path = Path(directory) / "production.db"
        migrations.create(path)
        return path.read_bytes()


@contextmanager
def bookkeeping(directory: Path) -> Iterator[Bookkeeping]:
    """A new database, closed and found to be sound at the end."""
    books = Bookkeeping(directory)
    try:
        yield books
        check_sound(books)
    finally:
        books.db.close()


def check_sound(books: Bookkeeping) -> None:
    """What holds at any time, whatever was done."""
    assert books.rows("PRAGMA integrity_check") == [("ok",)]
    assert books.rows("PRAGMA foreign_key_check") == []
    # What is derived is what follows from the rest.
    unclaimed = books.rows("SELECT * FROM unclaimed ORDER BY 1, 2, 3, 4, 5")
    assert unclaimed == books.rows("SELECT DISTINCT * FROM claimable ORDER BY 1, 2, 3, 4, 5")
    assert books.rows("SELECT * FROM tally WHERE runs <> 0 ORDER BY 1, 2") == books.rows(
        "SELECT production, status, count(*) FROM run GROUP BY 1, 2 ORDER BY 1, 2"
    )
    # A run that is held has one attempt that lasts, its latest; no other run has any.
    assert books.rows(
        "SELECT production, run, attempt FROM attempt WHERE outcome IS NULL ORDER BY 1, 2"
    ) == books.rows(
        "SELECT production, run, attempt FROM run WHERE status IN ('C', 'R') ORDER BY 1, 2"
    )
    # A finished run's latest attempt is the one that finished.
    assert not books.rows(
        """
        SELECT run FROM run r LEFT JOIN attempt a USING (production, run, attempt)
        WHERE status = 'F' AND coalesce(outcome, '') <> 'finished'
        """
    )
    # A list of inputs is that of its first attempt, and is read by attempts at that run only; no
    # list and no place is there for nothing.
    assert not books.rows(
        """
        SELECT a.id FROM attempt a LEFT JOIN attempt f ON f.id = a.inputs
        WHERE a.inputs IS NOT NULL AND (f.run <> a.run OR f.inputs <> f.id OR NOT EXISTS
              (SELECT 1 FROM input WHERE list = a.inputs))
        """
    )
    assert not books.rows(
        "SELECT list FROM input i JOIN attempt a ON a.id = i.list WHERE a.inputs IS NOT i.list"
    )
    assert not books.rows("SELECT url FROM place WHERE id NOT IN (SELECT place FROM input)")


# --------------------------------------------------------------------------- changes of a run


def status_of(store: RunStore, claim: Claim) -> Status:
    """Where the claim's run stands now."""
    sql = "SELECT status FROM run WHERE production = ? AND run = ?"
    row = store.db.row(sql, (store.production.id, claim.run))
    assert row is not None
    return Status(row["status"])


def intended(claim: Claim, modules: str | None = "PlotMass\n", **paths: Path) -> Intended:
    spool = Path(f"/spool/run{claim.run}.a{claim.attempt}.t{claim.token}")
    olog, elog = paths.get("olog", spool / "out"), paths.get("elog", spool / "err")
    return Intended(claim, "local", spool, modules, olog, elog, raw_files(claim.run))


def raw_files(run: int) -> tuple[InputFile, ...]:
    """What is read of a run: of the last two files it is not known what they should be."""
    place, md5 = "ftp://archive.example/mu2e", Checksum("md5", f"{run:032x}")
    return (
        InputFile("raw", f"run{run:05d}.mid", 200_000_000 + run, place, md5),
        InputFile("slow", f"slow/run{run:05d}.gz", 5000 + run, place),
        InputFile("slow", f"slow/run{run:05d}.txt", 0),
    )


def submitted(claim: Claim) -> Submitted:
    return Submitted(claim, f"job-{claim.run}-{claim.token}")


def finished(claim: Claim, outputs: Sequence[str] = OUTPUTS["alcapana"]) -> Finished:
    return Finished(
        claim,
        record(claim, outputs),
        Path(f"/data/log/run{claim.run:05d}.out"),
        Path(f"/data/log/run{claim.run:05d}.err"),
    )


def failed(claim: Claim, *, wait: float = 0.0, max_attempts: int = 3) -> Failed:
    return Failed(claim, "alcapana was killed by SIGSEGV", wait, max_attempts, exit_code=139)


def released(claim: Claim) -> Released:
    return Released(claim, "rolled back")


def record(claim: Claim, outputs: Sequence[str]) -> JobRecord:
    """What a job that ended well leaves behind."""
    files = [
        OutputFile(name, Path(f"/data/{name}/{name}{claim.run:05d}.root"), 1000 + claim.run, "5ea1")
        for name in outputs
    ]
    return JobRecord(
        phase="done",
        exit_code=0,
        signal=None,
        host="node1",
        start="2026-01-31 23:00:00.000000",
        stop="2026-01-31 23:59:59.000000",
        reason="",
        cpu_seconds=3480.5,
        peak_memory=512 * 2**20,
        outputs=tuple(files),
    )


CHANGES: Mapping[str, Callable[[Claim], Change]] = {
    "intent": intended,
    "submission": submitted,
    "finish": finished,
    "failure": failed,
    "last failure": lambda claim: failed(claim, max_attempts=1),
    "release": released,
}


def run_job(store: RunStore, claim: Claim) -> None:
    """Take a claimed run to R."""
    assert store.apply([intended(claim), submitted(claim)]) == []


def finish(store: RunStore, claim: Claim) -> None:
    """Take a claimed run to F."""
    run_job(store, claim)
    assert store.apply([finished(claim, OUTPUTS[store.production.type])]) == []


def finish_all(store: RunStore, wanted: RunFilter = ANY) -> list[int]:
    """Take all runs that can be claimed to F."""
    claims = store.claim(100_000, wanted)
    for claim in claims:
        finish(store, claim)
    return [claim.run for claim in claims]


# --------------------------------------------------------------------------- processes


def python(
    code: str, *arguments: object, preexec_fn: Callable[[], None] | None = None
) -> subprocess.Popen[str]:
    """A Python process of its own that runs ``code`` and talks through its pipes."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        preexec_fn=preexec_fn,
    )


@contextmanager
def processes(started: Sequence[subprocess.Popen[str]]) -> Iterator[None]:
    """None of ``started`` outlives the block."""
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.communicate()


def answer(process: subprocess.Popen[str]) -> str:
    """All that a process prints, which must end well."""
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out


def says(process: subprocess.Popen[str], line: str) -> None:
    """Wait until a process says ``line``."""
    assert process.stdout is not None
    said = process.stdout.readline().rstrip("\n")
    assert said == line, said + process.communicate(timeout=120)[1]


def tell(process: subprocess.Popen[str], line: str = "go on") -> None:
    """Have a process that waits for a line go on."""
    assert process.stdin is not None
    process.stdin.write(f"{line}\n")
    process.stdin.flush()
