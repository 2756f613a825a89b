"""Whole lives of a manager of one run, each disturbed once, and what must hold after each."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from experiment import Experiment, ManagerProcess, experiment
from simulated import SimulatedServer

from production.errors import ProductionError
from steps import syscalls
from steps.injector import Injection
from steps.jobs import JobKill
from steps.syscalls import CallInjection

RUN = 2091
ENDED = "Nothing left to do here|^ERROR: "  # what a manager says at last
# Seconds that a manager may take to tell of trouble that lasts, before Ctrl-C is pressed anyway.
PATIENCE = 30.0
AFTERWARDS = 0.5  # seconds that it goes on when it has told
SHORT = """\
pause = 0.1
spacelim = "100%"
back_off = 0.1
nproc = 1
nprep = 0
"""
# A command for the manager to ask, and to wait for.
MMLSQUOTA = """\
#!/usr/bin/env bash
names=filesystemName:filesetname:quotaType:blockUsage:blockQuota:blockLimit:blockInDoubt:blockGrace
names+=:filesUsage:filesQuota:filesLimit:filesInDoubt:filesGrace
printf 'mmlsquota::%s:\\n' "HEADER:$names" "0:gpfs::USR:1:1000:1000:0:none:1:0:0:0:none"
"""


class _Cluster(Experiment):
    """Jobs go through the commands of a batch system."""

    def __init__(self, directory: Path, server: SimulatedServer) -> None:
        self._server = server
        super().__init__(directory, (RUN,))

    @property
    def environment(self) -> dict[str, str]:
        own = super().environment
        return {**own, "PATH": f"{self._server.bin}:{own['PATH']}"}


@contextmanager
def stage(directory: Path, batch: str = "local") -> Iterator[Experiment]:
    """An experiment with one run, its archive open."""
    if batch == "local":
        with experiment(directory, runs=(RUN,)) as lab:
            _prepare(lab)
            yield lab
        return
    with SimulatedServer(batch, directory / "server") as server:
        (directory / "home").mkdir()
        lab = _Cluster(directory / "home", server)
        names = ("EXPERIMENT", "PATH")
        variables = "".join(f'{name} = "{lab.environment[name]}"\n' for name in names)
        try:
            _prepare(lab, environment__variables=variables)
            yield lab
        finally:
            lab.close()


def _prepare(lab: Experiment, **tables: str) -> None:
    lab.add_command("mmlsquota", MMLSQUOTA)
    lab.configure(defaults=SHORT, space='probe = "mmlsquota"', **tables)
    lab.open_archive()


def start(
    lab: Experiment, injection: Injection | CallInjection | None = None, *arguments: str
) -> ManagerProcess:
    """A manager to which something happens."""
    if not isinstance(injection, CallInjection):
        return lab.start(*arguments, patch=(injection or Injection()).patch)
    prefix = injection.prefix(lab.directory / syscalls.TRACE, written(lab))
    return lab.start(*arguments, patch=Injection().patch, prefix=prefix)


def written(lab: Experiment) -> list[Path]:
    """The files that the manager of an undisturbed life writes, but for logs."""
    ((uuid,),) = lab.rows("SELECT value FROM meta WHERE key = 'uuid'")
    spool = lab.data / "spool" / f"count_v1.{uuid}" / f"run{RUN:05d}.a1"
    raw = lab.data / "raw" / f"count_v1.{uuid}" / f"run{RUN:05d}.a1"
    journal = lab.database.with_name(f"{lab.database.name}-journal")
    return [lab.database, journal, spool / "orders.tmp", spool / "load", raw / "run02091.mid.part"]


# ------------------------------------------------------------------------------- lives


def is_killed(directory: Path, injection: Injection | CallInjection, batch: str = "local") -> bool:
    """Kill a manager; False when its life was over before."""
    with stage(directory, batch) as lab:
        code = start(lab, injection, f"--batch={batch}").wait()
        hit = injection.struck(lab.directory)
        assert code == (-signal.SIGKILL if hit else 0)
        go_on(
            lab, "--max-attempts=1", f"--batch={batch}"
        )  # nobody is to blame, so no attempt counts as failed
        assert lab.completions() == {RUN: 1}
        return hit


def meets_trouble(
    directory: Path, injection: Injection | CallInjection, batch: str = "local"
) -> bool:
    """Have something fail, once or from then on; False when the life was over before."""
    with stage(directory, batch) as lab:
        manager = start(lab, injection, f"--batch={batch}")
        if injection.lasting:
            _bear(manager, injection.error)
        code = _end(manager)
        hit = injection.struck(lab.directory)
        said = manager.said
        assert "Traceback" not in said, said
        assert "uncaught" not in said, said
        by_ctrl_c = {128 + signal.SIGINT}
        if re.search(ENDED, said, re.M):  # and Python was about to exit when it was pressed
            by_ctrl_c.add(-signal.SIGINT)
        assert code in {0, *by_ctrl_c, *_declared()}, f"exit code {code}\n{said}"
        if not hit:
            assert code == 0, said
        elif code and code not in by_ctrl_c:
            assert len(re.findall(r"^ERROR: ", said, re.M)) == 1, said
        if injection.lasting and hit and code:
            assert _is_told(injection.error, said), f"nothing tells of {injection.error}:\n{said}"
        if lab.rows("SELECT 1 FROM run WHERE status = 'E'"):
            lab.production("retry", "--production=count")
        go_on(lab, f"--batch={batch}")
        return hit


def has_its_job_killed(directory: Path, injection: JobKill) -> bool:
    """Kill the first job; the manager finds out, and has another one do the work."""
    with stage(directory) as lab:
        injection.arm(lab)
        go_on(lab)
        hit = injection.struck(lab.directory)
        finished = lab.outcomes(RUN) == ["finished"]
        assert finished or (hit and lab.outcomes(RUN) == ["failed", "finished"])
        return hit


def _bear(manager: ManagerProcess, error: str) -> None:
    """Press Ctrl-C soon after the manager has told of its trouble, unless it ends by itself."""
    deadline = time.monotonic() + PATIENCE
    while not manager.ended and time.monotonic() < deadline:
        if _is_told(error, manager.said):
            time.sleep(AFTERWARDS)
            break
        time.sleep(0.02)
    if not manager.ended:
        manager.press_ctrl_c()


def _end(manager: ManagerProcess) -> int:
    try:
        return manager.wait()
    except subprocess.TimeoutExpired:
        raise AssertionError(f"it does not end; it said:\n{manager.said}") from None


def _declared() -> set[int]:
    """The exit codes of docs/exit-codes.md; 1 would be an error that nobody has thought of."""
    found = set()
    kinds = [ProductionError]
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        found.add(kind.exit_code)
    return found - {1}


# SQLite has words of its own for what it meets.
TOLD = {
    "SQLITE_BUSY": ("is locked",),
    "SQLITE_FULL": ("database or disk is full",),
    "SQLITE_IOERR": ("disk I/O error",),
    "timeout": ("did not answer",),
}
TOLD_BY_SQLITE = (
    *("disk I/O error", "database or disk is full", "unable to open", "is locked"),
    *("moved or replaced", "is damaged"),
)


def _is_told(error: str, said: str) -> bool:
    words = TOLD.get(error) or (os.strerror(getattr(errno, error)), *TOLD_BY_SQLITE)
    return any(text in said for text in words)


# ------------------------------------------------------------------------------- afterwards


def go_on(lab: Experiment, *arguments: str) -> None:
    """A new manager brings it all to its end, and everything is in order."""
    assert lab.rows("PRAGMA integrity_check") == [("ok",)]
    manager = start(lab, None, *arguments)
    assert manager.wait() == 0, manager.said
    lab.check_all_finished()
    ((path, size, sha256),) = lab.rows("SELECT path, size, sha256 FROM output")
    content = Path(str(path)).read_bytes()
    assert (len(content), hashlib.sha256(content).hexdigest()) == (size, sha256)
    assert list((lab.data / "bytes" / "v1").iterdir()) == [Path(str(path))]
    assert lab.rows("SELECT manager FROM run WHERE manager IS NOT NULL") == []
    left = [entry for kind in ("raw", "spool") for entry in (lab.data / kind).glob("*/*")]
    assert {entry.name for entry in left} <= {"done"}
    assert [entry.name for entry in lab.directory.glob("production.db*")] == ["production.db"]
