"""Fifty managers want the lock at the same moment while somebody's sqlite3 shell holds it.

The shell holds it for LOCK_SECONDS at least: 20, or what the environment variable of that name
says.  The wiki of 2014 promised that every member of the collaboration may ask at once, and warned
that an interactive session makes the production crash.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from experiment import PATIENCE, Experiment, ManagerProcess
from network.needs import NoFilesystemError, command_path, need

from production.model import RunFilter
from production.store import productions
from production.store.connection import Database
from production.store.productions import NewProduction

pytestmark = pytest.mark.slow

MANAGERS = 50
LOCK_SECONDS = float(os.environ.get("LOCK_SECONDS", "20"))

RECIPE = """\
name = "count"
[job]
script = "count.sh"
"""
PAYLOAD = """\
echo "begin ${PM_SPOOL##*/}" >> "$EXPERIMENT/ledger"
until [[ -e $EXPERIMENT/go ]]; do sleep 0.5; done
echo "done ${PM_SPOOL##*/}" >> "$EXPERIMENT/ledger"
"""


class Crowd(Experiment):
    """A production with one run for each manager, whose jobs wait for the file ``go``."""

    def _build(self) -> None:
        super()._build()
        (self.directory / "count.toml").write_text(RECIPE)
        (self.directory / "count.sh").write_text(PAYLOAD)
        with Database(self.database) as db:
            productions.start(db, NewProduction("count", "v1", RECIPE, ()), RunFilter())
        self._command = super().command()  # which asks the database whether it is the first one

    def command(self, *arguments: str, patch: str = "", prefix: Sequence[str] = ()) -> list[str]:
        """The command of a manager; also while the database is locked."""
        assert not patch
        return [*prefix, *self._command, *arguments]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Crowd]:
    if command_path("sqlite3") is None:
        try:
            need(("sqlite3",), ("sqlite3",), device=os.devnull)
        except NoFilesystemError as trouble:
            pytest.skip(f"there is no sqlite3 shell: {trouble}")
    lab = Crowd(tmp_path, range(1, MANAGERS + 1))
    try:
        yield lab
    finally:
        lab.close()


class Shell:
    """An interactive session that has the database locked since ``since``."""

    def __init__(self, database: Path, statement: str) -> None:
        self._process = subprocess.Popen(
            ["sqlite3", "-bail", "-init", "/dev/null", str(database)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self._process.pid
        # The word comes from a process of its own, since the shell's own output stays in a buffer.
        self._type(f".timeout 60000\n{statement};\n.system echo locked\n")
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "locked\n"
        self.since = time.monotonic()

    def _type(self, lines: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(lines)
        self._process.stdin.flush()

    def let_go(self) -> None:
        """When its time has come."""
        time.sleep(max(0.0, self.since + LOCK_SECONDS - time.monotonic()))
        assert self._process.poll() is None, "the shell did not hold the lock to the end"
        self._type("ROLLBACK;\n.quit\n")
        assert self._process.wait(PATIENCE) == 0

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@contextmanager
def shell(database: Path, statement: str) -> Iterator[Shell]:
    """Somebody's session; whatever happens, nothing of it is left."""
    made = Shell(database, statement)
    try:
        yield made
    finally:
        made.close()


def start_all(lab: Crowd) -> list[ManagerProcess]:
    """All managers, for one run at a time each."""
    return [lab.start("--nproc=1", "--nprep=0") for _ in range(MANAGERS)]


def check_that_all_wait(managers: Sequence[ManagerProcess], holder: Shell) -> None:
    """Each says who holds the lock, and goes on waiting; Ctrl-C ends the first one meanwhile."""
    message = f"The database is locked by process {holder.pid} (sqlite3) of "
    for manager in managers:
        manager.until_it_says(message)
    first, *others = managers
    pressed = time.monotonic()
    first.press_ctrl_c()
    assert first.wait() == 130
    ended = time.monotonic()
    holder.let_go()
    sys.stdout.write(
        f"Ctrl-C ended a manager that waited in {ended - pressed:.2f} s; "
        f"the lock was held for {time.monotonic() - holder.since:.1f} s\n"
    )
    assert [manager.said.count(message) for manager in managers] == [1] * len(managers)
    assert not [manager.said for manager in others if manager.ended]


def finish(lab: Crowd, managers: Sequence[ManagerProcess]) -> None:
    """All of ``managers`` end well, and a last one takes up what the interrupted one has left."""
    for manager in managers:
        assert manager.wait() == 0, manager.said
        assert re.search(r"Finished run: \d+", manager.said), manager.said
    last = lab.start()
    assert last.wait() == 0, last.said
    lab.check_nothing_under_way()
    assert lab.statuses() == "F" * MANAGERS
    assert lab.completions() == dict.fromkeys(lab.runs, 1)
    assert len(lab.ledger("begin")) == MANAGERS


def test_managers_that_start_while_a_shell_locks_all_out_get_their_turn(lab: Crowd) -> None:
    with shell(lab.database, "BEGIN EXCLUSIVE") as holder:
        managers = start_all(lab)
        check_that_all_wait(managers, holder)
    others = managers[1:]
    others[0].until(lambda: len(lab.ledger("begin")) == len(others), "the turn of all")
    (lab.directory / "go").touch()
    finish(lab, others)


def test_managers_whose_jobs_end_while_a_shell_holds_the_lock_record_them_all(
    lab: Crowd,
) -> None:
    managers = start_all(lab)
    managers[0].until(lambda: len(lab.ledger("begin")) == MANAGERS, "a job of each manager")
    managers[0].until(lambda: lab.statuses() == "R" * MANAGERS, "the record of each submission")
    with shell(lab.database, "BEGIN IMMEDIATE") as holder:
        (lab.directory / "go").touch()  # all jobs end, and all managers have that to record
        check_that_all_wait(managers, holder)
    finish(lab, managers[1:])
