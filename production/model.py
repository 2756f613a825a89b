"""The values that everything else speaks about: runs, claims, jobs, files, space.

Plain frozen dataclasses without behaviour of their own; every room of the program may import this
module, and this module imports none of them.  Which changes of status are lawful stands in one
place only, the table ``lawful_change`` of schema.sql, where it also binds people who write with
the sqlite3 shell.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from pathlib import Path

DEFAULT_QUALITY = "gold"
ANY_QUALITY = "any"  # as people write that quality does not matter


class Status(StrEnum):
    """Where a run stands in a production, as the letter that people query."""

    NEW = "N"  # not yet claimed
    CLAIMED = "C"  # a manager holds it, no job yet
    RUNNING = "R"  # submitted to the batch system
    FINISHED = "F"  # outputs exist and are recorded
    ERROR = "E"  # all attempts used up; stays until a user acts


class Outcome(IntEnum):
    """How an attempt ended, as the number that the database keeps; people read it in words."""

    FINISHED = 0
    FAILED = 1
    ROLLED_BACK = 2


# --------------------------------------------------------------------------- productions and runs


@dataclass(frozen=True)
class Production:
    """One pass of one program over all runs."""

    id: int
    type: str
    version: int
    software: str  # the software tag
    start: str | None
    stop: str | None
    base: int | None  # version of the base production, None for a primary type

    @property
    def label(self) -> str:
        """``alcapana_v4``: also the name of the view in the database."""
        return f"{self.type}_v{self.version}"


@dataclass(frozen=True)
class RunFilter:
    """Which runs of a production a manager works on; an empty tuple does not restrict."""

    datasets: tuple[str, ...] = ()
    tranches: tuple[int, ...] = ()
    qualities: tuple[str, ...] = (DEFAULT_QUALITY,)


@dataclass(frozen=True)
class Claim:
    """A manager's hold on one run.

    ``token`` grows with each claim and each take-over; every later write names it, so that a
    manager that lost the run cannot touch it any more.  ``attempt`` grows with each claim.
    ``failures`` counts the failed attempts since a user last intervened.
    """

    run: int
    attempt: int
    token: int
    failures: int = 0


def job_name(label: str, claim: Claim, database: str) -> str:
    """What the batch system knows a job by: unique for this hold on this run of ``label``.

    ``database``: the database's uuid, so that jobs of several databases are told apart as well.
    """
    return f"{label}.{claim.run}.a{claim.attempt}.t{claim.token}.{database}"


@dataclass(frozen=True)
class Orphan:
    """A run whose manager is dead: what it left behind."""

    claim: Claim
    status: Status
    job_name: str | None  # None: no job was intended
    job_id: str | None  # written after the submission
    spool: Path | None  # written before it
    batch: str | None


# --------------------------------------------------------------------------- jobs


@dataclass(frozen=True)
class Requirements:
    """What a job needs from a node; ``None`` leaves it to the batch system's defaults."""

    time: int | None = None  # seconds
    memory: int | None = None  # bytes
    cores: int = 1
    queue: str | None = None  # SLURM's partition
    project: str | None = None  # SLURM's account
    options: tuple[str, ...] = ()  # words for the submission command, as they are


@dataclass(frozen=True)
class OutputPlan:
    """One output of a job: written under ``temporary``, renamed to ``final`` on success."""

    name: str
    temporary: Path
    final: Path


@dataclass(frozen=True)
class JobOrder:
    """All that a job is told; the job room writes it to ``spool/orders``.

    ``arguments`` name the temporary outputs.  ``variables`` go into the payload's environment.
    """

    name: str  # unique: database, production, run, attempt and token
    run: int
    spool: Path  # this attempt's own directory
    script: Path  # the recipe's job script
    arguments: tuple[str, ...]
    variables: Mapping[str, str]
    environment: Path | None  # sourced before the payload
    outputs: tuple[OutputPlan, ...]
    stdout: Path
    stderr: Path
    requirements: Requirements = field(default_factory=Requirements)


@dataclass(frozen=True)
class JobRecord:
    """What a job left behind in its spool, read from ``spool/record``."""

    phase: str  # how far it came: start, preflight, payload, publish, done
    exit_code: int
    signal: int | None
    host: str
    start: str  # UTC text as in the database
    stop: str
    reason: str  # one line from the job itself, may be empty
    cpu_seconds: float | None
    peak_memory: int | None  # bytes, as far as it was sampled
    outputs: tuple[OutputFile, ...]


CHECKSUM_KINDS = ("sha256", "sha1", "md5", "adler32", "crc32")  # the best first


@dataclass(frozen=True)
class OutputFile:
    """A file that exists: where, how many bytes, and what is in it."""

    name: str
    path: Path
    size: int
    sha256: str


@dataclass(frozen=True)
class Checksum:
    """What tells whether a file is the one that it should be."""

    kind: str  # one of CHECKSUM_KINDS
    value: str  # hexadecimal, small letters


@dataclass(frozen=True)
class InputFile:
    """A file from an archive that an attempt reads, as far as it is known."""

    name: str  # the recipe's name for it
    file: str  # relative to the place
    size: int  # bytes
    place: str | None = None  # URL without a login; None: another manager has fetched it
    checksum: Checksum | None = None  # None: the archive told none


@dataclass(frozen=True)
class RecordedFile:
    """A file as the bookkeeping has it; None: not known, as in productions that were imported."""

    name: str
    path: Path
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class RecordedRun:
    """A finished run as the bookkeeping has it."""

    run: int
    attempt: int
    outputs: tuple[RecordedFile, ...]
    logs: tuple[Path, ...]


@dataclass(frozen=True)
class Verdict:
    """How an attempt ended, in words that a physicist understands."""

    ok: bool
    reason: str = ""
    exit_code: int | None = None
    record: JobRecord | None = None


class JobState(StrEnum):
    """What a batch system says of a job."""

    PENDING = "pending"
    RUNNING = "running"
    HELD = "held"  # does not start, or go on, until somebody releases it
    GONE = "gone"  # the batch system does not know it (any more)


@dataclass(frozen=True)
class JobHandle:
    """A submitted job, as the batch room looks it up."""

    name: str
    spool: Path
    id: str | None = None  # None: submitted perhaps, never recorded; look it up by name


# --------------------------------------------------------------------------- files and space


class Unit(StrEnum):
    """What is counted against a limit."""

    BYTES = "bytes"
    FILES = "files"


@dataclass(frozen=True)
class Usage:
    """How much of one limit is used, and who says so."""

    used: int
    limit: int
    source: str
    unit: Unit = Unit.BYTES

    @property
    def fraction(self) -> float:
        """0 … 1 and above when over the limit."""
        return self.used / self.limit if self.limit else 0.0


@dataclass(frozen=True)
class Space:
    """All the limits that hold in one place, as a probe found them."""

    limits: tuple[Usage, ...]  # at least one
    remark: str = ""  # what the user should know about how they were found

    @property
    def fullest(self) -> Usage:
        """The limit that is reached first."""
        return max(self.limits, key=lambda usage: usage.fraction)


# --------------------------------------------------------------------------- changes of a run


@dataclass(frozen=True)
class Intended:
    """C: a job is about to be submitted.  Recorded first, so that a crash cannot hide it."""

    claim: Claim
    batch: str
    spool: Path
    modules: str | None  # text
    olog: Path
    elog: Path
    inputs: tuple[InputFile, ...] = ()  # from archives


@dataclass(frozen=True)
class Submitted:
    """C to R: the batch system accepted the job."""

    claim: Claim
    job: str


@dataclass(frozen=True)
class Finished:
    """R to F: the outputs exist."""

    claim: Claim
    record: JobRecord
    olog: Path
    elog: Path


@dataclass(frozen=True)
class Failed:
    """C or R to N, not to be claimed for ``wait`` seconds, or to E when attempts are used up."""

    claim: Claim
    reason: str
    wait: float
    max_attempts: int
    exit_code: int | None = None
    record: JobRecord | None = None


@dataclass(frozen=True)
class Released:
    """C or R to N without blame: roll-back, or no space."""

    claim: Claim
    reason: str


Change = Intended | Submitted | Finished | Failed | Released
