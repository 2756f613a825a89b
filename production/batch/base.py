"""What every batch system can do for the manager, and how one is chosen.

A system is a module of this room with one function ``open_system(options)``, or one of another
package that registers its module as an entry point of the group ``production.batch``.  A job is
always ``bash WRAPPER SPOOL``; its orders are in the spool already when it is submitted.
"""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import production
from production.errors import BatchError, UsageError
from production.model import JobHandle, JobOrder, JobState, Requirements

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

WRAPPER = Path(production.__file__).parent / "sge_scripts" / "job.sh"

AUTO = "auto"
ENTRY_POINTS = "production.batch"

_MODULES: Mapping[str, str] = {
    "local": "production.batch.local",
    "slurm": "production.batch.slurm",
    "sge": "production.batch.sge",
    "lsf": "production.batch.lsf",
    "htcondor": "production.batch.htcondor",
    "pbs": "production.batch.pbs",
}


# What becomes of a job that is submitted: its id; why it was refused (SubmissionRefused); why it is
# not known whether the system has it (any other BatchError); or None, when it was not tried since
# the system did not answer before.
Answer = str | BatchError | None


class BatchSystem(Protocol):
    """A batch system, as the manager speaks to it; any thread may, one at a time.

    What a job is worth is said by its exit record alone; a batch system only says whether it is
    still to be waited for.
    """

    name: str
    accounting_lag: float  # seconds after a job's end in which its accounting may still appear

    def check(self, needs: Requirements) -> None:
        """Raise UsageError when jobs with these requirements could never be submitted."""
        ...

    def submit(self, jobs: Sequence[JobOrder]) -> list[Answer]:
        """Submit jobs; what became of each, in this order.

        One refused job does not stop the others.
        """
        ...

    def poll(self, jobs: Sequence[JobHandle]) -> dict[str, JobState]:
        """The state of each of ``jobs``, by job name, with one query for all.

        A job whose handle has no id is looked up by its name: it was perhaps submitted.  Raises
        QueryFailed when the answer is unknown, which is not the same as GONE.
        """
        ...

    def cancel(self, jobs: Sequence[JobHandle]) -> None:
        """End jobs, pending or running, also those that another manager submitted.

        Jobs that are gone are passed over.  Raises BatchError when some could not be ended, after
        all have been tried.
        """
        ...

    def move(self, jobs: Sequence[JobHandle], queue: str) -> list[str]:
        """Move to another queue those of the jobs that are pending.

        Returns the names of those that wait there now, as the batch system itself tells.  Raises
        NotSupported, or BatchError when it refuses or does not answer.
        """
        ...

    def reason_of(self, jobs: Sequence[JobHandle]) -> dict[str, str | None]:
        """Why jobs ended that ``poll`` called GONE, or why they are HELD, in words for users.

        By job name, as far as the batch system or its accounting remembers; other jobs, and those
        that were never polled, are left out.  None: the accounting did not answer, so it may yet
        tell.  Never fails: not to know a reason is no trouble.
        """
        ...

    def describe(self, job: JobOrder) -> str:
        """The command that would submit the job and the job script, for people to read."""
        ...

    def close(self) -> None:
        """Let go of the batch system.  Jobs that run go on running."""
        ...


def known_systems() -> tuple[str, ...]:
    """The names that ``open_batch`` takes."""
    return (*_MODULES, *(point.name for point in _others()))


def choose(name: str) -> str:
    """``name``, or in place of ``auto`` the system whose commands this host has."""
    if name != AUTO:
        return name
    if shutil.which("sbatch"):
        return "slurm"
    if shutil.which("bsub"):
        return "lsf"
    if shutil.which("qsub"):
        return "sge" if os.environ.get("SGE_ROOT") else "pbs"
    if shutil.which("condor_submit"):
        return "htcondor"
    return "local"


def open_batch(name: str, options: Mapping[str, object]) -> BatchSystem:
    """The batch system ``name`` with its own options from the configuration.

    Raises UsageError for a name that is not known, ConfigurationError for wrong options.
    """
    if name in _MODULES:
        module = importlib.import_module(_MODULES[name])
    else:
        point = next((point for point in _others() if point.name == name), None)
        if point is None:
            known = ", ".join(known_systems())
            raise UsageError(
                text=f"There is no batch system {name!r}. Known batch systems: {known}"
            )
        try:
            module = point.load()
        except Exception as error:
            what = f"The batch system {name!r} ({point.value}) cannot be loaded: {error!r}"
            raise UsageError(text=what) from error
    return cast(BatchSystem, module.open_system(options))


def _others() -> Sequence[EntryPoint]:
    """The systems of other packages."""
    from importlib.metadata import entry_points

    return [point for point in entry_points(group=ENTRY_POINTS) if point.name not in _MODULES]
