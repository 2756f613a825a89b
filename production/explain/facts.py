"""All that the causes are found in, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from production.config import Defaults
from production.model import ANY_QUALITY, JobState, Production, RunFilter, Status, Usage
from production.store.reports.facts import Asked, Group, RunFacts
from production.store.reports.standing import ActiveRun, Standing, Worker


@dataclass(frozen=True)
class Surroundings:
    """What was found outside of the database; whatever was not asked, or did not answer, is empty.

    By the configuration and from the host of who asks: those of the managers may differ.
    """

    defaults: Defaults = field(default_factory=Defaults)
    config_trouble: str = ""
    usage: Usage | None = None  # the limit of the space that is reached first
    space_trouble: str = ""
    jobs: Mapping[int, JobState] = field(default_factory=dict)  # by run
    reasons: Mapping[int, str] = field(default_factory=dict)  # by run: why its job is held
    batch_trouble: str = ""


@dataclass(frozen=True)
class Facts:
    """A production that somebody wonders about, and perhaps one run of it."""

    now: float
    database: str  # the option for commands, where it is not the usual one: --database=DB
    standing: Standing
    active: tuple[ActiveRun, ...]
    asked: Mapping[int, Asked]  # by manager
    groups: tuple[Group, ...]
    base: Standing | None
    waiting_for_base: int | None  # runs; None: not found out
    resting: int  # runs that wait after a failure
    resting_until: str | None
    at_error: tuple[int, str] | None  # a run, and why it failed
    around: Surroundings
    run: RunFacts | None = None  # None: the production as a whole

    @property
    def options(self) -> str:
        """The options by which commands name the production."""
        return self.options_of(self.standing.production)

    def options_of(self, production: Production) -> str:
        """``--production=alcapana --version=4``, with the database where it must be named."""
        named = f"--production={production.type} --version={production.version}"
        return f"{named} {self.database}".rstrip()

    def takes(self, worker: Worker) -> RunFilter:
        """Which runs a manager claims: as it was started, else as one is without options."""
        return self.asked.get(worker.id, Asked()).takes or self.by_default

    @property
    def by_default(self) -> RunFilter:
        """Which runs a manager claims that is started without options."""
        defaults = self.around.defaults
        qualities = () if ANY_QUALITY in defaults.quality else tuple(defaults.quality)
        return RunFilter(tuple(defaults.dataset), tuple(defaults.tranche), qualities)

    @property
    def new(self) -> int:
        """Runs that nobody holds and that are not done."""
        return self.standing.count(Status.NEW)

    def held_by(self, worker: Worker) -> tuple[int, int]:
        """How many claims without, and how many with a job a manager has."""
        held = [run for run in self.active if run.manager == worker.id]
        jobs = sum(run.phase != "claimed" for run in held)
        return len(held) - jobs, jobs

    def worker_of(self, run: int) -> tuple[ActiveRun, Worker | None] | None:
        """Who holds the run; no Worker: a manager that has said that it ended."""
        for active in self.active:
            if active.run == run:
                workers = (w for w in self.standing.workers if w.id == active.manager)
                return active, next(workers, None)
        return None
