"""What all batch systems with a queue on a server have in common.

A subclass is a system: how a submission is written in its own words, and how its queue is read.
The commands go through ``production.commands``.  Whatever is not an answer (an error, a time-out,
output that makes no sense) leaves open what became of the jobs, and is raised as such.
"""

from __future__ import annotations

import shlex
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

from production import commands
from production.batch.base import Answer
from production.batch.together import Place, Together, divide
from production.errors import (
    BatchError,
    CommandError,
    CommandMissing,
    CommandTimeout,
    ConfigurationError,
    QueryFailed,
    SubmissionRefused,
    UsageError,
    submission_trouble,
)
from production.model import JobHandle, JobOrder, JobState, Requirements

# Seconds that cancelled jobs may take to disappear.  SLURM by default gives a job 30 s between
# SIGTERM and SIGKILL, and a node may be slow to tell.
PATIENCE = 75.0
_LONGEST_GLANCE = 5.0  # seconds between two looks at them
_CHUNK = 500  # ids on one command line


@dataclass(frozen=True)
class Site:
    """The options of the configuration, the same for all systems."""

    queue: str | None = None  # where a job's requirements name none
    project: str | None = None
    options: tuple[str, ...] = ()  # for all jobs
    arrays: bool = True
    words: Mapping[str, str] = field(default_factory=dict)  # further ones of a system


@dataclass(frozen=True)
class Listed:
    """A job in the answer of a queue."""

    id: str  # with its index, when it is an element of an array
    place: Place
    state: JobState
    why: str = ""  # how it ended, as far as the queue still tells, or why it is held
    queue: str = ""  # where it waits


def read_site(
    system: str,
    options: Mapping[str, object],
    words: Mapping[str, str],
) -> Site:
    """The table [batch.SYSTEM].

    ``words``: further keys that the system has, each with its default.  Raises ConfigurationError.
    """

    def refuse(what: str) -> ConfigurationError:
        return ConfigurationError(where=f"[batch.{system}]", what=what)

    def text(name: str) -> str | None:
        value = options.get(name)
        if value is not None and not _is_word(value):
            raise refuse(f"{name} must be a text in quotes, not {value!r}")
        return cast(str | None, value)

    known = ("queue", "project", "options", "arrays", *words)
    for name in options:
        if name not in known:
            raise refuse(f"{name!r} is not an option. Options: {', '.join(known)}")
    free = options.get("options", [])
    if not isinstance(free, list) or not all(map(_is_word, free)):
        raise refuse(f'options must be a list of texts such as ["--x=y"], not {free!r}')
    arrays = options.get("arrays", True)
    if not isinstance(arrays, bool):
        raise refuse(f"arrays must be true or false, not {arrays!r}")
    further = {name: text(name) or default for name, default in words.items()}
    return Site(text("queue"), text("project"), tuple(free), arrays, further)


def _is_word(value: object) -> bool:
    return isinstance(value, str) and bool(value) and "\0" not in value


class ClusterSystem(ABC):
    """A batch system with a queue; see BatchSystem."""

    name: str
    largest_array: int
    index: str  # the shell's word for an element's index
    prelude = ""  # what the script begins with
    # Options of the submission command that cannot be used, and why.
    forbidden: Mapping[str, str] = {}
    accounting_lag = 60.0
    # Environment variables that the submission command has, and how the names of those begin that
    # it must not see.
    variables: Mapping[str, str] = {}
    hidden: tuple[str, ...] = ()

    def __init__(self, site: Site) -> None:
        self._site = site
        self._known: dict[str, _Known] = {}  # by job name: what the last poll and later calls used
        # By job name: how jobs ended, as the queue shows it, and as the accounting tells.
        self._why: dict[str, str] = {}
        self._told: dict[str, str] = {}
        self._listed: set[str] = set()  # by job name: those that the queue has

    # ----------------------------------------------------------------- what a system must know

    @abstractmethod
    def command(self, jobs: Together) -> list[str]:
        """The submission command, which reads the script from its standard input."""

    @abstractmethod
    def accepted(self, answer: commands.Completed) -> str:
        """The id that the submission command gave; raises SubmissionRefused or BatchError."""

    @abstractmethod
    def element(self, job: str, index: int) -> str:
        """The id of an element of the array ``job``."""

    @abstractmethod
    def is_id(self, text: str) -> bool:
        """Whether a job of this system can have this id."""

    @abstractmethod
    def listed(self, ids: Collection[str], names: Collection[str]) -> list[Listed]:
        """The jobs in the queue with these ids or, where that is all we know, these names.

        Others may be among them.  Raises BatchError or CommandError when the answer is unknown.
        """

    @abstractmethod
    def delete(self, ids: Sequence[str]) -> None:
        """Have jobs ended; some may be gone already.  Raises CommandError."""

    @abstractmethod
    def send(self, ids: Sequence[str], queue: str) -> None:
        """Have pending jobs wait in another queue; raises CommandError, NotSupported."""

    @abstractmethod
    def reasons(self, ids: Collection[str]) -> Mapping[str, str | None]:
        """How jobs ended, by id, as far as the accounting knows.

        None for those about which it did not answer; raises CommandError when about none.
        """

    def input(self, jobs: Together) -> str:
        """What the submission command reads: the script."""
        return jobs.script(self.index, self.prelude)

    # ----------------------------------------------------------------- what follows from it

    def needs(self, jobs: Together) -> Requirements:
        """What jobs that go together need, with the site's defaults."""
        own, site = jobs.jobs[0].requirements, self._site
        return replace(
            own,
            queue=own.queue or site.queue,
            project=own.project or site.project,
            options=(*site.options, *own.options),
        )

    def check(self, needs: Requirements) -> None:
        """See BatchSystem."""
        for word in (*self._site.options, *needs.options):
            if why := self.forbidden.get(word.partition("=")[0]):
                what = f"Option {word} for {self.name} cannot be used: {why}"
                raise UsageError(text=what)

    def submit(self, jobs: Sequence[JobOrder]) -> list[Answer]:
        """See BatchSystem; jobs with the same requirements go as one array."""
        answers: dict[str, Answer] = {}
        for group in divide(jobs, self.largest_array if self._site.arrays else 1):
            try:
                answers |= self._submit(group)
            except (BatchError, CommandError) as error:
                answers |= dict.fromkeys((job.name for job in group.jobs), self._open(error))
                break
        return [answers.get(job.name) for job in jobs]

    def _open(self, error: BatchError | CommandError) -> BatchError:
        """Why it is not known what became of jobs that were submitted."""
        if isinstance(error, BatchError):
            return error
        return BatchError(system=self.name, what=f"no answer to a submission: {error}")

    def _submit(self, jobs: Together) -> Mapping[str, Answer]:
        unwritable = self._write_notes(jobs)
        if unwritable:
            rest = tuple(job for job in jobs.jobs if job.name not in unwritable)
            return {**unwritable, **(self._submit(Together(rest)) if rest else {})}
        try:
            answer = commands.run(
                self.command(jobs),
                stdin=self.input(jobs),
                accept=range(256),
                unset=self.hidden,
                variables=self.variables,
            )
            first = self.accepted(answer)
        except SubmissionRefused as refused:
            return {job.name: refused for job in jobs.jobs}
        ids: dict[str, Answer] = {}
        for index, job in enumerate(jobs.jobs, 1):
            place = jobs.place(index)
            id_ = first if place.index is None else self.element(first, place.index)
            self._known[job.name] = _Known(place, id_)
            ids[job.name] = id_
        return ids

    def _write_notes(self, jobs: Together) -> dict[str, SubmissionRefused]:
        """Write what names the jobs' places; which jobs cannot be submitted for want of it."""
        refused: dict[str, SubmissionRefused] = {}
        for index, job in enumerate(jobs.jobs, 1):
            try:
                jobs.place(index).write(job.spool)
            except OSError as error:
                refused[job.name] = submission_trouble(self.name, error)
        return refused

    def poll(self, jobs: Sequence[JobHandle]) -> dict[str, JobState]:
        """See BatchSystem."""
        self._known = {job.name: self._look_up(job) for job in jobs}
        for memory in (self._why, self._told):
            for name in memory.keys() - self._known:
                del memory[name]
        found = self._find(jobs)
        self._why |= {name: listed.why for name, listed in found.items() if listed.why}
        self._listed = {name for name, row in found.items() if row.state is not JobState.GONE}
        gone = JobState.GONE
        return {j.name: found[j.name].state if j.name in found else gone for j in jobs}

    def cancel(self, jobs: Sequence[JobHandle]) -> None:
        """See BatchSystem; waits until the queue no longer has the jobs."""
        deadline = time.monotonic() + PATIENCE
        trouble: BatchError | CommandError | None = None
        glance = 0.2
        answered = True
        try:
            left = self._active(jobs)
        except QueryFailed:  # those whose ids are known can be deleted nevertheless
            answered = False
            left = [job.id for job in jobs if job.id and self.is_id(job.id)]
            if not left:
                raise
        asked: set[str] = set()
        while left:
            for ids in chunks([id_ for id_ in left if id_ not in asked], _CHUNK):
                asked.update(ids)
                try:
                    self.delete(ids)
                except CommandError as error:
                    if not answered and isinstance(error, CommandTimeout):
                        raise QueryFailed(system=self.name, what=error) from None
                    trouble = error
            if time.monotonic() >= deadline:
                break
            time.sleep(glance)
            glance = min(glance * 1.5, _LONGEST_GLANCE)
            try:
                left, answered = self._active(jobs), True
            except QueryFailed as error:
                if not answered:  # twice, so it may be away for hours
                    raise
                trouble = error
        if left:
            what = f"jobs could not be ended: {', '.join(left)}"
            raise BatchError(system=self.name, what=f"{what} ({trouble})" if trouble else what)

    def move(self, jobs: Sequence[JobHandle], queue: str) -> list[str]:
        """See BatchSystem."""
        waiting = (JobState.PENDING, JobState.HELD)
        pending = [row.id for row in self._find(jobs).values() if row.state in waiting]
        try:
            for ids in chunks(pending, _CHUNK):
                self.send(ids, queue)
        except CommandError as error:
            raise BatchError(system=self.name, what=error) from None
        # A job may have started meanwhile, and some commands say yes to all.
        return [
            name
            for name, row in (self._find(jobs).items() if pending else ())
            if row.state in waiting and row.queue == queue
        ]

    def reason_of(self, jobs: Sequence[JobHandle]) -> dict[str, str | None]:
        """See BatchSystem."""
        known = {job.name: self._known[job.name] for job in jobs if job.name in self._known}
        names = {entry.id: name for name, entry in known.items() if entry.id}
        known_well = self._told.keys() | self._listed
        unasked = {id_: name for id_, name in names.items() if name not in known_well}
        told: Mapping[str, str | None] = {}
        if unasked:
            try:
                told = self.reasons(unasked)
            except CommandMissing:
                pass  # there need not be any accounting
            except CommandError:
                told = dict.fromkeys(unasked)
        answers = {unasked[id_]: why for id_, why in told.items() if id_ in unasked}
        self._told |= {name: why for name, why in answers.items() if why is not None}
        reasons = {**answers, **self._why, **self._told}
        return {job.name: reasons[job.name] for job in jobs if job.name in reasons}

    def describe(self, job: JobOrder) -> str:
        """See BatchSystem."""
        alone = Together((job,))
        try:
            script = job.script.read_text(errors="replace")
        except OSError as error:
            script = f"(unreadable: {error.strerror})\n"
        return (
            f"{shlex.join(self.command(alone))} << 'END'\n{self.input(alone)}END\n"
            f"\n# {job.script}\n{script}"
        )

    def close(self) -> None:  # noqa: B027 - nothing is held
        """See BatchSystem."""

    # ----------------------------------------------------------------- finding jobs in the queue

    def _active(self, jobs: Sequence[JobHandle]) -> list[str]:
        """The ids of the jobs that the queue still has."""
        found = self._find(jobs).values()
        return [listed.id for listed in found if listed.state is not JobState.GONE]

    def _find(self, jobs: Sequence[JobHandle]) -> dict[str, Listed]:
        """What the queue says of jobs, by name; those that it does not know are left out."""
        wanted = {job.name: self._look_up(job) for job in jobs}
        ids = {known.id for known in wanted.values() if known.id}
        names = {known.place.name for known in wanted.values() if not known.id}
        if not wanted:
            return {}
        try:
            rows = self.listed(ids, names)
        except QueryFailed:
            raise
        except (BatchError, CommandError) as error:
            raise QueryFailed(system=self.name, what=error) from None
        by_id = {row.id: row for row in rows}
        by_place = {row.place: row for row in rows}
        found: dict[str, Listed] = {}
        for name, known in wanted.items():
            row = by_id.get(known.id) if known.id else by_place.get(known.place)
            if row is not None:
                found[name] = row
                self._known[name] = _Known(known.place, row.id)
        return found

    def _look_up(self, job: JobHandle) -> _Known:
        """What we know of a job; of one that another manager submitted, its spool tells."""
        known = self._known.get(job.name)
        if known is None:
            try:
                place = Place.read(job.name, job.spool)
            except OSError as error:
                what = f"{error.filename}: {error.strerror}"
                raise QueryFailed(system=self.name, what=what) from None
            known = _Known(place, job.id if job.id and self.is_id(job.id) else None)
            self._known[job.name] = known
        return known


@dataclass(frozen=True)
class _Known:
    place: Place
    id: str | None


def chunks(items: Collection[str], size: int) -> Iterator[list[str]]:
    """The items in lists of at most ``size``: a command line has its limits."""
    every = list(items)
    for start in range(0, len(every), size):
        yield every[start : start + size]


def lines_of(text: str) -> list[str]:
    """What a command said, without the empty lines and the blanks around."""
    return [line.strip() for line in text.splitlines() if line.strip()]
