"""The servers, one of each kind for all tests, and what tests submit to them with."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

import pytest
from condor import HTCondor
from job_orders import Workshop
from servers import Server, ServerMissingError
from sge import GridEngine
from site_kind import SYSTEM, Site
from slurm import Slurm, SlurmWithoutAccounting

from production.batch import WRAPPER, BatchSystem, open_batch
from production.model import JobOrder

OWN_KINDS: Mapping[str, type[Server]] = {kind.name: kind for kind in (Slurm, GridEngine, HTCondor)}
KINDS: Mapping[str, type[Server]] = {SYSTEM: Site} if SYSTEM else OWN_KINDS
FURTHER_KINDS: Mapping[str, type[Server]] = {"slurm-alone": SlurmWithoutAccounting}

# Stands before the real command on the PATH: the ordinary user's account, and a note of each call.
SHIM = """\
#!/bin/sh
printf '%s\\n' "{name} $*" >> {calls}
exec {command} "$@"
"""
COMMANDS = (
    *("sbatch", "squeue", "scancel", "sacct", "scontrol"),
    *("qsub", "qstat", "qdel", "qacct", "qalter", "qmove"),
    *("bsub", "bjobs", "bkill", "bhist", "bacct", "bswitch"),
    *("condor_submit", "condor_q", "condor_rm", "condor_qedit", "condor_history"),
)


@pytest.fixture(scope="session", params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A real batch system on this machine."""
    try:
        made = {**KINDS, **FURTHER_KINDS}[request.param]()
        made.check_readable(WRAPPER)
        made.start()
    except ServerMissingError as error:
        pytest.skip(str(error))
    yield made
    made.stop()


class Submitter:
    """An ordinary user's place on the shared filesystem, and the commands under that account."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.directory = server.new_directory()
        self.workshop = Workshop(self.directory)
        self._calls = self.directory / "calls"
        self.bin = self.directory / "bin"
        self.bin.mkdir()
        for name in COMMANDS:
            path = server.path_of(name)
            if path is None:
                continue
            command = " ".join(server.as_user([path]))
            shim = self.bin / name
            shim.write_text(SHIM.format(name=name, calls=self._calls, command=command))
            shim.chmod(0o755)

    def order(self, script: str, run: int, **more: object) -> JobOrder:
        """Orders that the user's job can read, in a spool that it can write."""
        order = self.workshop.order(script, run=run, **more)  # type: ignore[arg-type]
        self.server.give_to_user(self.directory)
        return order

    def open(self, **options: object) -> BatchSystem:
        """The batch system, as a manager that has just started opens it."""
        given = options.pop("options", [])
        queue = {"queue": self.server.queue} if self.server.queue else {}
        every: dict[str, object] = {**queue, "options": [*self.server.options, *given]}  # type: ignore[misc]
        return open_batch(self.server.name, {**every, **options})

    def calls(self, name: str) -> list[str]:
        """The arguments with which a command has been called so far."""
        lines = self._calls.read_text().splitlines() if self._calls.exists() else []
        return [line.partition(" ")[2] for line in lines if line.startswith(f"{name} ")]


@pytest.fixture
def submitter(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Submitter]:
    """What tests in this process submit with; all of its jobs are ended."""
    made = Submitter(server)
    monkeypatch.setenv("PATH", f"{made.bin}:{os.environ['PATH']}")
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    yield made
    server.end_all_jobs()
