"""Managers on two hosts are killed and stopped at random: no run is lost, none is done twice.

The seed is printed, and ``CAMPAIGN_SEED`` gives it again.  ``CAMPAIGN_RUNS`` and
``CAMPAIGN_KILLS`` choose other sizes, ``CAMPAIGN_ON`` some of ``PLACES`` (``make campaign``).
"""

from __future__ import annotations

import compileall
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from network import namespaces
from network.hosts import Host
from network.needs import NoFilesystemError
from network.nfs import NfsNodes
from simulated import SimulatedServer, Terms

from campaign import site, torment

PROJECT = Path(__file__).parent.parent.parent
RUNS = int(os.environ.get("CAMPAIGN_RUNS", "150"))
KILLS = int(os.environ.get("CAMPAIGN_KILLS", "24"))
SEED = int(os.environ.get("CAMPAIGN_SEED", "0")) or random.SystemRandom().randrange(1, 10**6)
STOPS = max(4, KILLS // 8)
MANAGERS = 8
SCHEDULER = "slurm"
LEASE = 10  # seconds
FREEZES = 0.05  # a second, of the scheduler
AHEAD = 300.0  # seconds by which the second host's clock is
PATIENCE = 120.0 + 3.0 * RUNS  # seconds; only for the day on which something does not happen

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600 + 2 * PATIENCE)]

ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "PYTHONPATH": ":".join(map(str, (PROJECT, PROJECT / "tests", PROJECT / "examples"))),
    "LC_ALL": "C.UTF-8",
    "PYTHONDONTWRITEBYTECODE": "1",
}


@dataclass(frozen=True)
class Place:
    """Where a campaign is."""

    hosts: Sequence[Host]  # with managers; the last one's clock is ahead
    # Where the jobs run when it is not there; with the batch system that brings them there.
    node: Host | None = None
    server: SimulatedServer | None = None

    @property
    def all_hosts(self) -> Sequence[Host]:
        """Those with managers, and the node."""
        return self.hosts if self.node is None else [*self.hosts, self.node]


@contextmanager
def gluster(base: Path) -> Iterator[Place]:
    """Two hosts of this machine's kernel, each with its own mount of a GlusterFS volume."""
    with namespaces.hosts(base, ("east", "west")) as hosts:
        yield Place(hosts)


@contextmanager
def scheduler(base: Path) -> Iterator[Place]:
    """The same, and this machine as a cluster's node, with a third mount."""
    terms = Terms(slots=8, patience=2.0, accounting_lag=2.0)
    with (
        namespaces.hosts(base / "net", ("east", "west")) as hosts,
        SimulatedServer(SCHEDULER, base / "server", terms=terms) as server,
    ):
        yield Place(hosts, namespaces.ThisMachine("node", hosts[0].shared), server)


@contextmanager
def nfs(base: Path) -> Iterator[Place]:
    """Two hosts with kernels of their own, clients of an NFS server."""
    with NfsNodes(base, clients=2) as nodes:
        yield Place(nodes.clients)


PLACES = {"gluster": gluster, "scheduler": scheduler, "nfs": nfs}


@pytest.mark.parametrize("name", os.environ.get("CAMPAIGN_ON", "gluster scheduler").split())
def test_no_run_is_lost_and_none_is_done_twice(name: str, tmp_path: Path) -> None:
    sys.stdout.write(f"CAMPAIGN_SEED={SEED}\n")
    try:
        with PLACES[name](tmp_path / "place") as place:
            place.hosts[-1].set_clock(AHEAD)
            hold(place, tmp_path)
    except NoFilesystemError as error:
        pytest.skip(str(error))


def hold(place: Place, notes: Path) -> None:
    """The campaign in this place."""
    for part in ("production", "tests"):  # once, for thousands of managers that start
        compileall.compile_dir(PROJECT / part, quiet=1)
    first = place.hosts[0]
    directory = first.shared / "campaign"
    ask(first, "build", directory, RUNS)
    with torments(place, directory, notes) as told:
        wait_for(told, place.server)
        events = [line for _, output in told for line in output.read_text().splitlines()]
    left = [ask(host, "left", directory).strip() for host in place.all_hosts]
    assert left == ["0"] * len(left)
    found = json.loads(ask(first, "check", directory, RUNS, LEASE, text="\n".join(events)))
    sys.stdout.write(f"{json.dumps(found['figures'], indent=1)}\n")
    assert not found["complaints"], "\n".join(found["complaints"])
    for figure in ("managers killed", "jobs killed", "take-overs from the dead"):
        assert found["figures"][figure], figure
    if KILLS >= 100:  # in a short campaign there may be none
        assert found["figures"]["late finishes refused"]


def wait_for(
    told: Sequence[tuple[subprocess.Popen[bytes], Path]], server: SimulatedServer | None
) -> None:
    """Wait until all torments are over; meanwhile the scheduler stands still now and then."""
    chance = random.Random(SEED)
    deadline = time.monotonic() + PATIENCE
    while any(process.poll() is None for process, _ in told):
        ended = [output for process, output in told if process.poll()]
        assert not ended, ended[0].read_text()[-3000:]
        assert time.monotonic() < deadline, "the campaign does not end"
        time.sleep(0.2)
        if server is not None and chance.random() < FREEZES * 0.2:
            server.freeze()
            time.sleep(chance.uniform(0.0, 5.0))
            server.thaw()


@contextmanager
def torments(
    place: Place, directory: Path, notes: Path
) -> Iterator[list[tuple[subprocess.Popen[bytes], Path]]]:
    """What happens on each host is under way, and ends with this."""
    started = []
    try:
        for host, plan in plans(place, directory):
            own = {"EXPERIMENT": str(directory), "HOME": str(directory)}
            if place.server is not None:
                own["PATH"] = f"{place.server.bin}:{ENVIRONMENT['PATH']}"
            environment = {**ENVIRONMENT, **own, "PRODUCTION_TIMEOUT": "2"}
            argv = [sys.executable, "-m", "campaign.torment", plan.text()]
            output = notes / f"torment.{host.name}"
            with output.open("wb") as file:
                process = subprocess.Popen(
                    host.command(*argv, environment=environment),
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                )
            started.append((process, output))
        yield started
    finally:
        for process, _ in started:
            process.kill()
            process.wait()


def plans(place: Place, directory: Path) -> Iterator[tuple[Host, torment.Plan]]:
    """What is to happen on each host."""
    hosts = len(place.hosts)
    # Not the wrappers of local jobs: if those are watched from another host, nobody there can see
    # that they are gone.
    jobs = {"payload": 4} if place.server is None else {}
    weights = {**torment.KILLS, **jobs}
    chance = random.Random(SEED)
    common = torment.Plan("", SEED, str(directory), RUNS, LEASE)
    command = [
        *(sys.executable, "-c", site.PROGRAM),
        *("--production=count", f"--database={directory / 'production.db'}"),
        *(f"--lease={LEASE}", "--nproc=4", "--nprep=1"),
        f"--batch={SCHEDULER if place.server else 'local'}",
    ]
    for number, host in enumerate(place.hosts):
        yield (
            host,
            replace(
                common,
                host=host.name,
                managers=share(MANAGERS, number, hosts),
                command=command,
                strikes=with_all(
                    torment.strikes(
                        chance,
                        (share(KILLS, number, hosts), weights),
                        (share(STOPS, number, hosts), torment.STOPS),
                    ),
                    number,
                    hosts,
                ),
                ahead=AHEAD if host is place.hosts[-1] else 0.0,
            ),
        )
    if place.node is not None:
        strikes = torment.strikes(chance, (KILLS // 5, {"payload": 1, "wrapper": 1}))
        yield place.node, replace(common, host=place.node.name, strikes=strikes)


def with_all(strikes: Sequence[str], number: int, of: int) -> list[str]:
    """Also the ends of all managers of a host, each host in its turn: the others are to notice."""
    turns = of * max(1, KILLS // 80)
    places = [len(strikes) * (2 * turn + 1) // (2 * turns) for turn in range(number, turns, of)]
    mixed = list(strikes)
    for place in reversed(places):
        mixed.insert(place, torment.ALL)
    return mixed


def share(total: int, number: int, of: int) -> int:
    """Of ``total`` things that ``of`` hosts divide among themselves."""
    return total * (number + 1) // of - total * number // of


def ask(host: Host, *arguments: object, text: str = "") -> str:
    """What ``campaign.site`` prints on the host."""
    argv = [sys.executable, "-m", "campaign.site", *arguments]
    environment: Mapping[str, str] = ENVIRONMENT
    done = subprocess.run(
        host.command(*argv, environment=environment),
        input=text,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, f"{arguments[0]}: {done.stdout}{done.stderr}"
    return done.stdout
