"""Grid Engine: qsub, qstat -xml, qdel, qalter, and qacct.

Sources: the manual pages of Son of Grid Engine 8.1.9 (qsub(1), qstat(1), sge_status(5),
accounting(5)) and of Univa Grid Engine 8.6 where it differs, and the commands' output as recorded
in tests/data/sge_*.
"""

from __future__ import annotations

import math
import os
import pwd
import re
import signal
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from production import commands
from production.batch.base import BatchSystem
from production.batch.cluster import ClusterSystem, Listed, Site, chunks, lines_of, read_site
from production.batch.together import Place, Together, indices
from production.errors import (
    BatchError,
    CommandError,
    QueryFailed,
    SubmissionRefused,
)
from production.model import JobState

# Options of qsub after which the manager would not find its jobs again, or wait for ever.
_FORBIDDEN: Mapping[str, str] = {
    "-sync": "the manager waits itself",
    "-now": "jobs have to wait for their turn",
    "-b": "what is submitted is the manager's script",
    "-t": "the manager makes the arrays itself",
    "-N": "the manager finds its jobs by their names",
}
# What differs from site to site, and what most have.
_SITE_WORDS: Mapping[str, str] = {"parallel_environment": "smp", "memory_resource": "mem_free"}

# Seconds that a job may last beyond its limit: Grid Engine then kills without a warning, and the
# wrapper, which knows the limit as well, is to be first and to tell.
_MARGIN = 60
_ACCOUNTING_PATIENCE = 20.0  # seconds; qacct reads a file with all jobs that there ever were

_ID = re.compile(r"[0-9]{1,18}(\.[0-9]{1,18})?", re.ASCII)
_ACCEPTED = re.compile(r"([0-9]{1,18})(\.[0-9]+-[0-9]+:[0-9]+)?", re.ASCII)
_NUMBER = re.compile(r"job_number:\s+([0-9]+)", re.ASCII)
# What qacct says of jobs that never started or are not accounted yet, and where nothing is.
_UNACCOUNTED = re.compile(r"not found|no jobs running since startup")
_TROUBLE = re.compile(r"error reason\s+(?:[0-9]+):\s+(.*)", re.ASCII)

# What jobs ask for, and the fields of qacct that tell how much they had of it.
_LIMITS = (
    ("h_rt", "ru_wallclock", "time"),
    ("h_cpu", "cpu", "processor time"),
    ("h_vmem", "maxvmem", "memory"),
)
_AMOUNT = re.compile(
    r"(?:(?:([0-9]{1,6}):)?([0-9]{1,6}):)?([0-9]{1,15}(?:\.[0-9]+)?)([KMGTkmgt]?)[Bs]?", re.ASCII
)

_FACTORS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}

# accounting(5), `failed`: the job went on elsewhere, so this was not its end.
_NOT_THE_END = (24, 25)
_UNWATCHED = (19, 21)  # ended without a trace; was unknown where it should have been running
# exit_status of jobs that Grid Engine killed; with -notify SIGUSR2 comes first.
_ANNOUNCED = 128 + signal.SIGUSR2
_KILLED = frozenset((_ANNOUNCED, 128 + signal.SIGKILL, 128 + signal.SIGXCPU))

# In what qsub says when the server did not answer, or has too many jobs already.
_UNANSWERED = re.compile(
    r"commlib|contact|qmaster|time-?out|timed out|connect|gdi|no response|are allowed per|"
    r"can't (get|resolve)|resource temporarily",
    re.IGNORECASE,
)
_OWN = ("Unable to run job: ", "qsub: ")


def open_system(options: Mapping[str, object]) -> BatchSystem:
    """Grid Engine, with the options of [batch.sge]; raises ConfigurationError."""
    return GridEngineSystem(read_site(GridEngineSystem.name, options, _SITE_WORDS))


@dataclass(frozen=True)
class Row:
    """An entry of qstat: a job, or those elements of an array that are in the same state."""

    job: str
    name: str
    state: str  # the letters of sge_status(5)
    tasks: str = ""  # such as 1 or 8-12:1 or 8,9,12; empty when it is no array
    queue: str = ""  # those that it asked for
    depends: bool = False  # on other jobs, whose end lets it go

    @property
    def meaning(self) -> JobState:
        """What the letters mean for somebody who waits for the job.

        ``q`` and ``w``: it waits, or is held when there is an ``h``, restarted (``R``) or in error
        (``E``).  All others that are listed have started: running, in transfer, suspended,
        preempted, about to be deleted.
        """
        letters = set(self.state)
        if not letters & set("qw"):
            return JobState.RUNNING
        held = "h" in letters and "E" not in letters and not self.depends
        return JobState.HELD if held else JobState.PENDING

    def places(self) -> Iterator[tuple[str, Place]]:
        """The ids and places of all that it stands for; raises QueryFailed."""
        if not self.tasks:
            yield self.job, Place(self.name)
            return
        try:
            for index in indices(self.tasks):
                yield f"{self.job}.{index}", Place(self.name, index)
        except ValueError as error:
            raise QueryFailed(system=GridEngineSystem.name, what=f"qstat: {error}") from None


class GridEngineSystem(ClusterSystem):
    """The batch system ``sge``."""

    name = "sge"
    largest_array = 5000  # of at most 75000 (max_aj_tasks), so that the script stays small
    index = "$SGE_TASK_ID"
    forbidden = _FORBIDDEN
    # Grid Engine announces with it that a job is going to be suspended, which it may well be; the
    # wrapper and the payload would take it for their end.
    prelude = "trap '' USR1\n"

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._user = _own_name()
        self._broken: dict[str, str] = {}  # by id: why those could not start that it deleted
        self._sent: set[str] = set()  # jobs of which it matters in which queue they wait
        self._asked: dict[str, float] = {}  # by job: when qacct was last asked, monotonic

    def command(self, jobs: Together) -> list[str]:
        """See ClusterSystem; the user's options come after those that may be replaced."""
        needs, site = self.needs(jobs), self._site
        argv = ["qsub", "-terse", "-S", "/bin/bash", "-wd", "/", "-o", "/dev/null"]
        argv += ["-e", "/dev/null"]
        if needs.time is not None:
            argv += ["-l", f"h_rt={needs.time + _MARGIN}"]
        if needs.memory is not None:  # of each slot
            size = math.ceil(needs.memory / needs.cores / 2**20)
            argv += ["-l", f"{site.words['memory_resource']}={size}M"]
        if needs.cores > 1:
            argv += ["-pe", site.words["parallel_environment"], str(needs.cores)]
        if needs.queue is not None:
            argv += ["-q", needs.queue]
        if needs.project is not None:
            argv += ["-P", needs.project]
        argv += needs.options
        # An attempt that had been started is not to be started again; and when a job is deleted,
        # its wrapper is to be told (by SIGUSR2) before it is killed.
        argv += ["-r", "n", "-notify", "-N", jobs.name]
        if jobs.is_array:
            argv += ["-t", f"1-{len(jobs.jobs)}"]
        return argv

    def accepted(self, answer: commands.Completed) -> str:
        """See ClusterSystem."""
        return parse_accepted(answer)

    def element(self, job: str, index: int) -> str:
        """See ClusterSystem."""
        return f"{job}.{index}"

    def is_id(self, text: str) -> bool:
        """See ClusterSystem."""
        return _ID.fullmatch(text) is not None

    def listed(self, ids: Collection[str], names: Collection[str]) -> list[Listed]:
        """See ClusterSystem: our own jobs and, when any is not among them, all users'.

        A job in an error state would wait there for ever: it is deleted.
        """
        found = self._chosen(self._user, ids, names)
        missing = set(ids).difference(found)
        unseen = set(names).difference(place.name for place, _ in found.values())
        if missing or unseen:
            found |= self._chosen("*", ids, names)
        self._sent.clear()
        in_error = [id_ for id_, (_, row) in found.items() if "E" in row.state]
        if in_error:
            self._delete_in_error(in_error)
        return [
            Listed(id_, place, JobState.GONE, self._broken[id_])
            if id_ in self._broken
            else _listed(id_, place, row)
            for id_, (place, row) in found.items()
        ]

    def _chosen(
        self, user: str, ids: Collection[str], names: Collection[str]
    ) -> dict[str, tuple[Place, Row]]:
        """Place and entry by id of the user's jobs, as far as they are those that are wanted."""
        rows = self._rows(user, ids, names)
        # Which queues they asked for, and what they depend on, makes the answer half as long again.
        if any(row.meaning is JobState.HELD or row.job in self._sent for row in rows):
            rows = self._rows(user, ids, names, "-r")
        return {id_: (place, row) for row in rows for id_, place in row.places()}

    def _rows(
        self, user: str, ids: Collection[str], names: Collection[str], *options: str
    ) -> list[Row]:
        answer = commands.run(["qstat", "-xml", *options, "-s", "prs", "-u", user])
        jobs = {id_.partition(".")[0] for id_ in ids}
        return [r for r in parse_qstat(answer.stdout) if r.job in jobs or r.name in names]

    def _delete_in_error(self, ids: Sequence[str]) -> None:
        """Delete jobs that Grid Engine could not start, and remember why it could not."""
        jobs = sorted({id_.partition(".")[0] for id_ in ids})
        reasons: dict[str, str] = {}
        for some in chunks(jobs, 500):
            reasons |= parse_error_reasons(commands.run(["qstat", "-j", ",".join(some)]).stdout)
        for some in chunks(ids, 500):
            try:
                self.delete(some)
            except CommandError:  # another user's: it goes on to wait
                continue
            for id_ in some:
                said = reasons.get(id_.partition(".")[0], "it did not say why")
                self._broken[id_] = f"it could not be started: {said}"

    def delete(self, ids: Sequence[str]) -> None:
        """See ClusterSystem."""
        commands.run(["qdel", *ids])

    def send(self, ids: Sequence[str], queue: str) -> None:
        """See ClusterSystem: arrays move as a whole, and elements that run do not care."""
        jobs = sorted({id_.partition(".")[0] for id_ in ids})
        self._sent.update(jobs)
        answer = commands.run(["qalter", "-q", queue, *jobs], accept=range(256))
        trouble = [
            line
            for line in lines_of(answer.stderr + answer.stdout)
            if "does not exist" not in line and not line.startswith("modified")
        ]
        if answer.code and trouble:
            raise CommandError(command=f"qalter -q {queue}", what=trouble[0])

    def reasons(self, ids: Collection[str]) -> dict[str, str | None]:
        """See ClusterSystem; of jobs in an error state, qstat had told more."""
        known = {id_: self._broken[id_] for id_ in ids if id_ in self._broken}
        told: dict[str, str | None] = {id_: None for id_ in ids if id_ not in known}
        deadline = time.monotonic() + _ACCOUNTING_PATIENCE
        unasked = {id_.partition(".")[0] for id_ in told}
        # First those whose turn has not come for longest: one that hangs takes the others' time.
        for job in sorted(unasked, key=lambda job: (self._asked.get(job, 0.0), job)):
            left = deadline - time.monotonic()
            if left <= 0:
                break
            self._asked[job] = time.monotonic()
            seconds = min(left, commands.default_timeout())
            try:
                text = commands.run(["qacct", "-j", job], timeout=seconds).stdout
                answered = "jobnumber" in text
            except CommandError as error:
                text, answered = "", _UNACCOUNTED.search(str(error)) is not None
            if answered:
                told = {id_: why for id_, why in told.items() if id_.partition(".")[0] != job}
                told |= parse_qacct(text)
        self._asked = {job: when for job, when in self._asked.items() if job in unasked}
        return {**told, **known}


def _own_name() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return "*"


# ---------------------------------------------------------------------- what the commands say


def parse_accepted(answer: commands.Completed) -> str:
    """The id that ``qsub -terse`` printed.

    Raises SubmissionRefused when Grid Engine will not have the job, BatchError when the answer
    leaves open whether it has it.
    """
    if answer.code == 0:
        # Last: a site's own scripts may greet the user before.  Of half a line, an id would be
        # another job's.
        last = lines_of(answer.stdout)[-1:] if answer.stdout.endswith("\n") else []
        match = _ACCEPTED.fullmatch(last[0]) if last else None
        if match is None:
            what = f"qsub did not tell the job's id, but {answer.stdout[:100]!r}"
            raise BatchError(system=GridEngineSystem.name, what=what)
        return match[1]
    lines = [line for line in lines_of(answer.stderr + answer.stdout) if line != "Exiting."]
    what = "; ".join(lines) or f"qsub failed with exit code {answer.code} and did not say why"
    own = [line for line in lines if line.startswith(_OWN)]
    if not own or _UNANSWERED.search(what):
        raise BatchError(system=GridEngineSystem.name, what=what)
    raise SubmissionRefused(
        system=GridEngineSystem.name,
        what="; ".join(line.removeprefix(_OWN[0]).removeprefix(_OWN[1]) for line in own),
    )


def parse_qstat(text: str) -> list[Row]:
    """The entries of ``qstat -xml``; raises QueryFailed when it is not a whole answer."""
    try:
        if "<!" in text:  # no document type, so no entities that could be made to explode
            raise ValueError(f"it printed {text[:100]!r}")
        root = ET.fromstring(text)  # noqa: S314
        if root.tag != "job_info":
            raise ValueError(f"it printed <{root.tag[:100]}>")
        return [_row(entry) for entry in root.iter("job_list")]
    except (ET.ParseError, ValueError) as error:
        raise QueryFailed(system=GridEngineSystem.name, what=f"qstat: {error}") from None


def _row(entry: ET.Element) -> Row:
    job, short_name, name, state, tasks = (
        entry.findtext(tag, "").strip()
        for tag in ("JB_job_number", "JB_name", "full_job_name", "state", "tasks")
    )
    if not re.fullmatch(r"[0-9]{1,18}", job, re.ASCII) or not re.fullmatch(r"[A-Za-z]+", state):
        raise ValueError(f"a job {job[:40]!r} in state {state[:40]!r}")
    queues = ",".join(queue.text or "" for queue in entry.findall("hard_req_queue"))
    depends = entry.find("predecessor_jobs") is not None
    return Row(job, name or short_name, state, tasks, queues, depends)


def _listed(id_: str, place: Place, row: Row) -> Listed:
    state = row.meaning
    why = f"held by its user or an administrator ({row.state})" if state is JobState.HELD else ""
    return Listed(id_, place, state, why, "" if state is JobState.RUNNING else row.queue)


def parse_error_reasons(text: str) -> dict[str, str]:
    """Why jobs are in an error state, by job number, from ``qstat -j``; none is empty."""
    reasons: dict[str, str] = {}
    job = ""
    for line in text.splitlines():
        if match := _NUMBER.match(line):
            job = match[1]
        elif job and job not in reasons and (match := _TROUBLE.match(line)):
            # Before the reason stand when it happened, and numbers of user and process.
            said = re.sub(r"^[0-9/]+ [0-9:.]+ \[[0-9:]+\]:\s", "", match[1]).strip()
            if said:
                reasons[job] = said
    return reasons


def parse_qacct(text: str) -> dict[str, str]:
    """How jobs ended that qacct printed, in words, by id; what makes no sense is left out."""
    told = {}
    for block in re.split(r"^=+$", text, flags=re.MULTILINE):
        fields = dict(line.split(None, 1) for line in block.splitlines() if len(line.split()) > 1)
        job, task = fields.get("jobnumber", "").strip(), fields.get("taskid", "").strip()
        id_ = job if task == "undefined" else f"{job}.{task}"
        failed = re.match(r"([0-9]{1,4})\s*(?::\s*(.*))?", fields.get("failed", ""), re.ASCII)
        status = re.match(r"[0-9]{1,4}", fields.get("exit_status", ""), re.ASCII)
        if not _ID.fullmatch(id_) or failed is None or status is None:
            continue
        if int(failed[1]) in _NOT_THE_END:
            continue
        # Univa and Altair tell who deleted it, as USER@HOST.
        who = fields.get("deleted_by", fields.get("qdel_info", "NONE")).strip()
        words = in_words(int(failed[1]), (failed[2] or "").strip(), int(status[0]))
        if who != "NONE":
            words = f"deleted by {who}"
        elif int(status[0]) in _KILLED:
            words = _over_limit(fields) or words
        told[id_] = words
    return told


def _over_limit(fields: Mapping[str, str]) -> str:
    """Words for a job that was killed when it had used up what it had asked for."""
    for limit, use, what in _LIMITS:
        asked = re.search(rf"\b{limit}=([^ ,]+)", fields.get("category", ""))
        most = _amount(asked[1]) if asked else 0.0
        if asked and 0 < most <= _amount(fields.get(use, "")):
            return f"over the limit of the batch system for {what} ({limit}={asked[1]})"
    return ""


def _amount(text: str) -> float:
    """Seconds or bytes: 90, 0:1:30, 89.7s, 300M, 2.996MB; 0 for what is none."""
    match = _AMOUNT.fullmatch(text.strip())
    if match is None:
        return 0.0
    hours, minutes, number, letter = match.groups("0")
    return 3600 * int(hours) + 60 * int(minutes) + float(number) * _FACTORS[letter.upper()]


def in_words(failed: int, text: str, status: int) -> str:
    """The codes ``failed`` (with qacct's ``text`` for it) and ``exit_status`` of accounting(5)."""
    if failed in _UNWATCHED:
        return f"its node failed, or what watches over jobs there ({text or failed})"
    if failed == 37:
        return f"over a limit of the batch system ({text})"
    if status == _ANNOUNCED or (failed == 100 and status in _KILLED):
        return "killed: deleted, or over a limit of its queue"
    if failed not in (0, 100):
        return f"failed ({text or failed})"
    if status > 128:
        return f"ended by signal {status - 128}"
    return f"ended with exit code {status}"
