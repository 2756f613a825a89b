"""How a manager works, and what it works with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from production.batch.base import BatchSystem
from production.model import RunFilter
from production.space.probe import Probe
from production.staging.archive import Archive
from production.store.managers import LEASE
from production.templates import Template, parse_path


@dataclass(frozen=True)
class Settings:
    """How a manager works; the defaults are those of 2014 where there were any."""

    filter: RunFilter = field(default_factory=RunFilter)
    archive_file: Template = parse_path("run%05d.mid", ("run",))  # noqa: RUF009 - immutable
    pause: float = 5.0  # seconds between looks at jobs and space
    nproc: int = 10  # jobs at a time
    nprep: int = 5  # runs to have ready besides
    spacelim: float = 0.9  # fraction of the allowed space
    max_attempts: int = 3
    back_off: float = 10.0  # seconds before the second try; doubles
    lease: int = LEASE  # seconds
    transfers: int = 2  # at a time
    stage_timeout: float = 7200.0  # seconds that a file may stay on tape
    record_grace: float = 10.0  # seconds for an exit record to appear after its job has gone
    hold_timeout: float = 600.0  # seconds that a job may be held by its batch system
    max_submit_rate: float | None = None  # jobs a second
    max_failures: int | float = 20  # jobs in a row, or a fraction of all (FailureWatch)


@dataclass(frozen=True)
class Rooms:
    """What a manager works with."""

    batch: BatchSystem
    probe: Probe
    archive: Archive | None  # None: the recipe needs none
    open_batch: Callable[[str], BatchSystem]  # for jobs that another manager submitted
