#!/usr/bin/env python3
"""What a cycle of the manager's loop costs with many jobs in the batch system.

    python3 benchmarks/batch_cycle.py [--jobs=1000 --jobs=10000] [slurm sge lsf htcondor pbs]

The batch systems are the simulated ones of the tests, each in a process of its own; the manager's
own code runs here: it claims and submits all jobs, then looks after them for some cycles.  Counted
are the commands of a cycle, the manager's own CPU time, and its memory; beside them, as the floor,
the CPU time of running the same commands and splitting their output into lines.  The aims: at most
2 commands, 50 ms with 1000 jobs and 400 ms with 10 000, 100 MB.  Exits with 1 when one is missed.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

SYSTEMS = ("slurm", "sge", "lsf", "htcondor", "pbs")
CYCLES = 10
AIMS = {1000: 0.050, 10_000: 0.400}  # seconds of CPU time
MOST_COMMANDS = 2
MOST_MEMORY = 100  # MB
RECIPE = 'name = "nothing"\n[job]\nscript = "nothing.sh"\n'


def serve(system: str, directory: str) -> None:
    """Be a batch system in which no job ever starts, until standard input ends."""
    sys.path.insert(0, str(PROJECT / "tests"))
    from simulated import SimulatedServer, Terms

    with SimulatedServer(system, Path(directory), terms=Terms(slots=0, largest_array=10_000)):
        print("ready", flush=True)
        sys.stdin.read()


@contextmanager
def server(system: str, directory: Path) -> Iterator[None]:
    """The batch system in a process of its own, its commands first on the PATH."""
    argv = [sys.executable, __file__, "--serve", str(directory), system]
    path = os.environ["PATH"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        if process.stdout is None or process.stdin is None or not process.stdout.readline():
            raise SystemExit(f"the simulated {system} did not start")
        os.environ["PATH"] = f"{directory}/bin:{path}"
        try:
            yield
        finally:
            os.environ["PATH"] = path
            process.stdin.close()


def measure(system: str, jobs: int, directory: Path) -> tuple[int, float, float, float]:
    """Commands a cycle, seconds of CPU time, those of the floor, and the peak memory in MB."""
    from production import commands
    from production.batch.base import open_batch
    from production.config import Space
    from production.identity import this_process
    from production.manager.desk import Desk
    from production.manager.jobs import Jobs
    from production.manager.paths import Paths
    from production.manager.plan import JobSettings
    from production.manager.settings import Rooms, Settings
    from production.manager.work import Phase, Work
    from production.model import RunFilter
    from production.recipe.load import parse_recipe
    from production.space.probe import open_probe
    from production.store import datasets, managers, migrations, productions
    from production.store.connection import Database
    from production.store.runs import RunStore
    from production.view.console import Console

    (directory / "nothing.sh").touch()
    recipe = parse_recipe(RECIPE, directory / "nothing.toml")
    migrations.create(directory / "p.db")
    calls: list[Callable[[], commands.Completed]] = []
    run = commands.run

    def counted(argv: Sequence[str], **more: Any) -> commands.Completed:
        calls.append(lambda: run(argv, **more))
        return run(argv, **more)

    with server(system, directory / "server"), Database(directory / "p.db") as db:
        labels = [datasets.Label(run, "all", quality="gold") for run in range(1, jobs + 1)]
        datasets.add(db, labels)
        new = productions.NewProduction("nothing", "v1", RECIPE, ())
        production, _ = productions.start(db, new, RunFilter())
        batch = open_batch(system, {})
        paths = Paths(directory / "data", production, recipe, productions.database_id(db))
        rooms = Rooms(batch, open_probe(Space("statvfs"), directory), None, lambda _: batch)
        settings = Settings(nproc=jobs, nprep=0)
        desk = Desk(db, None, paths, JobSettings(), rooms, settings, Console("quiet"))
        who = managers.register(db, this_process(), production.id)
        desk.store = RunStore(db, production, who)
        loop = Jobs(desk)
        for claim in desk.store.claim(jobs, RunFilter()):
            desk.take(Work(claim, paths, batch, paths.job_name(claim), Phase.READY))

        def turn() -> None:
            loop.advance()
            desk.flush()

        while any(work.phase is not Phase.RUNNING for work in desk.works.values()):
            turn()
            desk.results.deliver(1.0)
        used: list[float] = []
        for cycle in range(CYCLES + 1):
            if cycle == 1:  # the first one has things to find out
                commands.run = counted
                used.clear()
            began = time.process_time()
            loop.look()
            while desk.lanes["batch"].busy:
                desk.results.deliver(1.0)
            turn()
            used.append(time.process_time() - began)
        commands.run = run
        floor = []
        for call in calls:
            began = time.process_time()
            call().stdout.splitlines()
            floor.append(time.process_time() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    each = sum(floor) / CYCLES
    return -(-len(calls) // CYCLES), statistics.median(used), each, peak


def main() -> int:
    """Measure and print; each figure is taken in a process of its own."""
    parser = argparse.ArgumentParser(description="A cycle's cost; see the file's beginning.")
    parser.add_argument("systems", nargs="*")
    parser.add_argument("--jobs", type=int, action="append")
    parser.add_argument("--serve", metavar="DIRECTORY", help=argparse.SUPPRESS)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    systems = options.systems or SYSTEMS
    if options.serve:
        serve(systems[0], options.serve)
        return 0
    if options.one:
        with tempfile.TemporaryDirectory() as directory:
            print(*measure(systems[0], options.jobs[0], Path(directory)))
        return 0
    missed = []
    print(f"{'system':10}{'jobs':>7}{'commands':>10}{'CPU time':>11}{'floor':>10}{'memory':>9}")
    for jobs in options.jobs or AIMS:
        for system in systems:
            argv = [sys.executable, __file__, "--one", f"--jobs={jobs}", system]
            said = subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True).stdout
            calls, used, floor, memory = map(float, said.split())
            print(
                f"{system:10}{jobs:7}{calls:10.0f}{used * 1e3:8.1f} ms{floor * 1e3:7.1f} ms"
                f"{memory:6.0f} MB",
                flush=True,
            )
            if calls > MOST_COMMANDS or memory > MOST_MEMORY or used > AIMS.get(jobs, used):
                missed.append(f"{system} with {jobs} jobs")
    print(f"aims: {'MISSED by ' + ', '.join(missed) if missed else 'reached'}")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
