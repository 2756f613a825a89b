#!/usr/bin/env python3
"""Many managers at one file: how many transactions a second, how long one waits, who gets a run.

    sudo python3 benchmarks/contention.py [--managers=8] [--runs=2000] [--seconds=0]
                                          [local gluster nfs]

Each manager is a process that does to the bookkeeping what a manager does, without pausing: it
claims runs, records their intents, their submissions and their ends, each in a transaction, and
gives a sign of life every second.  So it claims and finishes one run at a time, then 15.  Two
figures are measured in the same run on the same filesystem:

floor   one process that does nothing but bare transactions, of one UPDATE each
2014    as many managers that do what run_production.py of 2014 did: look for a run at N outside of
        any transaction, set it to C, then to R and F, and record five paths and the modules file,
        each in a transaction of its own, waiting 5 s for the lock; then it sets its run back to N
        and dies (alcap-org/AlcapDAQ, analyzer/batch/jobscripts/DBManager.py and RunManager.py)

Systems: ``local``, the disk below --directory; ``gluster``, two mounts of GlusterFS; ``nfs``, four
nodes with kernels of their own.  The latter two are those of tests/network, so they need root on a
Debian machine.  The aim: no run is claimed twice, none is left over, the file is sound.  Exits with
1 when it is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import getpass
import json
import multiprocessing
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

PROJECT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(PROJECT), str(PROJECT / "tests")]

SYSTEMS = ("local", "gluster", "nfs")
MANAGERS = (8, 16, 32)
BATCHES = (1, 15)
NODES = 4  # of NFS
BEAT = 1.0  # seconds; real managers give a sign of life once a minute
FLOOR_SECONDS = 5.0
MODULES = "".join(f"module{number} parameter={number}\n" for number in range(200))  # 5 kB
TABLE = "alcapana_v1"

T = TypeVar("T")


# --------------------------------------------------------------------------- what one manager does


class Watch:
    """Does transactions and notes how long each took, with all the waiting for its turn."""

    def __init__(self) -> None:
        self.claimed: list[int] = []
        self.waits: list[float] = []

    def time(self, transaction: Callable[..., T], *arguments: object) -> T:
        """Do it."""
        began = time.monotonic()
        result = transaction(*arguments)
        self.waits.append(time.monotonic() - began)
        return result


@contextmanager
def manager_of_today(path: Path, batch: int) -> Iterator[Callable[[Watch], bool]]:
    """What takes ``batch`` runs from N to F; False when there are none left."""
    from bookkeeping import ANY, finished, intended, submitted

    from production.identity import this_process
    from production.store import managers, productions
    from production.store.connection import Database
    from production.store.runs import RunStore

    with Database(path) as db:
        db.patience = float("inf")
        production = productions.find(db, "alcapana")
        who = managers.register(db, this_process(), production.id)
        store = RunStore(db, production, who)
        beaten = time.monotonic()

        def take(watch: Watch) -> bool:
            nonlocal beaten
            if time.monotonic() - beaten > BEAT:
                watch.time(managers.beat, db, who)
                beaten = time.monotonic()
            claims = watch.time(store.claim, batch, ANY)
            watch.claimed += [claim.run for claim in claims]
            for change in (lambda claim: intended(claim, MODULES), submitted, finished):
                if claims and watch.time(store.apply, [change(claim) for claim in claims]):
                    raise RuntimeError("a claim was lost that nobody took")
            return bool(claims)

        yield take


@contextmanager
def manager_of_2014(path: Path, _batch: int) -> Iterator[Callable[[Watch], bool]]:
    """What takes one run from N to F; False when there are none left."""
    connection = sqlite3.connect(path)  # with the defaults of the module, as then
    user = getpass.getuser()

    def change(assignment: str, value: object, run: int) -> None:
        connection.execute(f"UPDATE {TABLE} SET {assignment} = ? WHERE run = ?", (value, run))
        connection.commit()

    def claim() -> int | None:
        with connection:
            found = connection.execute(f"SELECT run FROM {TABLE} WHERE status = 'N'").fetchone()
            if found:
                change("status = 'C', user", user, found[0])
        return found[0] if found else None

    def take(watch: Watch) -> bool:
        run = watch.time(claim)
        if run is None:
            return False
        watch.claimed.append(run)
        try:
            watch.time(change, "status = 'R', start", _now(), run)
            watch.time(change, "status = 'F', stop", _now(), run)
            watch.time(change, "modules", MODULES, run)
            for kind in ("tree", "hist", "odb", "olog", "elog"):
                watch.time(change, kind, f"/data/{kind}/v1/{kind}{run:05d}.root", run)
        except sqlite3.OperationalError:
            with contextlib.suppress(sqlite3.OperationalError):
                change("status = 'N', user", None, run)
            raise
        return True

    with contextlib.closing(connection):
        yield take


def _now() -> str:
    return str(datetime.now(UTC))


KINDS = {"today": manager_of_today, "2014": manager_of_2014}


# --------------------------------------------------------------------------- on one host


def prepare(kind: str, path: str, runs: int) -> None:
    """Make the database."""
    if kind == "today":
        from production.model import RunFilter
        from production.store import datasets, migrations, productions
        from production.store.connection import Database

        migrations.create(Path(path))
        with Database(Path(path)) as db:
            labels = [datasets.Label(run, "SiR2", quality="gold") for run in range(1, runs + 1)]
            datasets.add(db, labels)
            new = productions.NewProduction("alcapana", "v1", "", ("tree", "hist", "odb"))
            productions.start(db, new, RunFilter())
        return
    columns = "run INTEGER, status TEXT, user TEXT, start TIMESTAMP, stop TIMESTAMP"
    columns += "".join(f", {kind} TEXT" for kind in ("tree", "hist", "odb", "olog", "elog"))
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"CREATE TABLE {TABLE} ({columns}, modules TEXT)")
        rows = [(run, "N") for run in range(1, runs + 1)]
        connection.executemany(f"INSERT INTO {TABLE} (run, status) VALUES (?, ?)", rows)


def check(path: str) -> dict[str, int]:
    """How many runs stand where, and under ``damage`` what is wrong with the file."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        stand = connection.execute(f"SELECT status, count(*) FROM {TABLE} GROUP BY 1").fetchall()
        damage = connection.execute("PRAGMA integrity_check").fetchall()
    return {**dict(stand), "damage": 0 if damage == [("ok",)] else len(damage)}


def floor(path: str) -> float:
    """Bare transactions a second of one process, as safe on disk as the product's."""
    from production.store.connection import raw_connect

    done = 0
    with contextlib.closing(raw_connect(f"{Path(path).as_uri()}?mode=rwc")) as connection:
        connection.execute("CREATE TABLE counter AS SELECT 0 AS n")
        began = time.monotonic()
        while time.monotonic() - began < FLOOR_SECONDS:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("UPDATE counter SET n = n + 1")
            connection.execute("COMMIT")
            done += 1
        return done / (time.monotonic() - began)


def crew(kind: str, path: str, managers: int, batch: int, seconds: float) -> list[dict[str, Any]]:
    """Have ``managers`` processes work as soon as a line is read; what each has done."""
    context = multiprocessing.get_context("fork")  # no connection is open yet
    gate = context.Barrier(managers + 1)
    results = context.SimpleQueue()

    def work() -> None:
        watch, died = Watch(), ""
        with KINDS[kind](Path(path), batch) as take:
            gate.wait()
            deadline = time.monotonic() + (seconds or float("inf"))
            try:
                while take(watch) and time.monotonic() < deadline:
                    pass
            except sqlite3.OperationalError as error:
                died = str(error)
        results.put({"claimed": watch.claimed, "waits": watch.waits, "died": died})

    processes = [context.Process(target=work, daemon=True) for _ in range(managers)]
    for number, process in enumerate(processes, start=1):
        process.start()
        while gate.n_waiting < number:  # one after the other: each needs the lock to register
            if not process.is_alive():
                raise RuntimeError("a manager did not start")
            time.sleep(0.01)
    print("ready", flush=True)
    sys.stdin.readline()
    gate.wait()
    done = [results.get() for _ in processes]
    for process in processes:
        process.join()
    return done


ROLES: dict[str, Callable[..., Any]] = {f.__name__: f for f in (prepare, check, floor, crew)}


# --------------------------------------------------------------------------- the hosts


@dataclass(frozen=True)
class Host:
    """Where a part of the managers works."""

    directory: Path  # the shared one, as it is called there
    command: Callable[[Sequence[str]], list[str]]  # what has a command run there

    def start(self, role: str, name: str, **more: object) -> subprocess.Popen[str]:
        """Have it do something with the file ``name`` of the shared directory."""
        order = json.dumps({"path": str(self.directory / name), **more})
        argv = [sys.executable, str(Path(__file__).resolve()), f"--role={role}", f"--order={order}"]
        return subprocess.Popen(
            self.command(argv), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def do(self, role: str, name: str, **more: object) -> Any:
        """The same, to its end; what it found."""
        return result(self.start(role, name, **more))


def result(process: subprocess.Popen[str]) -> Any:
    """What a role has printed at its end."""
    said, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"{process.args!r} failed")
    return json.loads(said)


@contextmanager
def hosts(system: str, directory: Path) -> Iterator[list[Host]]:
    """The hosts of one of SYSTEMS; raises NoFilesystemError."""
    with ExitStack() as stack:
        if system == "local":
            yield [Host(directory, list)]
        elif system == "gluster":
            from network import gluster

            volume = stack.enter_context(gluster.volume(directory / "gluster"))
            yield [Host(mount, list) for mount in volume.mounts]
        else:
            from network.nfs import NfsNodes

            nodes = stack.enter_context(NfsNodes(directory / "nfs", clients=NODES))
            surroundings = {"PATH": os.environ["PATH"], "HOME": "/root", "LC_ALL": "C.UTF-8"}
            yield [_node_host(node, surroundings) for node in nodes.clients]


def _node_host(node: Any, environment: dict[str, str]) -> Host:
    return Host(node.shared, lambda argv: node.command(*argv, environment=environment))


# --------------------------------------------------------------------------- measuring


@dataclass(frozen=True)
class Figures:
    """What came of one measurement."""

    seconds: float
    claimed: Counter[int]
    waits: list[float]  # seconds that each transaction took, in order
    died: int  # managers
    stand: dict[str, int]

    @property
    def runs(self) -> float:
        """Finished a second."""
        return self.stand.get("F", 0) / self.seconds

    @property
    def transactions(self) -> float:
        """A second."""
        return len(self.waits) / self.seconds

    @property
    def doubles(self) -> int:
        """Runs that more than one manager took for its own."""
        return sum(count > 1 for count in self.claimed.values())

    @property
    def unfinished(self) -> int:
        """Runs."""
        return sum(runs for status, runs in self.stand.items() if status in set("NCRE"))


def measure(places: Sequence[Host], kind: str, managers: int, batch: int, more: Any) -> Figures:
    """Have that many managers, spread over the hosts, take a new production to its end."""
    name = f"{kind}_{managers}_{batch}.db"
    places[0].do("prepare", name, kind=kind, runs=more.runs)
    shares = [managers // len(places) + (n < managers % len(places)) for n in range(len(places))]
    crews = [
        place.start("crew", name, kind=kind, managers=share, batch=batch, seconds=more.seconds)
        for place, share in zip(places, shares, strict=True)
        if share
    ]
    for one in crews:
        if one.stdout is None or one.stdout.readline() != "ready\n":
            raise SystemExit("the managers do not start")
    began = time.monotonic()
    for one in crews:
        if one.stdin is not None:
            one.stdin.write("go\n")
            one.stdin.flush()
    done = [worker for one in crews for worker in result(one)]
    seconds = time.monotonic() - began
    return Figures(
        seconds,
        Counter(run for worker in done for run in worker["claimed"]),
        sorted(wait for worker in done for wait in worker["waits"]),
        sum(bool(worker["died"]) for worker in done),
        places[0].do("check", name),
    )


HEAD = (
    f"{'system':9}{'managers':>9}  {'claims':8}{'runs/s':>8}{'of 2014':>9}{'tx/s':>8}"
    f"{'of floor':>10}{'99 % of tx':>12}{'longest':>10}{'doubles':>9}{'died':>6}{'left':>6}"
)


def line(system: str, managers: int, what: str, bare: float, peer: Figures, own: Figures) -> str:
    """One row of the table."""
    slow = statistics.quantiles(own.waits, n=100, method="inclusive")[98]
    return (
        f"{system:9}{managers:9}  {what:8}{own.runs:8.1f}{own.runs / (peer.runs or 1):9.2f}"
        f"{own.transactions:8.1f}{own.transactions / bare:10.2f}{slow:10.2f} s"
        f"{own.waits[-1]:8.2f} s{own.doubles:9}{own.died:6}{own.unfinished:6}"
    )


def compare(system: str, places: Sequence[Host], options: argparse.Namespace) -> list[str]:
    """Print the rows of one system; returns what has missed the aim."""
    missed = []
    bare = places[0].do("floor", "floor.db")
    print(f"{system:9}{'floor':>9}: {bare:.1f} bare transactions a second", flush=True)
    for managers in options.managers or MANAGERS:
        peer = measure(places, "2014", managers, 1, options)
        print(line(system, managers, "2014", bare, peer, peer), flush=True)
        for batch in options.batch or BATCHES:
            own = measure(places, "today", managers, batch, options)
            print(line(system, managers, f"by {batch}", bare, peer, own), flush=True)
            left = own.unfinished and not options.seconds
            if own.doubles or own.died or own.stand["damage"] or left:
                missed.append(f"{system} with {managers} managers by {batch}")
    return missed


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Contention; see the file's beginning.")
    parser.add_argument("systems", nargs="*", choices=[*SYSTEMS, []], default=[])
    parser.add_argument("--managers", type=int, action="append")
    parser.add_argument("--batch", type=int, action="append", help="runs to claim at a time")
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=0, help="end each measurement then")
    parser.add_argument("--directory", type=Path, help="where to make files; default: TMPDIR")
    parser.add_argument("--role", choices=ROLES, help=argparse.SUPPRESS)
    parser.add_argument("--order", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role:
        print(json.dumps(ROLES[options.role](**options.order)))
        return 0
    from network.needs import NoFilesystemError

    missed = []
    print(HEAD)
    for system in options.systems or SYSTEMS:
        with tempfile.TemporaryDirectory(dir=options.directory) as directory:
            try:
                with hosts(system, Path(directory)) as places:
                    missed += compare(system, places, options)
            except NoFilesystemError as error:
                print(f"{system:9} not measured: {error}")
    print(f"aim: every run claimed once: {'MISSED: ' + ', '.join(missed) if missed else 'reached'}")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
