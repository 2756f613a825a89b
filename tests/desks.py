"""One manager's desk for tests: a real database and real files, and fakes of all that is outside.

The fakes do at once what they are told, so that a test decides in which order things happen.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bookkeeping import GOLD, Bookkeeping
from experiment import RECIPE, WITHOUT_INPUT
from job_orders import until

from production.batch.base import Answer
from production.errors import BatchError, ProductionError, TransferError
from production.manager.desk import Desk
from production.manager.paths import Paths
from production.manager.plan import JobSettings
from production.manager.settings import Rooms, Settings
from production.manager.work import Phase, Work
from production.model import (
    Claim,
    JobHandle,
    JobOrder,
    JobState,
    Production,
    Requirements,
    Space,
    Usage,
)
from production.recipe.load import parse_recipe
from production.staging.archive import Arrived, Progress
from production.staging.places import Places
from production.store import productions
from production.store.productions import NewProduction
from production.view.base import Snapshot

RUN = 2091
TIME = "2026-01-31 23:00:00.000000"
SHA256 = "0" * 64


class Batch:
    """A batch system whose jobs are over at once, and well, when they are submitted.

    Or they are in the state that a test chooses.
    """

    name = "local"
    accounting_lag = 0.0

    def __init__(self) -> None:
        self.cancelled: list[str] = []
        self.refuses_to_cancel = False
        self.state = JobState.GONE  # of all jobs that have left no record
        self.why: str | None = ""  # the reason of all jobs; None: it cannot be asked for now
        self.end: Callable[[JobOrder], None] = end_well  # what a job does when it is submitted
        self.submitted: list[JobOrder] = []
        self.queues: Sequence[str] = ()  # where jobs can be moved to

    def check(self, needs: Requirements) -> None:
        pass

    def submit(self, jobs: Sequence[JobOrder]) -> list[Answer]:
        self.submitted += jobs
        for job in jobs:
            self.end(job)
        return [f"id of {job.name}" for job in jobs]

    def poll(self, jobs: Sequence[JobHandle]) -> dict[str, JobState]:
        gone = JobState.GONE
        return {job.name: gone if (job.spool / "record").exists() else self.state for job in jobs}

    def move(self, jobs: Sequence[JobHandle], queue: str) -> list[str]:
        if queue not in self.queues:
            raise BatchError(system=self.name, what=f"there is no queue {queue}")
        return [job.name for job in jobs if self.state is JobState.PENDING]

    def cancel(self, jobs: Sequence[JobHandle]) -> None:
        if self.refuses_to_cancel:
            raise BatchError(system=self.name, what="they run on another host")
        self.cancelled += [job.name for job in jobs]

    def reason_of(self, jobs: Sequence[JobHandle]) -> dict[str, str | None]:
        return {job.name: self.why for job in jobs if self.why != ""}

    def describe(self, job: JobOrder) -> str:
        return job.name

    def close(self) -> None:
        pass


def end_badly(job: JobOrder) -> None:
    """Leave behind what a job leaves whose payload has failed."""
    (job.spool / "started").mkdir(parents=True, exist_ok=True)
    (job.spool / "started" / "pid").write_text("1 1 node1\n")
    lines = ["version=1", "phase=payload", "exit_code=3", "host=node1", f"start={TIME}"]
    lines += [f"stop={TIME}", "reason=it is broken", "complete=yes", ""]
    (job.spool / "record").write_text("\n".join(lines))


def wait(job: JobOrder) -> None:
    """Leave nothing behind yet."""


def end_well(job: JobOrder) -> None:
    """Leave behind what a job leaves that has ended well."""
    (job.spool / "started").mkdir(parents=True, exist_ok=True)
    (job.spool / "started" / "pid").write_text("1 1 node1\n")
    lines = ["version=1", "phase=done", "exit_code=0", "host=node1", f"start={TIME}"]
    for plan in job.outputs:
        plan.final.parent.mkdir(parents=True, exist_ok=True)
        plan.final.write_text("data")
        lines.append(f"output.{plan.name}=4 {SHA256} {plan.final}")
    lines += [f"stop={TIME}", "complete=yes", ""]
    (job.spool / "record").write_text("\n".join(lines))


class Archive:
    """An archive that has each file, or ``trouble`` with it."""

    host = "archive"

    def __init__(self) -> None:
        self.trouble: Exception | None = None

    def check(self) -> None:
        pass

    def stage(self, files: Sequence[str]) -> None:
        pass

    def look(self, files: Sequence[str]) -> dict[str, TransferError | None]:
        return dict.fromkeys(files)

    def names(self, pattern: str) -> list[str]:
        return []

    def fetch(self, file: str, target: Path, progress: Progress, stop: threading.Event) -> Arrived:
        if self.trouble is not None:
            raise self.trouble
        return Arrived(target.write_bytes(b"raw"))


class Probe:
    """A probe that tells ``used`` bytes of 100, or has ``trouble``."""

    def __init__(self) -> None:
        self.used = 10
        self.trouble: ProductionError | None = None

    def probe(self) -> Space:
        if self.trouble is not None:
            raise self.trouble
        return Space((Usage(self.used, 100, "somebody"),))


class Said:
    """A view that keeps what it is told."""

    live = False

    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str, *, level: str = "info") -> None:
        self.messages.append(text)

    def progress(self, run: int, done: int, total: int | None) -> None:
        pass

    def transferred(self, run: int) -> None:
        pass

    def update(self, snapshot: Snapshot) -> None:
        pass

    def close(self) -> None:
        pass

    def count(self, text: str) -> int:
        """How many messages have this in them."""
        return sum(text in message for message in self.messages)


class Office:
    """A production, by default with one run, and the desk of one of its managers."""

    def __init__(
        self,
        books: Bookkeeping,
        directory: Path,
        *,
        downloads: bool = True,
        runs: Sequence[int] = (RUN,),
        **settings: Any,
    ) -> None:
        self.books = books
        books.label(runs)
        text = RECIPE if downloads else WITHOUT_INPUT
        (directory / "count.sh").touch()
        recipe = parse_recipe(text, directory / "count.toml")
        new = NewProduction("count", "tag", text, ("bytes",), None)
        self.production: Production = productions.start(books.db, new, GOLD)[0]
        self.paths = Paths(directory / "data", self.production, recipe, "db")
        self.batch, self.archive, self.probe, self.said = Batch(), Archive(), Probe(), Said()
        places = Places({"archive": self.archive}, ["archive"])
        rooms = Rooms(self.batch, self.probe, places, self._open_batch)
        chosen = {"pause": 0.05, "back_off": 0.0, "lease": 60, "record_grace": 0.0, **settings}
        how = Settings(**chosen)
        self.desk = Desk(books.db, None, self.paths, JobSettings(), rooms, how, self.said)

    def _open_batch(self, name: str) -> Batch:
        assert name == self.batch.name
        return self.batch

    def open(self) -> Desk:
        """The desk of a manager that is registered."""
        self.desk.store = self.books.manager(self.production)
        return self.desk

    def work(self, claim: Claim, phase: Phase = Phase.CLAIMED) -> Work:
        """A run on the desk, in some phase."""
        work = Work(claim, self.paths, self.batch, self.paths.job_name(claim), phase)
        self.desk.take(work)
        return work

    def until(self, condition: Callable[[], bool]) -> None:
        """Let the lanes' results in until that is so."""

        def came() -> bool:
            self.desk.results.deliver(0.01)
            self.desk.flush()
            return condition()

        until(came)

    @property
    def status(self) -> str:
        """Where the run stands."""
        return str(self.books.cell("SELECT status FROM run"))

    @property
    def holder(self) -> object:
        """The manager that holds the run."""
        return self.books.cell("SELECT manager FROM run")

    @property
    def outcomes(self) -> list[object]:
        """How the attempts at the run ended."""
        return self.books.column("SELECT outcome FROM attempt ORDER BY attempt")
