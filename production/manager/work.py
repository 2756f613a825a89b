"""A claimed run in a manager's hands: which phase it is in, and what belongs to it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path

from production.batch.base import BatchSystem
from production.manager.inputs import Found, Wanted
from production.manager.paths import Paths
from production.model import Claim, InputFile, JobHandle, JobOrder
from production.recipe.model import Files


class Phase(StrEnum):
    """Where a held run stands, finer than its status in the database."""

    CLAIMED = "claimed"  # C: waits for tape or for its turn to be fetched
    FETCHING = "downloading"  # C
    READY = "ready"  # C: inputs are here
    PREPARING = "preparing"  # C: its job's orders are being written
    SUBMITTING = "submitting"  # C, with the intent recorded
    RUNNING = "running"  # R: in the batch system
    ENDING = "ending"  # C or R: its files are being put in order


BEFORE_JOB = frozenset({Phase.CLAIMED, Phase.FETCHING, Phase.READY})
WITH_JOB = frozenset({Phase.SUBMITTING, Phase.RUNNING})


@dataclass(eq=False)  # itself, not its fields
class Work:
    """One claim on its way."""

    claim: Claim
    paths: Paths
    batch: BatchSystem
    name: str  # of its job
    phase: Phase = Phase.CLAIMED
    since: float = field(default_factory=time.monotonic)  # in this phase
    waits_since: float | None = None  # for its tape
    wanted: tuple[Wanted, ...] = ()  # of the archive
    found: Found | None = None  # which files those are; None: not known yet
    arrived: float | None = None  # monotonic; since then nothing is known to be on tape still
    inputs: dict[str, Path | Files] = field(default_factory=dict)
    # What is known of its files from the archive, as they come: the transfer's until it has ended.
    brought: dict[Path, InputFile] = field(default_factory=dict)
    read: tuple[InputFile, ...] = ()  # and when all are here
    staging: bool = False  # its tape is being asked for, for the first time
    stage_again: float = 0.0  # monotonic; ask for its tape then
    last_asked: float | None = None  # monotonic; when it was asked for again after the time-out
    fetched: bool = False  # bytes from the archive are on disk
    not_before: float = 0.0  # monotonic; tape not ready: ask again then
    done: int = 0  # bytes fetched
    total: int | None = None
    sizes: dict[str, int] = field(default_factory=dict)  # bytes of its files, as the archive told
    waits_for: str = ""  # why it is not being fetched yet
    order: JobOrder | None = None  # what its job is told, until it is submitted
    job: str | None = None  # the batch system's id
    submitted: bool = False  # recorded as R
    pending: bool = False  # its job waits in the batch system, as that said last
    host: str = ""  # the node of its job, once that has started
    adopted: bool = False  # its job was submitted by a manager that is gone
    trouble: str = ""  # what was said about it last
    missing_since: float | None = None  # when the batch system first did not know the job
    unstarted: bool = False  # when it was missed last, the job had not even started
    met_full_disk: bool = False  # the disk was full when its job was seen to have ended
    held_since: float | None = None  # when the batch system first said that the job is held
    why: str = ""  # how its job ended, as the batch system tells
    given_up: str = ""  # why its job was cancelled by this manager
    stop: threading.Event = field(default_factory=threading.Event)  # ends its transfer
    after_transfer: Callable[[], None] | None = None  # what is to be done when it has ended

    @property
    def run(self) -> int:
        """The run's number."""
        return self.claim.run

    @cached_property  # asked for in each cycle, of each run
    def spool(self) -> Path:
        """Where its job leaves its records."""
        return self.paths.spool(self.claim)

    @property
    def handle(self) -> JobHandle:
        """Its job, for the batch system."""
        return JobHandle(self.name, self.spool, self.job)

    def move(self, phase: Phase) -> None:
        """Enter a phase."""
        self.phase = phase
        self.since = time.monotonic()
