"""PBS in both of its dialects: PBS Professional and OpenPBS, and Torque.

Sources: the user's and reference guides of PBS Professional 2022, the manual pages of OpenPBS 22
and Torque 6.1, and the messages in their sources.  What qstat prints is read by
production/batch/pbs_output.py.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from production import commands
from production.batch import pbs_output
from production.batch.base import BatchSystem
from production.batch.cluster import ClusterSystem, Listed, Site, chunks, lines_of, read_site
from production.batch.pbs_output import Id, Job
from production.batch.together import Place, Together
from production.errors import (
    BatchError,
    CommandError,
    ConfigurationError,
    QueryFailed,
    SubmissionRefused,
)
from production.model import JobState

# Options of qsub after which the manager would not find its jobs again, or wait for ever.
_FORBIDDEN: Mapping[str, str] = {
    **dict.fromkeys(("-Wblock", "block"), "the manager waits itself"),
    **dict.fromkeys(("-I", "-X"), "jobs have no terminal"),
    **dict.fromkeys(("-J", "-t"), "the manager makes the arrays itself"),
    "-N": "the manager finds its jobs by their names",
    "-r": "whether a job may be started again is the manager's decision",
    "-z": "the manager needs the job's id",
}
_AUTO = "auto"
_SITE_WORDS: Mapping[str, str] = {"dialect": _AUTO, "project_option": ""}

# In what the commands say when the server did not take notice, or not yet, of what it was asked.
_UNANSWERED = re.compile(
    r"cannot connect|could not connect|can not establish|connection|timed? ?out|no free|busy|"
    r"shutting down|end of file|protocol|credential|authenticat|pbs_iff|munge|trqauthd|socket|"
    r"temporarily|internal error|system error|communication|"
    r"maximum number of jobs|would exceed .*(per-|limit)|too many submit",
    re.IGNORECASE,
)
# Proof that a job does not exist, or not any more.
_DENIED = re.compile(
    r"unknown (?:job|array) ?id(?: error)? ([0-9]{1,18})|"
    r"([0-9]{1,18})\S* +job has finished|job has finished +([0-9]{1,18})",
    re.IGNORECASE | re.ASCII,
)
_NO_JOB = "0"  # they count from 1
_NO_HISTORY = "not configured to maintain job history"
# What qdel and qmove say of jobs that ended, or started, a moment ago.
_HARMLESS = re.compile(r"request invalid for|already in exit|job is being|also deleted", re.I)


@dataclass(frozen=True)
class Dialect:
    """In what the two differ."""

    name: str
    array: str  # the option of qsub
    index: str  # the shell's word for an element's index
    longest_name: int
    project: str  # the option of qsub
    query: tuple[str, ...]  # for certain jobs, with the elements of arrays
    listing: tuple[str, ...]  # for all
    read: Callable[[str], list[Job]]
    history: str  # the option with which qstat tells of jobs that ended as well


PRO = Dialect(
    name="pro",
    array="-J",
    index="$PBS_ARRAY_INDEX",
    longest_name=230,
    project="-P",
    query=("qstat", "-t", "-f", "-F", "json"),
    listing=("qstat", "-f", "-F", "json"),
    read=pbs_output.read_json,
    history="-x",
)
# Here -x means XML, and jobs that ended are kept for keep_completed seconds and always shown.
TORQUE = Dialect(
    name="torque",
    array="-t",
    index="$PBS_ARRAYID",
    longest_name=15,
    project="-A",
    query=("qstat", "-t", "-f", "-x"),
    listing=("qstat", "-t", "-f", "-x"),
    read=pbs_output.read_xml,
    history="",
)
_DIALECTS: Mapping[str, Dialect] = {dialect.name: dialect for dialect in (PRO, TORQUE)}


def open_system(options: Mapping[str, object]) -> BatchSystem:
    """PBS, with the options of [batch.pbs]; raises ConfigurationError."""
    site = read_site(PbsSystem.name, options, _SITE_WORDS)
    known = (_AUTO, *_DIALECTS)
    if site.words["dialect"] not in known:
        what = f"dialect must be one of {', '.join(known)}"
        raise ConfigurationError(where=f"[batch.{PbsSystem.name}]", what=what)
    return PbsSystem(site)


class PbsSystem(ClusterSystem):
    """The batch system ``pbs``."""

    name = "pbs"
    largest_array = 1000  # of max_array_size, by default 10000, so that the script stays small
    forbidden = _FORBIDDEN
    accounting_lag = 0.0  # there is no accounting for users but the queue's own memory

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._known_dialect = _DIALECTS.get(site.words["dialect"])
        self._has_history = True  # until the server denies it

    @property
    def _dialect(self) -> Dialect:
        """Raises BatchError, CommandError when it cannot be found out now."""
        if self._known_dialect is None:
            self._known_dialect = _DIALECTS[parse_version(_run(["qstat", "--version"]))]
        return self._known_dialect

    def command(self, jobs: Together) -> list[str]:
        """See ClusterSystem; the user's options come after those that may be replaced."""
        needs, dialect = self.needs(jobs), self._dialect
        argv = ["qsub", "-S", "/bin/bash", "-j", "oe", "-o", "/dev/null"]
        memory = "" if needs.memory is None else f"mem={math.ceil(needs.memory / 2**20)}mb"
        if dialect is PRO:
            wanted = ["select=1", f"ncpus={needs.cores}", *filter(None, [memory])]
            argv += ["-l", ":".join(wanted)]
        else:
            argv += ["-l", f"nodes=1:ppn={needs.cores}"]
            argv += ["-l", memory] if memory else []
        if needs.time is not None:
            argv += ["-l", f"walltime={needs.time}"]  # seconds
        if needs.queue is not None:
            argv += ["-q", needs.queue]
        if needs.project is not None:
            argv += [self._site.words["project_option"] or dialect.project, needs.project]
        argv += needs.options
        # An attempt that had been started is not to be started again.  PBS Pro refuses arrays of
        # which it is told so; there the fence in the spool has to do.
        rerunnable = jobs.is_array and dialect is PRO
        argv += ["-r", "y" if rerunnable else "n", "-N", short_name(jobs.name, dialect)]
        if jobs.is_array:
            argv += [dialect.array, f"1-{len(jobs.jobs)}"]
        return argv

    def input(self, jobs: Together) -> str:
        """See ClusterSystem."""
        return jobs.script(self._dialect.index)

    def accepted(self, answer: commands.Completed) -> str:
        """See ClusterSystem."""
        return parse_accepted(answer)

    def element(self, job: str, index: int) -> str:
        """See ClusterSystem."""
        return str(Id.parse(job).element(index))

    def is_id(self, text: str) -> bool:
        """See ClusterSystem."""
        try:
            Id.parse(text)
        except ValueError:
            return False
        return True

    def listed(self, ids: Collection[str], names: Collection[str]) -> list[Listed]:
        """See ClusterSystem: the jobs by their ids, and by name where that is all we know.

        A job is not there only if qstat says so.
        """
        wanted = {Id.parse(id_): id_ for id_ in ids}
        found = self._by_ids({id_.whole for id_ in wanted})
        rows = []
        for id_, text in wanted.items():
            job = found.get(id_)
            if job is None and id_.index is not None:
                job = self._told_by_array(id_, found)
            if job is not None:
                rows.append(Listed(text, Place(""), job.state, job.why, job.queue))
        return rows + self._by_names(names)

    def _told_by_array(self, element: Id, found: Mapping[Id, Job]) -> Job | None:
        """What an array tells of an element that is not listed; None when it is gone."""
        array = found.get(element.whole)
        if array is None or array.state is JobState.GONE:
            return None
        if element.index in array.waiting:
            return replace(array, id=element, state=_waiting(array))
        if self._dialect is PRO and self._has_history:
            # It lists all elements of an array that is not finished.
            raise QueryFailed(system=self.name, what=f"qstat did not tell of {element}")
        return None

    def _by_ids(self, ids: Collection[Id]) -> dict[Id, Job]:
        found: dict[Id, Job] = {}
        # An array tells of each of its elements, a kilobyte or more.
        size = 5 if any(id_.index is not None for id_ in ids) else 500
        for some in chunks([str(id_) for id_ in sorted(ids)], size):
            jobs, denied = self._remembered(some)
            told = {id_.number for id_ in jobs} | denied
            if silent := [id_ for id_ in some if Id.parse(id_).number not in told]:
                what = f"qstat did not tell of {', '.join(silent[:5])}"
                raise QueryFailed(system=self.name, what=what)
            found |= jobs
        return found

    def _remembered(self, ids: Sequence[str]) -> tuple[dict[Id, Job], set[str]]:
        """Jobs, also those that ended, as long as the server remembers them."""
        dialect = self._dialect
        if dialect.history and self._has_history:
            answer = _run([*dialect.query, dialect.history, *ids])
            if _NO_HISTORY not in answer.stderr:
                return parse_qstat(answer, dialect)
            self._has_history = False
        return self._qstat(dialect.query, ids)

    def _by_names(self, names: Collection[str]) -> list[Listed]:
        """Jobs with these names, of any user."""
        if not names:
            return []
        full = {short_name(name, self._dialect): name for name in names}
        # Not with qselect: that it prints nothing may mean anything.
        named = {id_.whole for id_, job in self._everything().items() if _base_name(job) in full}
        found = self._by_ids(named)
        rows = []
        for id_, job in found.items():
            if (name := full.get(_base_name(job))) is None:
                continue
            if id_.index != 0:
                place = Place(name, id_.index)
                rows.append(Listed(str(id_), place, job.state, job.why, job.queue))
            for index in sorted(job.waiting):
                element = id_.element(index)
                if element not in found:
                    place = Place(name, index)
                    rows.append(Listed(str(element), place, _waiting(job), job.why, job.queue))
        return rows

    def _everything(self) -> dict[Id, Job]:
        """The jobs and arrays of all users that have not ended.

        Torque prints nothing where there are none.  So it is asked for a job that cannot be, too,
        and has to deny that.
        """
        if self._dialect is PRO:
            return self._qstat(PRO.listing, [])[0]
        server = re.search(r"^Server: (\S+)", _run(["qstat", "-B", "-f"]).stdout, re.MULTILINE)
        if server is None:
            raise QueryFailed(system=self.name, what="qstat -B -f did not tell of any server")
        jobs, denied = self._qstat(TORQUE.listing, [f"@{server[1]}", _NO_JOB])
        if _NO_JOB not in denied:
            raise QueryFailed(system=self.name, what="qstat did not answer to the end")
        return jobs

    def _qstat(self, query: Sequence[str], which: Sequence[str]) -> tuple[dict[Id, Job], set[str]]:
        return parse_qstat(_run([*query, *which]), self._dialect)

    def delete(self, ids: Sequence[str]) -> None:
        """See ClusterSystem; qdel fails as a whole when any job had ended before."""
        _check("qdel", _run(["qdel", *ids]))

    def send(self, ids: Sequence[str], queue: str) -> None:
        """See ClusterSystem; an array moves as a whole, and only before any of it has started."""
        wholes = sorted({Id.parse(id_).whole for id_ in ids})
        _check("qmove", _run(["qmove", queue, *map(str, wholes)]))

    def reasons(self, ids: Collection[str]) -> dict[str, str]:  # noqa: ARG002
        """See ClusterSystem; there is nothing beyond what the queue tells."""
        return {}


def short_name(name: str, dialect: Dialect) -> str:
    """``name`` as the dialect can take it, as unique as before."""
    if len(name) <= dialect.longest_name:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:12]
    return f"{name[: dialect.longest_name - 13]}.{digest}"


def _base_name(job: Job) -> str:
    """The name that a job or its array was submitted with; Torque adds the index of an element."""
    return job.name.removesuffix(f"-{job.id.index}") if job.id.index else job.name


def _waiting(array: Job) -> JobState:
    """The state of an element that has not started; the array's own is about all of them."""
    return JobState.PENDING if array.state is JobState.RUNNING else array.state


def _run(argv: Sequence[str]) -> commands.Completed:
    return commands.run(argv, accept=range(256))


def _check(command: str, answer: commands.Completed) -> None:
    for line in lines_of(answer.stderr):
        if not _HARMLESS.search(line) and not _DENIED.search(line):
            raise CommandError(command=command, what=line)


# ---------------------------------------------------------------------- what the commands say


def parse_version(answer: commands.Completed) -> str:
    """The dialect, from what ``qstat --version`` printed; raises BatchError."""
    text = answer.stdout + answer.stderr
    if "pbs_version" in text:
        return PRO.name
    if re.search(r"^\s*version:", text, re.IGNORECASE | re.MULTILINE):
        return TORQUE.name
    what = f"`qstat --version` printed {text[:100]!r}: set dialect in [batch.{PbsSystem.name}]"
    raise BatchError(system=PbsSystem.name, what=what)


def parse_accepted(answer: commands.Completed) -> str:
    """The id that qsub printed.

    Raises SubmissionRefused when PBS will not have the job, BatchError when the answer leaves open
    whether it has it.
    """
    if answer.code == 0:
        # Last: a site's own scripts may greet the user before.  Of half a line, an id would be
        # another job's.
        last = "".join(lines_of(answer.stdout)[-1:]) if answer.stdout.endswith("\n") else ""
        try:
            return str(Id.parse(last))
        except ValueError:
            what = f"qsub did not tell the job's id, but {answer.stdout[:100]!r}"
            raise BatchError(system=PbsSystem.name, what=what) from None
    lines = lines_of(answer.stderr)
    what = "; ".join(lines) or f"qsub failed with exit code {answer.code} and did not say why"
    own = [line.removeprefix("qsub: ") for line in lines if line.startswith("qsub: ")]
    if any(line.lower().startswith("usage:") for line in lines):
        own = own or lines[:1]
    if not own or _UNANSWERED.search(what):
        raise BatchError(system=PbsSystem.name, what=what[:1000])
    raise SubmissionRefused(system=PbsSystem.name, what="; ".join(own)[:1000])


def parse_qstat(answer: commands.Completed, dialect: Dialect) -> tuple[dict[Id, Job], set[str]]:
    """The jobs that qstat printed, and the numbers of those of which it says that there are none.

    Raises QueryFailed when it is not a whole answer.
    """
    lines = lines_of(answer.stderr)
    denials = [_DENIED.search(line) for line in lines]
    denied = {next(filter(None, match.groups())) for match in denials if match}
    other = [line for line, match in zip(lines, denials, strict=True) if not match]
    if unanswered := next(filter(_UNANSWERED.search, other), None):
        raise QueryFailed(system=PbsSystem.name, what=unanswered)
    if not answer.stdout.strip():
        if denied:
            return {}, denied
        what = other[0] if other else f"qstat printed nothing, exit code {answer.code}"
        raise QueryFailed(system=PbsSystem.name, what=what)
    try:
        return {job.id: job for job in dialect.read(answer.stdout)}, denied
    except ValueError as error:
        raise QueryFailed(system=PbsSystem.name, what=f"qstat: {error}") from None
