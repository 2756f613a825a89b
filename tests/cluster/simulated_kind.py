"""Simulated batch systems (tests/simulated) in the place of real servers: no root is needed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from servers import PATIENCE, Server
from simulated import SimulatedServer, Terms
from site_kind import SYSTEMS

TERMS = Terms(queues=("main", "short"), patience=3.0)


class Simulated(Server):
    """The commands of a system on the PATH, and nothing behind them but this process."""

    packages = ()
    other_queue = TERMS.queues[1]

    def __init__(self, kind: str) -> None:
        self.base = Path(tempfile.mkdtemp(prefix=f"{kind}-"))
        self._outside = dict(os.environ)
        self._simulated = SimulatedServer(kind, self.base / "server", terms=TERMS)
        dialect = self._simulated.dialect
        self.name = dialect.batch or dialect.name
        words = SYSTEMS[self.name]
        self.commands = tuple(dialect.commands)
        self.submission, self.query = words.submission, words.query
        self.hold, self.some_options = words.hold, words.some_options
        self.word_for_cancelled = words.word_for_cancelled
        self.takes_what_it_did_not_answer = dialect.takes_what_it_did_not_answer
        self.queries_a_poll = words.queries_a_poll
        # HTCondor's queues are words that its pool's policy may know; it takes any.
        self.knows_its_queues = self.name != "htcondor"

    @property
    def environment(self) -> Mapping[str, str]:
        """See Server."""
        return {"SGE_ROOT": "/"} if self.name == "sge" else {}

    def path_of(self, command: str) -> str | None:
        """See Server."""
        path = self._simulated.bin / command
        return str(path) if path.exists() else None

    def start(self) -> None:
        """See Server."""
        self._simulated.__enter__()

    def start_brain(self) -> None:
        """See Server: it cannot be killed."""

    def end_all_jobs(self) -> None:
        """See Server."""
        for job in self._simulated.cluster.unfinished():
            self._simulated.cluster.cancel(job, job.request.owner)

    def as_user(self, argv: Sequence[str]) -> list[str]:
        """See Server: whoever runs the tests."""
        return list(argv)

    def check_readable(self, path: Path) -> None:
        """See Server: it is the tests' own user who reads it."""

    def new_directory(self) -> Path:
        """See Server."""
        return Path(tempfile.mkdtemp(prefix="work", dir=self.base))

    def give_to_user(self, directory: Path) -> None:
        """See Server: it is."""

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """See Server."""
        return subprocess.run(
            argv,
            env={**self._outside, "PATH": f"{self._simulated.bin}:{self._outside['PATH']}"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def freeze(self) -> None:
        """See Server."""
        self._simulated.freeze()

    def thaw(self) -> None:
        """See Server."""
        self._simulated.thaw()

    def stop(self) -> None:
        """See Server."""
        self._simulated.__exit__(None, None, None)
        shutil.rmtree(self.base, ignore_errors=True)
