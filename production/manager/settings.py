"""How a manager works, and what it works with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from production.batch.base import BatchSystem
from production.locations import Location, parse_locations
from production.model import RunFilter
from production.notify.channels import Herald
from production.notify.notices import NoticeRules
from production.space.probe import Probe
from production.staging.places import Places
from production.store.managers import LEASE


@dataclass(frozen=True)
class Settings:
    """How a manager works; the defaults are those of 2014 where there were any."""

    filter: RunFilter = field(default_factory=RunFilter)
    archive_file: tuple[Location, ...] = parse_locations("run%05d.mid")
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
    notices: NoticeRules = field(default_factory=NoticeRules)
    verbose: bool = False  # tell what is recorded and answered, too


@dataclass(frozen=True)
class Rooms:
    """What a manager works with."""

    batch: BatchSystem
    probe: Probe
    archive: Places | None  # None: the recipe needs none
    open_batch: Callable[[str], BatchSystem]  # for jobs that another manager submitted
    herald: Herald = field(default_factory=Herald)  # tells those who do not look
