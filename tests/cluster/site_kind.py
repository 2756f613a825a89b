"""The batch system of the site on which the tests run, under the account that runs them.

It is asked by its own commands, as they are on the PATH; nothing is started, stopped or
configured.  ``docs/site-tests.md`` tells how to use it.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from servers import PATIENCE, Server, ServerMissingError

from production.batch import open_batch
from production.errors import BatchError
from production.model import JobHandle

SYSTEM = os.environ.get("BATCH", "")
DEFAULT_DIRECTORY = "~/production-site-test"

_CHANGED = ("PATH", "HOME", "NETRC", "PYTHONPATH", "LC_ALL", "EXPERIMENT")


@dataclass(frozen=True)
class Words:
    """What the tests must know of a system."""

    submission: str
    query: str
    hold: Sequence[str]
    some_options: Sequence[str]
    word_for_cancelled: str | None
    queries_a_poll: int = 1


SYSTEMS: Mapping[str, Words] = {
    "slurm": Words("sbatch", "squeue", ("--hold",), ("--comment=tests",), "cancelled"),
    "sge": Words("qsub", "qstat", ("-h",), ("-ac", "comment=tests"), None),
    "lsf": Words("bsub", "bjobs", ("-H",), ("-Jd", "tests"), "cancelled"),
    "htcondor": Words(
        *("condor_submit", "condor_q", ("hold = True",), ('+Comment = "tests"',), "removed"),
        queries_a_poll=0,  # the jobs' event logs tell
    ),
    "pbs": Words("qsub", "qstat", ("-h",), ("-p", "-10"), None),
}


class Site(Server):
    """The system that BATCH names."""

    name = SYSTEM
    packages = ()
    brain = ""
    takes_what_it_did_not_answer = False

    def __init__(self) -> None:
        words = SYSTEMS.get(SYSTEM)
        if words is None:
            known = ", ".join(SYSTEMS)
            raise ServerMissingError(f"BATCH={SYSTEM} is none of {known}")
        self._login = dict(os.environ)
        self.commands = (words.submission, words.query)
        for command in self.commands:
            if self.path_of(command) is None:
                raise ServerMissingError(f"there is no {command} on the PATH")
        self.submission, self.query = self.commands
        self.hold, self.some_options = words.hold, words.some_options
        self.word_for_cancelled = words.word_for_cancelled
        self.queries_a_poll = words.queries_a_poll
        self.options = shlex.split(os.environ.get("SITE_OPTIONS", ""))
        self.queue = os.environ.get("SITE_QUEUE") or None
        self.other_queue = os.environ.get("SITE_OTHER_QUEUE") or None
        shared = Path(os.environ.get("SITE_DIR") or DEFAULT_DIRECTORY).expanduser()
        shared.mkdir(parents=True, exist_ok=True)
        self.base = Path(tempfile.mkdtemp(prefix=f"{SYSTEM}-", dir=shared))

    @property
    def environment(self) -> Mapping[str, str]:
        """See Server: all that the login has but what a manager under test finds otherwise."""
        return {
            name: value
            for name, value in self._login.items()
            if name not in _CHANGED and not name.startswith(("PYTEST_", "PRODUCTION_"))
        }

    def path_of(self, command: str) -> str | None:
        """See Server."""
        return shutil.which(command, path=self._login["PATH"])

    def start(self) -> None:
        """See Server: it runs."""

    def start_brain(self) -> None:
        """See Server."""
        self._not_here()

    def end_all_jobs(self) -> None:
        """See Server: those whose spools are below the directory of these tests."""
        left = [
            JobHandle(_name_in(orders), orders.parent) for orders in self.base.glob("**/orders")
        ]
        try:
            open_batch(self.name, {}).cancel(left)
        except BatchError as error:
            pytest.fail(f"jobs may be left in the queue: {error}")

    def as_user(self, argv: Sequence[str]) -> list[str]:
        """See Server: this one."""
        return list(argv)

    def check_readable(self, path: Path) -> None:
        """See Server: that the nodes see it is what the tests find out."""

    def new_directory(self) -> Path:
        """See Server: on the filesystem that the nodes see."""
        return Path(tempfile.mkdtemp(prefix="work", dir=self.base))

    def give_to_user(self, directory: Path) -> None:
        """See Server: it is this user's."""

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """See Server: as this user."""
        return subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE, check=False)

    def freeze(self) -> None:
        """See Server."""
        self._not_here()

    def thaw(self) -> None:
        """See Server."""

    def kill(self, name: str) -> None:
        """See Server."""
        self._not_here()

    def stop(self) -> None:
        """See Server: only what the tests wrote is removed."""
        shutil.rmtree(self.base, ignore_errors=True)

    def _not_here(self) -> None:
        pytest.skip("a site's server is not to be stopped")


def _name_in(orders: Path) -> str:
    """The name of the job in its orders, as bash would read it."""
    lines = orders.read_text(errors="replace").splitlines()
    line = next(line for line in lines if line.startswith("order_name="))
    return "".join(shlex.split(line.partition("=")[2]))
