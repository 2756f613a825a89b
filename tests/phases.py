"""The phases of a run, each made to last until a test has done its worst."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence

from experiment import RUNS, Experiment, ManagerProcess


def claimed(lab: Experiment) -> ManagerProcess:
    """The archive cannot be reached, so runs are claimed and wait."""
    manager = lab.start()
    manager.until_it_says("cannot be reached")
    assert lab.statuses() == "CCC"
    return manager


def staging(lab: Experiment) -> ManagerProcess:
    """The tape takes its time."""
    lab.open_archive(stage_seconds=3600)
    manager = lab.start()
    manager.until(lambda: len(lab.archive_log("staged")) == len(RUNS), "staging")
    return manager


def downloading(lab: Experiment) -> ManagerProcess:
    """One raw file is partly here, the others wait for their turn."""
    lab.open_archive(rate=20_000)
    manager = lab.start()
    manager.until(lambda: lab.partly_downloaded() > 0, "a download")
    return manager


def pending(lab: Experiment, patch: str = "") -> ManagerProcess:
    """One job has the only slot, the others are submitted and wait."""
    lab.configure(batch__local="slots = 1")
    return _with_jobs(lab, running=1, patch=patch)


def running(lab: Experiment, patch: str = "", prefix: Sequence[str] = ()) -> ManagerProcess:
    """The payloads of all runs work."""
    return _with_jobs(lab, running=len(RUNS), patch=patch, prefix=prefix)


def publishing(lab: Experiment) -> ManagerProcess:
    """The payloads have ended, the wrappers still bring the outputs to safety."""
    lab.hold("checksum")
    lab.open_archive()
    manager = lab.start()
    manager.until(lambda: len(lab.ledger("checksum")) == len(RUNS), "publishing")
    manager.until(lambda: lab.statuses() == "RRR", "submission")
    return manager


def finishing(lab: Experiment) -> ManagerProcess:
    """The jobs have ended while the manager was stopped; it needs SIGCONT to notice anything."""
    manager = _with_jobs(lab, running=len(RUNS))
    manager.send(signal.SIGSTOP)
    lab.let_go("payload")
    manager.until(lambda: len(lab.records()) == len(RUNS), "the end of the jobs")
    return manager


def _with_jobs(
    lab: Experiment, running: int, patch: str = "", prefix: Sequence[str] = ()
) -> ManagerProcess:
    lab.hold("payload")
    lab.open_archive()
    manager = lab.start(patch=patch, prefix=prefix)
    manager.until(lambda: len(lab.ledger("begin")) == running, "the payload")
    manager.until(lambda: lab.statuses() == "RRR", "submission")
    return manager


PHASES: dict[str, Callable[[Experiment], ManagerProcess]] = {
    phase.__name__: phase
    for phase in (claimed, staging, downloading, pending, running, publishing, finishing)
}
