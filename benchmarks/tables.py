#!/usr/bin/env python3
"""What the tables cost on a bookkeeping of a million runs, and whether they disturb anybody.

    python3 benchmarks/tables.py [--runs=1000000] [--finished=0.5] [--rounds=15] [--seconds=20]
                                 [--database=FILE]

Makes a database as benchmarks/size.py does, with two productions of all runs, part of one finished
(``--database`` keeps it, or takes one that was kept).  Each command is measured in turn with its
floor: Python started with what any command must import, and a bare query for the same rows.  Then
eight managers claim and give back runs as fast as they can, with and without somebody who looks at
the tables all the time.

The aim for ``status``, ``runs`` and ``explain`` is AIM seconds.  Exits with 1 when it is missed,
also by the time on the processors: else others use the machine.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(PROJECT), str(PROJECT / "benchmarks")]

from size import Bookkeeping, fill  # noqa: E402 - the path comes first

AIM = 0.3  # seconds
WRITERS = 8

LATEST = "SELECT * FROM attempt a JOIN run r USING (production, run, attempt) ORDER BY a.id DESC"
UNCLAIMED = "SELECT count(*) FROM (SELECT 1 FROM unclaimed WHERE production = 1 LIMIT 20000)"
TALLY = "SELECT * FROM productions p LEFT JOIN tally t ON t.production = p.id"
TAIL = "SELECT claimed_us, stop_us FROM attempt ORDER BY id DESC LIMIT 3000"
AT_ERROR = "SELECT * FROM run WHERE production = 1 AND status = 'E' LIMIT 40"
# Each command, the bare queries for the same, and whether the aim is for it.
MEASURED: Sequence[tuple[str, Sequence[str], bool]] = (
    ("status", (TALLY, TAIL), True),
    ("runs", (f"{LATEST} LIMIT 40",), True),
    ("runs --production=alcapana --status=E", (AT_ERROR,), True),
    ("runs --production=alcapana --status=N", ("SELECT * FROM run LIMIT 500",), True),
    ("runs --production=rootana --sort=run", ("SELECT * FROM run LIMIT 500",), True),
    ("explain --production=alcapana", (TALLY, TAIL, UNCLAIMED), True),
    ("explain 999999 --production=rootana", (TALLY, TAIL, UNCLAIMED), True),
    ("failures", ("SELECT count(*) FROM run WHERE failures > 0",), False),
    ("stats --production=alcapana", ("SELECT sum(cpu_seconds) FROM attempt",), False),
)

WRITER = """
import sys, time
from pathlib import Path
from production.model import Released, RunFilter
from production.store import managers, productions
from production.store.connection import Database
from production.identity import this_process
from production.store.runs import RunStore
with Database(Path(sys.argv[1])) as db:
    production = productions.find(db, "alcapana")
    store = RunStore(db, production, managers.register(db, this_process(), production.id))
    print("ready", flush=True)
    input()
    end, waits = time.monotonic() + float(sys.argv[2]), []
    while time.monotonic() < end:
        began = time.monotonic()
        claims = store.claim(1, RunFilter())
        waits.append(time.monotonic() - began)
        store.apply([Released(claim, "benchmark") for claim in claims])
    print(*waits)
    managers.sign_off(db, store.manager)
"""


def run_timed(argv: Sequence[str]) -> tuple[float, float]:
    """Seconds that a command takes, and of CPU time."""
    began = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    process = subprocess.Popen(
        argv, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(argv)} ended with {process.returncode}")
    return seconds, usage.ru_utime + usage.ru_stime


def bare(path: Path, queries: Sequence[str]) -> list[str]:
    """The floor of a command."""
    code = (
        "import argparse, sqlite3, sys\n"
        f"connection = sqlite3.connect({path.as_uri() + '?mode=ro'!r}, uri=True)\n"
        f"for query in {list(queries)!r}: connection.execute(query).fetchall()\n"
    )
    return [sys.executable, "-c", code]


def measure(path: Path, rounds: int) -> bool:
    """All commands; whether the aim was reached where there is one."""
    print(f"{'':45}{'time':>9}{'floor':>10}{'ratio':>7}{'CPU':>10}{'floor':>10}{'ratio':>7}")
    reached = True
    for command, queries, has_aim in MEASURED:
        own, floor = [], []
        for _ in range(rounds if has_aim else max(rounds // 5, 1)):
            argv = [sys.executable, "-m", "production", *command.split(), f"--database={path}"]
            own.append(run_timed(argv))
            floor.append(run_timed(bare(path, queries)))
        wall, cpu = (statistics.median(pair) for pair in zip(*own, strict=True))
        bare_wall, bare_cpu = (statistics.median(pair) for pair in zip(*floor, strict=True))
        verdict = ""
        if has_aim:
            missed = min(wall, cpu) > AIM
            reached = reached and not missed
            fast = "reached" if wall <= AIM else "reached by CPU time"
            verdict = f"   < {AIM} s {'MISSED' if missed else fast}"
        print(
            f"{command:45}{wall:7.3f} s{bare_wall:8.3f} s{wall / bare_wall:7.2f}"
            f"{cpu:8.3f} s{bare_cpu:8.3f} s{cpu / bare_cpu:7.2f}{verdict}",
            flush=True,
        )
    return reached


def write_beside(path: Path, seconds: float, reading: bool) -> tuple[list[float], list[float]]:
    """How long claims of eight managers take, and the tables of one who reads meanwhile."""
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    argv = [sys.executable, "-c", WRITER, str(path), str(seconds)]
    writers = [
        subprocess.Popen(
            argv, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(WRITERS)
    ]
    for writer in writers:
        if writer.stdout is None or writer.stdout.readline() != "ready\n":
            raise RuntimeError("a writer did not start")
    for writer in writers:
        if writer.stdin is not None:
            writer.stdin.write("go\n")
            writer.stdin.flush()
    end, reads, turn = time.monotonic() + seconds, [], 0
    while time.monotonic() < end:
        if not reading:
            time.sleep(0.1)
            continue
        command = MEASURED[turn % 2][0]  # status and runs
        argv = [sys.executable, "-m", "production", command, f"--database={path}"]
        reads.append(run_timed(argv)[0])
        turn += 1
    waits: list[float] = []
    for writer in writers:
        said, _ = writer.communicate(timeout=seconds + 300)
        waits += map(float, said.split())
    return waits, reads


def side_by_side(path: Path, seconds: float) -> None:
    """Readers beside writers."""
    for reading in (False, True, False, True):
        waits, reads = write_beside(path, seconds, reading)
        waits.sort()
        told = (
            f"{WRITERS} managers {'with' if reading else 'without'} a reader: "
            f"{len(waits) / seconds:.1f} claims/s, median {statistics.median(waits):.3f} s, "
            f"99 % within {waits[int(len(waits) * 0.99)]:.3f} s, longest {waits[-1]:.3f} s"
        )
        if reads:
            told += (
                f"; {len(reads)} tables, median {statistics.median(reads):.3f} s, longest "
                f"{max(reads):.3f} s"
            )
        print(told, flush=True)


def make(path: Path, options: argparse.Namespace) -> None:
    """The database."""
    options.datasets, options.productions = 20, 2
    books = Bookkeeping(path, options)
    books.label()
    base = books.start("alcapana", None)
    books.start("rootana", base)
    fill(books, base, options.finished)
    books.db.close()


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Tables of a million runs; see the beginning.")
    parser.add_argument("--runs", type=int, default=1_000_000)
    parser.add_argument("--finished", type=float, default=0.5, help="part of the runs")
    parser.add_argument("--rounds", type=int, default=15, help="of each measurement")
    parser.add_argument("--seconds", type=float, default=20.0, help="of writing, four times")
    parser.add_argument("--database", type=Path, help="make it here, or take it from here")
    options = parser.parse_args()
    print(f"SQLite {sqlite3.sqlite_version}, Python {sys.version.split()[0]}")
    with tempfile.TemporaryDirectory() as directory:
        path = (options.database or Path(directory) / "production.db").resolve()
        if not path.exists():
            make(path, options)
        print(f"{path.stat().st_size / 1e6:.0f} MB, load {os.getloadavg()[0]:.1f}")
        reached = measure(path, options.rounds)
        side_by_side(path, options.seconds)
    print(f"aim: {'reached' if reached else 'MISSED'}")
    return int(not reached)


if __name__ == "__main__":
    sys.exit(main())
