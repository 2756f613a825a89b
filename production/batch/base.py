"""What every batch system can do for the manager, and how one is chosen.

A system is a module of this room with one function ``open_system(options)``.  A job is always
``bash WRAPPER SPOOL``; its orders are in the spool already when it is submitted.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, cast

import production
from production.errors import SubmissionRefused, UsageError
from production.model import JobHandle, JobOrder, JobState

WRAPPER = Path(production.__file__).parent / "sge_scripts" / "job.sh"

_MODULES: Mapping[str, str] = {"local": "production.batch.local"}


class BatchSystem(Protocol):
    """A batch system, as the manager speaks to it; any thread may, one at a time.

    What a job is worth is said by its exit record alone; a batch system only says whether it is
    still to be waited for.
    """

    name: str

    def submit(self, jobs: Sequence[JobOrder]) -> list[str | SubmissionRefused]:
        """Submit jobs; for each, in this order, its id or why it was refused.

        One refused job does not stop the others.  Raises BatchError when the system as a whole
        does not answer; then it is unknown which jobs it has accepted.
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

    def describe(self, job: JobOrder) -> str:
        """The command that would submit the job and the job script, for people to read."""
        ...

    def close(self) -> None:
        """Let go of the batch system.  Jobs that run go on running."""
        ...


def known_systems() -> tuple[str, ...]:
    """The names that ``open_batch`` takes."""
    return tuple(_MODULES)


def open_batch(name: str, options: Mapping[str, object]) -> BatchSystem:
    """The batch system ``name`` with its own options from the configuration.

    Raises UsageError for a name that is not known, ConfigurationError for wrong options.
    """
    if name not in _MODULES:
        known = ", ".join(known_systems())
        raise UsageError(text=f"There is no batch system {name!r}. Known batch systems: {known}")
    module = importlib.import_module(_MODULES[name])
    return cast(BatchSystem, module.open_system(options))
