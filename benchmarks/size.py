#!/usr/bin/env python3
"""What a bookkeeping of a million runs costs: time, memory, and bytes.

    python3 benchmarks/size.py [--runs=1000000] [--datasets=20] [--productions=10] [--rounds=40]

Makes a database with that many runs, equally many in each dataset, and productions of all of them,
some derived from others, takes one and what is derived from it through the fill levels of FILL,
and at each measures what a manager does: claiming 15 runs, of all or of a dataset, a tranche,
another quality, and recording that a run has finished.  A real manager on that database shows what
memory it needs.  Beside each figure stands its floor, measured in the same run: a bare transaction
of one UPDATE on the same disk, between any two of those above; a bare INSERT of as many rows; the
start of Python with what any command must import.

The bytes are those of all pages in use, so that each run has its share of the indices and of what
is derived.  Paths are not counted: those that were handed to the store.  Neither is, but shown
beside, what is stored once for all productions of a run: its labels, and what its raw file was,
with place and SHA-256 (for which SQLite must have ``dbstat``, as Debian's has).

The aims are those of AIMS.  Exits with 1 when one is missed, and the figure is more than SLOW times
its floor as well: else the machine is slow, or others use it.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from production.identity import this_process  # noqa: E402
from production.manager.paths import Paths  # noqa: E402 - the path comes first
from production.model import (  # noqa: E402
    Checksum,
    Claim,
    Finished,
    InputFile,
    Intended,
    JobRecord,
    OutputFile,
    Production,
    Released,
    RunFilter,
    Submitted,
)
from production.recipe.load import find_recipe  # noqa: E402
from production.store import datasets, managers, migrations, productions  # noqa: E402
from production.store.connection import Database, raw_connect, utc_now  # noqa: E402
from production.store.productions import NewProduction  # noqa: E402
from production.store.runs import RunStore  # noqa: E402

AIMS = {
    "starting a production": 20.0,  # seconds
    "claiming 15 runs": 0.010,
    "finishing a run": 0.010,
    "production status": 0.3,
    "memory of a manager": 100.0,  # MB
    "bytes a run": 300.0,
}
SLOW = 4.0
FILL = (0.0, 0.1, 0.5, 0.9, 0.999)
TRANCHES = 5  # of each dataset
BLOCK = 15  # runs at a time when filling, as managers claim: how full pages are depends on it
DATA = Path("/gpfs/home/quirk_j/data")  # where the files would be
PLACE = "ftp://archivftp.psi.ch/mu2e/run2013"  # of the raw files
MODULES = "".join(f"module{number} parameter={number}\n" for number in range(200))
NOTHING = 'name = "nothing"\n[job]\nscript = "nothing.sh"\n'  # a recipe for real jobs
JOBS = 30  # that the real manager does

T = TypeVar("T")


@dataclass
class Table:
    """The figures, each with its floor and, if there is one, its aim."""

    missed: list[str] = field(default_factory=list)

    def add(self, what: str, aim: str | None, own: float, floor: float | None, unit: str) -> None:
        """Print a row."""
        scale = 1000.0 if unit == "ms" else 1.0
        row = f"{what:58}{own * scale:9.1f} {unit:3}"
        row += f"{floor * scale:9.1f} {unit:3}{own / floor:8.2f}" if floor else " " * 21
        if aim:
            verdict = "reached"
            if own > AIMS[aim]:
                verdict = "MISSED" if own > SLOW * (floor or 0.0) else "slow machine"
            self.missed += [what] * (verdict == "MISSED")
            row += f"   < {AIMS[aim] * scale:g} {unit} {verdict}"
        print(row, flush=True)


class Floor:
    """A file of its own on the same disk, for bare transactions as safe as the product's."""

    def __init__(self, directory: Path) -> None:
        self._connection = raw_connect(f"{(directory / 'floor.db').as_uri()}?mode=rwc")
        self._connection.execute("CREATE TABLE counter AS SELECT 0 AS n")

    def transaction(self) -> None:
        """A bare one."""
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.execute("UPDATE counter SET n = n + 1")
        self._connection.execute("COMMIT")

    def insert(self, rows: int) -> None:
        """As many rows as a production has, in one transaction, with nothing but a key."""
        execute = self._connection.execute
        execute("DROP TABLE IF EXISTS bare")
        execute("CREATE TABLE bare (a INTEGER, b INTEGER, PRIMARY KEY (a, b)) WITHOUT ROWID")
        execute(
            "INSERT INTO bare WITH RECURSIVE n(i) AS "
            "(SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) SELECT 1, i FROM n",
            (rows,),
        )

    def close(self) -> None:
        """And leave it."""
        self._connection.close()


def timed(action: Callable[[], T]) -> tuple[float, T]:
    """Seconds, and what came of it."""
    began = time.perf_counter()
    made = action()
    return time.perf_counter() - began, made


# --------------------------------------------------------------------------- what is measured


class Bookkeeping:
    """The database, as a manager has it open."""

    def __init__(self, path: Path, options: argparse.Namespace) -> None:
        migrations.create(path)
        self.path = path
        self.options = options
        self.names = [f"set{number:03}" for number in range(options.datasets)]
        self.size = options.runs // options.datasets  # runs of a dataset
        self.runs = self.size * options.datasets
        self.db = Database(path)
        self.done: Counter[tuple[str, str]] = Counter()  # by production and dataset
        self.filled = 0  # runs that ``fill`` has finished,
        self.growth = 0  # the bytes by which the database has grown with them,
        self.path_bytes = 0  # and those of their paths, as they were handed to the store

    def label(self) -> None:
        """Enter the runs."""
        part = -(-self.size // TRANCHES)
        labels = [
            datasets.Label(number * self.size + i, name, i // part + 1, "gold")
            for number, name in enumerate(self.names)
            for i in range(self.size)
        ]
        datasets.add(self.db, labels)

    def start(self, type_: str, base: Production | None, recipe: str = "") -> Production:
        """Start a production of all runs."""
        made = {"alcapana": ("tree", "hist", "odb"), "rootana": ("out",)}.get(type_, ())
        new = NewProduction(type_, "a_software_tag", recipe, made, base)
        return productions.start(self.db, new, RunFilter())[0]

    def bytes_used(self) -> int:
        """Of pages that are in use."""
        (pages, free, size) = (
            self.db.rows(f"PRAGMA {name}")[0][0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)

    def bytes_of_inputs(self) -> tuple[int, int]:
        """Of what raw files were, besides their names, and how many runs have one."""
        (pages,) = self.db.rows("SELECT sum(pgsize) FROM dbstat WHERE name = 'input'")
        (input_,) = self.db.rows("SELECT count(DISTINCT list), sum(length(file)) FROM input")
        return int(pages[0] - input_[1]), int(input_[0])

    def filters(self) -> dict[str, RunFilter]:
        """What managers ask for; the last dataset and tranche are far down in any list."""
        name = self.names[-1]
        return {
            "of all": RunFilter(),
            "of a dataset": RunFilter(datasets=(name,)),
            "of a tranche": RunFilter(tranches=(TRANCHES,)),
            "of a tranche of a dataset": RunFilter(datasets=(name,), tranches=(TRANCHES,)),
            "of any quality": RunFilter(qualities=()),
            "of a quality that none has": RunFilter(qualities=("silver",)),
        }


class Worker:
    """A manager of one production and the changes that it would record."""

    def __init__(self, books: Bookkeeping, db: Database, production: Production) -> None:
        who = managers.register(db, this_process(), production.id)
        self._books = books
        self.store = RunStore(db, production, who)
        recipe = find_recipe(production.type, ())
        self._paths = Paths(DATA, production, recipe, productions.database_id(db))

    def intended(self, claim: Claim) -> Intended:
        """Its job is about to be submitted."""
        out, err = self._paths.logs(claim)
        spool, files = self._paths.spool(claim), self._raw_files(claim.run)
        return Intended(claim, "slurm", spool, MODULES, out, err, files)

    def _raw_files(self, run: int) -> tuple[InputFile, ...]:
        if not self._paths.recipe.archive_inputs:
            return ()
        checksum = Checksum("sha256", hashlib.sha256(str(run).encode()).hexdigest())
        return (InputFile("raw", f"run{run:05}.mid", 1_000_000_007 + run, PLACE, checksum),)

    def submitted(self, claim: Claim) -> Submitted:
        """It is in the queue."""
        return Submitted(claim, str(10_000_000 + claim.run))

    def finished(self, claim: Claim) -> Finished:
        """It has ended well."""
        files = tuple(
            OutputFile(plan.name, plan.final, 1_000_000_007 + claim.run, os.urandom(32).hex())
            for plan in self._paths.outputs(claim)
        )
        logs = self._paths.final_logs(claim)
        now = utc_now()
        node = f"merlinc{claim.run % 30:02}"
        record = JobRecord("done", 0, None, node, now, now, "", 3480.5, 512 << 20, files)
        return Finished(claim, record, *logs)

    def bring_to_end(self, claims: Sequence[Claim]) -> None:
        """Have jobs of these runs finish."""
        for change in (self.intended, self.submitted, self.finished):
            if self.store.apply([change(claim) for claim in claims]):
                raise RuntimeError("a claim was lost that nobody took")
        self.count(claims)
        self._books.path_bytes += sum(map(self._path_bytes, claims))

    def _path_bytes(self, claim: Claim) -> int:
        outputs = (plan.final for plan in self._paths.outputs(claim))
        paths = (self._paths.spool(claim), *outputs, *self._paths.final_logs(claim))
        names = (file.file for file in self._raw_files(claim.run))
        return sum(len(str(path)) for path in (*paths, *names))

    def count(self, claims: Sequence[Claim]) -> None:
        """They are finished."""
        for claim in claims:
            name = self._books.names[claim.run // self._books.size]
            self._books.done[self.store.production.label, name] += 1


@contextmanager
def quick(path: Path) -> Iterator[Database]:
    """A connection that is only to fill the database; nothing is measured with it."""
    with Database(path) as db:
        db.rows("PRAGMA synchronous = OFF")
        db.rows("PRAGMA cache_size = -400000")
        yield db


def fill(books: Bookkeeping, production: Production, level: float) -> None:
    """Have the first runs of each dataset finished, up to that share."""
    before = books.bytes_used()
    with quick(books.path) as db:
        worker = Worker(books, db, production)
        for name in books.names:
            wanted = int(level * books.size)
            while (left := wanted - books.done[production.label, name]) > 0:
                claims = worker.store.claim(min(left, BLOCK), RunFilter(datasets=(name,)))
                if not claims:
                    raise RuntimeError(f"no runs left in {name}")
                worker.bring_to_end(claims)
                books.filled += len(claims)
    books.growth += books.bytes_used() - before


def examine(books: Bookkeeping, production: Production, level: float, table: Table) -> None:
    """What a manager does at that fill level, each time beside a bare transaction."""
    worker = Worker(books, books.db, production)
    store, rounds = worker.store, books.options.rounds
    with closing(Floor(Path(tempfile.mkdtemp(dir=books.path.parent)))) as floor:
        place = f"{production.label} at {level:.1%}"
        for what, wanted in books.filters().items():
            pairs = []
            for _ in range(rounds):
                seconds, claims = timed(lambda wanted=wanted: store.claim(15, wanted))  # type: ignore[misc]
                pairs.append((seconds, timed(floor.transaction)[0]))
                store.apply([Released(claim, "benchmark") for claim in claims])
            table.add(
                f"{place}: claiming {len(claims)} {what}", "claiming 15 runs", *medians(pairs), "ms"
            )
        pairs = []
        for claim in store.claim(min(rounds, books.runs // 10_000), RunFilter()):
            store.apply([worker.intended(claim)])
            store.apply([worker.submitted(claim)])
            end = worker.finished(claim)
            seconds, _ = timed(lambda end=end: store.apply([end]))  # type: ignore[misc]
            worker.count([claim])
            pairs.append((seconds, timed(floor.transaction)[0]))
        table.add(f"{place}: finishing a run", "finishing a run", *medians(pairs), "ms")


def medians(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Of the figures and of their floors."""
    own, bare = zip(*pairs, strict=True)
    return statistics.median(own), statistics.median(bare)


def command_seconds(*words: str) -> float:
    """How long a command takes."""
    argv = [sys.executable, *words]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    return timed(
        lambda: subprocess.run(argv, env=environment, check=True, stdout=subprocess.DEVNULL)
    )[0]


def manager_memory(books: Bookkeeping) -> float:
    """MB that a real manager has needed at most, after it has done some jobs."""
    place = books.path.parent
    (place / "nothing.sh").write_text("true\n")
    (place / "production.toml").write_text('data = "data"\n[space]\nprobe = "statvfs"\n')
    argv = [sys.executable, str(PROJECT / "run_production.py"), "--production=nothing"]
    argv += [f"--database={books.path}", "--pause=0.5", "--spacelim=99", "--nproc=15"]
    with subprocess.Popen(argv, cwd=place, stdout=subprocess.PIPE, text=True) as manager:
        done = 0
        for line in manager.stdout or ():
            done += "Finished run" in line
            if done == JOBS:
                break
        peak = peak_memory(manager.pid)
        manager.send_signal(signal.SIGINT)
        manager.communicate()
    return peak


def command_memory() -> float:
    """MB that Python needs with what any command must import."""
    code = "import argparse, sqlite3; print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as python:
        if python.stdout is not None:
            python.stdout.readline()
        peak = peak_memory(python.pid)
        python.communicate(b"\n")
    return peak


def peak_memory(pid: int) -> float:
    """MB that a process has needed at most."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (peak,) = (line for line in lines if line.startswith("VmHWM"))
    return float(peak.split()[1]) / 1024


# --------------------------------------------------------------------------- the order of things


def measure(directory: Path, options: argparse.Namespace, table: Table) -> None:
    """All of it."""
    floor = Floor(directory)
    books = Bookkeeping(directory / "production.db", options)
    print(f"{'':58}{'figure':>13}{'floor':>13}{'ratio':>8}   aim")
    bare, _ = timed(lambda: floor.insert(books.runs))
    table.add(f"entering {books.runs} runs", None, timed(books.label)[0], bare, "s")
    labels = books.bytes_used()

    (place := directory / "nothing.toml").write_text(NOTHING)
    primaries = options.productions - options.productions // 3 - 1
    derived = options.productions - primaries - 1
    wanted: list[tuple[str, int | None]] = [
        *[("alcapana", None) for _ in range(primaries)],
        ("nothing", None),
        *[("rootana", number) for number in range(1, derived + 1)],
    ]
    made: dict[str, Production] = {}
    for type_, version in wanted:
        base = made[f"alcapana_v{version}"] if version else None
        recipe = place.read_text() if type_ == "nothing" else ""
        seconds, one = timed(lambda: books.start(type_, base, recipe))  # noqa: B023 - at once
        made[one.label] = one
        bare, _ = timed(lambda: floor.insert(books.runs))
        what = f"starting {one.label}" + (f" from {base.label}" if base else "")
        table.add(what, "starting a production", seconds, bare, "s")
    empty = books.bytes_used()

    chosen = [made["alcapana_v1"], *([made["rootana_v1"]] if "rootana_v1" in made else [])]
    for production in chosen:
        for level in FILL:
            fill(books, production, level)
            examine(books, production, level, table)

    each, paths = (empty - labels) / books.runs / len(made), books.path_bytes / books.filled
    whole = each + books.growth / books.filled
    inputs, runs = books.bytes_of_inputs()
    table.add("bytes of the labels of a run", None, labels / books.runs, None, "B")
    table.add(
        "bytes of what a run's raw file was, besides its name", None, inputs / runs, None, "B"
    )
    table.add("bytes a run and production, untouched", None, each, None, "B")
    table.add("bytes a run and production, finished", None, whole, None, "B")
    table.add("... of which paths", None, paths, None, "B")
    once = inputs / books.filled
    table.add("... of which what raw files were", None, once, None, "B")
    table.add("... of which all besides", "bytes a run", whole - paths - once, None, "B")

    database = f"--database={books.path}"
    pairs = [
        (
            command_seconds("-m", "production", "status", database),
            command_seconds("-c", "import argparse, sqlite3"),
        )
        for _ in range(5)
    ]
    table.add("production status", "production status", *medians(pairs), "s")
    memory = manager_memory(books), command_memory()
    table.add("memory of a manager", "memory of a manager", *memory, "MB")
    books.db.close()
    floor.close()


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="A million runs; see the file's beginning.")
    parser.add_argument("--runs", type=int, default=1_000_000)
    parser.add_argument("--datasets", type=int, default=20)
    parser.add_argument("--productions", type=int, default=10, help="2 at least")
    parser.add_argument("--rounds", type=int, default=40, help="of each measurement")
    parser.add_argument("--directory", type=Path, help="where to make files; default: TMPDIR")
    options = parser.parse_args()
    print(f"SQLite {sqlite3.sqlite_version}, Python {sys.version.split()[0]}")
    table = Table()
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        measure(Path(directory), options, table)
    print(f"aims: {'MISSED: ' + '; '.join(table.missed) if table.missed else 'reached'}")
    return int(bool(table.missed))


if __name__ == "__main__":
    sys.exit(main())
