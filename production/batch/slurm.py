"""SLURM: sbatch, squeue, scancel, and sacct where accounting exists.

Sources: the manual pages of these commands (release 22.05), and their output as recorded in
tests/data/slurm_*.
"""

from __future__ import annotations

import math
import os
import pwd
import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from production import commands
from production.batch.base import BatchSystem
from production.batch.cluster import ClusterSystem, Listed, chunks, read_site
from production.batch.together import Place, Together
from production.errors import BatchError, CommandError, QueryFailed, SubmissionRefused
from production.model import JobState

# Options of sbatch after which the manager would not find its jobs again, or wait for ever.
_FORBIDDEN: Mapping[str, str] = {
    **dict.fromkeys(("-M", "--clusters", "--cluster"), "jobs on other clusters are not watched"),
    **dict.fromkeys(("-W", "--wait"), "the manager waits itself"),
    **dict.fromkeys(("--wrap", "--test-only"), "what is submitted is the manager's script"),
}

# What squeue prints for each job, and the header line that proves it an answer.
_FORMAT = "%i|%T|%r|%j"
_HEADER = "JOBID|STATE|REASON|NAME"
# Variables that restrict what squeue shows.
_FILTERS = ("SQUEUE_",)

_ID = re.compile(r"[0-9]{1,18}(_[0-9]{1,18})?", re.ASCII)
_ROW = re.compile(r"([0-9]{1,18}(?:_([0-9]{1,18}))?)\|([A-Z_]+)\|[^|]*\|(.*)", re.ASCII)
_ACCEPTED = re.compile(r"([0-9]{1,18})(;\S+)?\s*", re.ASCII)

_PENDING = frozenset(
    ("PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT")
)
# How jobs end, in words for users; the system's own follows in parentheses.
_ENDED: Mapping[str, str] = {
    "BOOT_FAIL": "its node did not start",
    "CANCELLED": "cancelled",
    "COMPLETED": "the batch system saw it end well",
    "DEADLINE": "its deadline had passed",
    "FAILED": "failed",
    "NODE_FAIL": "its node failed",
    "OUT_OF_MEMORY": "over the memory limit of the batch system",
    "PREEMPTED": "stopped in favour of another job",
    "REVOKED": "revoked",
    "TIMEOUT": "over the time limit of the batch system",
}

# In what sbatch says when the server did not take notice, or not yet, of what it was asked.
_UNANSWERED = re.compile(
    r"timed out|unable to contact|connect|communication|zero bytes|message (send|receive)|"
    r"temporarily|standby|authentication|credential|munge|protocol|insane|resource unavailable|"
    r"submit *(job)? *(limit|.*peruser)|submitjob",
    re.IGNORECASE,
)
_UNKNOWN_ID = "Invalid job id specified"


def open_system(options: Mapping[str, object]) -> BatchSystem:
    """SLURM, with the options of [batch.slurm]; raises ConfigurationError."""
    return SlurmSystem(read_site(SlurmSystem.name, options))


class SlurmSystem(ClusterSystem):
    """The batch system ``slurm``."""

    name = "slurm"
    largest_array = 1000  # indices below MaxArraySize, which is 1001 unless the site changed it
    index = "$SLURM_ARRAY_TASK_ID"
    forbidden = _FORBIDDEN

    def command(self, jobs: Together) -> list[str]:
        """See ClusterSystem; the user's options come before those that must hold."""
        needs = self.needs(jobs)
        argv = ["sbatch", "--nodes=1", "--ntasks=1", f"--cpus-per-task={needs.cores}"]
        if needs.time is not None:
            argv.append(f"--time={math.ceil(needs.time / 60)}")  # minutes
        if needs.memory is not None:
            argv.append(f"--mem={math.ceil(needs.memory / 2**20)}M")
        if needs.queue is not None:
            argv.append(f"--partition={needs.queue}")
        if needs.project is not None:
            argv.append(f"--account={needs.project}")
        argv += [_language(), "--output=/dev/null", "--error=/dev/null", "--chdir=/"]
        argv += needs.options
        # Without --no-requeue SLURM would start an attempt again that had been started.
        argv += ["--parsable", "--no-requeue", f"--job-name={jobs.name}"]
        if jobs.is_array:
            argv.append(f"--array=1-{len(jobs.jobs)}")
        return argv

    def accepted(self, answer: commands.Completed) -> str:
        """See ClusterSystem."""
        return parse_accepted(answer)

    def element(self, job: str, index: int) -> str:
        """See ClusterSystem."""
        return f"{job}_{index}"

    def is_id(self, text: str) -> bool:
        """See ClusterSystem."""
        return _ID.fullmatch(text) is not None

    def listed(self, ids: Collection[str], names: Collection[str]) -> list[Listed]:
        """See ClusterSystem: our own jobs, and once more by id or name those not among them."""
        rows = _squeue(f"--user={os.getuid()}")
        missing = set(ids).difference(row.id for row in rows)
        arrays = {id_.partition("_")[0] for id_ in missing}
        unseen = set(names).difference(row.place.name for row in rows)
        for chosen, wanted in (("jobs", arrays), ("name", unseen)):
            for some in chunks(sorted(wanted), 1000):
                rows += _squeue(f"--{chosen}={','.join(some)}")
        return rows

    def delete(self, ids: Sequence[str]) -> None:
        """See ClusterSystem."""
        commands.run(["scancel", "--quiet", *ids])

    def send(self, ids: Sequence[str], queue: str) -> None:
        """See ClusterSystem."""
        commands.run(["scontrol", "update", f"JobId={','.join(ids)}", f"Partition={queue}"])

    def reasons(self, ids: Collection[str]) -> dict[str, str]:
        """See ClusterSystem."""
        told: dict[str, str] = {}
        for some in chunks(ids, 1000):
            argv = ["sacct", "--noheader", "--allocations", "--parsable2"]
            argv += ["--format=JobID,State,ExitCode", f"--jobs={','.join(some)}"]
            told.update(parse_sacct(commands.run(argv).stdout))
        return told


def _squeue(chosen: str) -> list[Listed]:
    """The chosen jobs, also those that ended a while ago; raises QueryFailed, CommandError."""
    argv = ["squeue", "--all", "--array", "--states=all", f"--format={_FORMAT}", chosen]
    try:
        answer = commands.run(argv, unset=_FILTERS)
    except CommandError as error:
        if _UNKNOWN_ID in str(error):
            return []
        raise
    return parse_squeue(answer.stdout)


# ---------------------------------------------------------------------- what the commands say


def parse_accepted(answer: commands.Completed) -> str:
    """The id that ``sbatch --parsable`` printed.

    Raises SubmissionRefused when SLURM will not have the job, BatchError when the answer leaves
    open whether it has it.
    """
    if answer.code == 0:
        # Last: a site's own scripts may greet the user before.
        last = _lines(answer.stdout)[-1:]
        match = _ACCEPTED.fullmatch(last[0]) if last else None
        if match is None:
            what = f"sbatch did not tell the job's id, but {answer.stdout[:100]!r}"
            raise BatchError(system=SlurmSystem.name, what=what)
        return match[1]
    lines = _lines(answer.stderr)
    what = "; ".join(lines) or f"sbatch failed with exit code {answer.code} and did not say why"
    own = [line.removeprefix("sbatch: ") for line in lines if line.startswith("sbatch: ")]
    if not own or _UNANSWERED.search(what):
        raise BatchError(system=SlurmSystem.name, what=what)
    reasons = [line.removeprefix("error: ") for line in own]
    raise SubmissionRefused(system=SlurmSystem.name, what="; ".join(reasons))


def parse_squeue(text: str) -> list[Listed]:
    """The jobs that squeue printed; raises QueryFailed when it is not a whole answer."""
    lines = text.split("\n")
    if lines[0] != _HEADER or lines.pop():
        raise QueryFailed(system=SlurmSystem.name, what=f"squeue printed {text[:100]!r}")
    return [_listed(line) for line in lines[1:]]


def _listed(line: str) -> Listed:
    match = _ROW.fullmatch(line)
    if match is None:
        raise QueryFailed(system=SlurmSystem.name, what=f"squeue printed {line[:100]!r}")
    id_, index, state, name = match.groups()
    place = Place(name, None if index is None else int(index))
    if state in _PENDING:
        return Listed(id_, place, JobState.PENDING)
    if state in _ENDED:
        return Listed(id_, place, JobState.GONE, in_words(state))
    # Running, or one of the many states before and after, of which each release has more.
    return Listed(id_, place, JobState.RUNNING)


def parse_sacct(text: str) -> dict[str, str]:
    """How the jobs ended that sacct printed, in words, by id; others are left out."""
    told = {}
    for line in text.splitlines():
        fields = line.split("|")
        if len(fields) == 3 and _ID.fullmatch(fields[0]) and fields[1].split(" ")[0] in _ENDED:
            told[fields[0]] = in_words(fields[1], fields[2])
    return told


def in_words(state: str, exit_code: str = "") -> str:
    """A final state such as ``CANCELLED by 1000`` in words; ``exit_code`` is CODE:SIGNAL."""
    short, _, who = state.partition(" by ")
    words = _ENDED[short.split(" ")[0]]
    if re.fullmatch(r"[0-9]{1,10}", who, re.ASCII):
        words += f" by {_user(int(who))}"
    code, _, number = exit_code.partition(":")
    if short == "FAILED" and number not in {"", "0"}:
        words += f", ended by signal {number}"
    elif short == "FAILED" and code:
        words += f" with exit code {code}"
    return f"{words} ({short})"


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return f"user {uid}"


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _language() -> str:
    """The user's language for the job: the command itself is run in the C locale."""
    names: Iterable[str] = ("LC_ALL", "LANG")
    values = {name: os.environ.get(name, "") for name in names}
    return ",".join(["--export=ALL", *(f"{n}={v}" for n, v in values.items() if "," not in v)])
