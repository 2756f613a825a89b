"""SLURM: sbatch, squeue, scancel, scontrol, and sacct where there is accounting.

Sources: the manual pages of these commands (release 22.05), and their output as recorded in
tests/data/slurm_*.
"""

from __future__ import annotations

import contextlib
import math
import os
import pwd
import re
from collections.abc import Collection, Mapping, Sequence

from production import commands
from production.batch.base import BatchSystem
from production.batch.cluster import ClusterSystem, Listed, Site, chunks, lines_of, read_site
from production.batch.together import Place, Together, indices
from production.errors import (
    BatchError,
    CommandError,
    CommandMissing,
    QueryFailed,
    SubmissionRefused,
)
from production.model import JobState

# What differs from site to site: which of several clusters, where it is not the host's own.
_SITE_WORDS: Mapping[str, str] = {"cluster": ""}

# Options of sbatch after which the manager would not find its jobs again, or wait for ever.
_FORBIDDEN: Mapping[str, str] = {
    **dict.fromkeys(
        ("-M", "--clusters", "--cluster"),
        'all commands have to know it: cluster = "NAME" under [batch.slurm]',
    ),
    **dict.fromkeys(("-W", "--wait"), "the manager waits itself"),
    **dict.fromkeys(("--wrap", "--test-only"), "what is submitted is the manager's script"),
}

# Variables by which users set options for themselves: of these, those that choose other jobs than
# are meant, another cluster, or make a command wait.
_HIDDEN = (
    *("SQUEUE_", "SCANCEL_", "SLURM_CLUSTERS"),
    *("SBATCH_ARRAY_INX", "SBATCH_CLUSTERS", "SBATCH_WAIT"),
)

_VARIABLES: Mapping[str, str] = {"SLURM_BITSTR_LEN": "0"}  # elements of arrays are not abridged

# What squeue prints for each job, and the header line that proves it an answer.
_FORMAT = "%i|%T|%P|%r|%j"
_HEADER = "JOBID|STATE|PARTITION|REASON|NAME"
# What sacct prints, and the header line that proves it an answer.
_ACCOUNT = "JobID|State|ExitCode|ReqMem|MaxRSS"
_CLUSTER = "CLUSTER: "  # begins the line before the header, when a cluster was named

_ID = re.compile(r"[0-9]{1,18}(_[0-9]{1,18})?", re.ASCII)
# Elements that ended, or wait, in the same way: 24_[3-5,7%2]
_ELEMENTS = re.compile(r"([0-9]{1,18})_\[([0-9,:-]+)(?:%[0-9]+)?\]", re.ASCII)
# 93+0 is a part of a heterogeneous job, and so none of ours, but the user may have such jobs, too.
_ROW = re.compile(
    r"([0-9]{1,18}(?:_([0-9]{1,18})|\+[0-9]{1,18})?)\|([A-Z_]+)\|([^|]*)\|(.*?)\|(.*)", re.ASCII
)
_ACCEPTED = re.compile(r"([0-9]{1,18})(;\S+)?\s*", re.ASCII)

_PENDING = frozenset(("PENDING", "REQUEUED", "REQUEUE_FED"))
_HELD = frozenset(("REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"))
# Reasons for which a pending job will not start until somebody does something, in words for users.
# Others with "held" in them are of this kind as well ("job requeued in held state").
_HOLDS: Mapping[str, str] = {
    "JobHeldUser": "held by its user",
    "JobHeldAdmin": "held by an administrator",
    "BadConstraints": "held: no node is as it was asked for",
    "DependencyNeverSatisfied": "held: what it depends on will never come",
    "InvalidAccount": "held: its account is not valid",
    "InvalidQOS": "held: its quality of service is not valid",
    "PartitionTimeLimit": "held: its partition does not allow as much time",
}
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

_NO_START = "53"  # in the place of a signal, when the files for its output cannot be opened

# In what sbatch says when the server did not take notice, or not yet, of what it was asked.
_UNANSWERED = re.compile(
    r"timed out|unable to contact|connect|communication|zero bytes|message (send|receive)|"
    r"temporarily|standby|authentication|credential|munge|protocol|insane|resource unavailable|"
    r"can't be reached|known by database|configuration (source|file)|"
    r"submit *(job)? *(limit|.*peruser)|submitjob",
    re.IGNORECASE,
)
_UNKNOWN_ID = "Invalid job id specified"
# What scontrol says of jobs that are not pending any more.
_TOO_LATE = (_UNKNOWN_ID, "no longer pending", "already completing")
_NO_ACCOUNTING = "accounting storage is disabled"

_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]+)?)([KMGTP]?)n?", re.ASCII)
_FACTORS = {"": 1, **{letter: 2 ** (10 * power) for power, letter in enumerate("KMGTP", 1)}}


def open_system(options: Mapping[str, object]) -> BatchSystem:
    """SLURM, with the options of [batch.slurm]; raises ConfigurationError."""
    return SlurmSystem(read_site(SlurmSystem.name, options, _SITE_WORDS))


class SlurmSystem(ClusterSystem):
    """The batch system ``slurm``."""

    name = "slurm"
    largest_array = 1000  # indices below MaxArraySize, which is 1001 unless the site changed it
    index = "$SLURM_ARRAY_TASK_ID"
    forbidden = _FORBIDDEN
    hidden = _HIDDEN

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        cluster = site.words["cluster"]
        self._cluster = [f"--clusters={cluster}"] if cluster else []
        self.variables = _language()

    def command(self, jobs: Together) -> list[str]:
        """See ClusterSystem; the user's options come before those that must hold."""
        needs = self.needs(jobs)
        argv = ["sbatch", *self._cluster]
        if needs.cores > 1:  # SLURM takes longer over jobs that ask for what they get anyway
            argv += ["--nodes=1", "--ntasks=1", f"--cpus-per-task={needs.cores}"]
        if needs.time is not None:
            argv.append(f"--time={math.ceil(needs.time / 60)}")  # minutes
        if needs.memory is not None:
            argv.append(f"--mem={math.ceil(needs.memory / 2**20)}M")
        if needs.queue is not None:
            argv.append(f"--partition={needs.queue}")
        if needs.project is not None:
            argv.append(f"--account={needs.project}")
        # With more than ALL each node would log the user in for each job (slurmd's "get env for
        # user"), which takes more of a processor than the wrapper.
        argv += ["--export=ALL", "--output=/dev/null", "--error=/dev/null", "--chdir=/"]
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
        rows = self._squeue(f"--user={os.getuid()}")
        missing = set(ids).difference(row.id for row in rows)
        arrays = {id_.partition("_")[0] for id_ in missing}
        unseen = set(names).difference(row.place.name for row in rows)
        for chosen, wanted in (("jobs", arrays), ("name", unseen)):
            for some in chunks(sorted(wanted), 1000):
                rows += self._squeue(f"--{chosen}={','.join(some)}")
        return rows

    def delete(self, ids: Sequence[str]) -> None:
        """See ClusterSystem."""
        self._ask("scancel", "--quiet", *ids)

    def send(self, ids: Sequence[str], queue: str) -> None:
        """See ClusterSystem; jobs that have started meanwhile are passed over."""
        words = ("update", f"JobId={','.join(ids)}", f"Partition={queue}")
        answer = self._ask("scontrol", *words, accept=range(256))
        trouble = [
            line
            for line in lines_of(answer.stderr + answer.stdout)
            if not any(said in line for said in _TOO_LATE)
        ]
        if answer.code and trouble:
            raise CommandError(command="scontrol update", what=trouble[0])

    def reasons(self, ids: Collection[str]) -> Mapping[str, str]:
        """See ClusterSystem; without accounting, from what the server itself remembers."""
        told: dict[str, str] = {}
        try:
            # Whole arrays: an element that never started is not found by its own id.
            for some in chunks({id_.partition("_")[0] for id_ in ids}, 1000):
                format_ = f"--format={_ACCOUNT.replace('|', ',')}"
                argv = ("--parsable2", format_, f"--jobs={','.join(some)}")
                told |= parse_sacct(self._ask("sacct", *argv).stdout)
        except CommandError as error:
            if not isinstance(error, CommandMissing) and _NO_ACCOUNTING not in str(error):
                raise
            told = parse_scontrol(self._ask("scontrol", "--oneliner", "show", "job").stdout)
        return told

    def _squeue(self, chosen: str) -> list[Listed]:
        """The chosen jobs, also those that ended a while ago; raises QueryFailed, CommandError."""
        options = ("--all", "--array", "--states=all", f"--format={_FORMAT}", chosen)
        try:
            answer = self._ask("squeue", *options)
        except CommandError as error:
            if _UNKNOWN_ID in str(error):
                return []
            raise
        return parse_squeue(answer.stdout)

    def _ask(self, command: str, *words: str, accept: Sequence[int] = (0,)) -> commands.Completed:
        return commands.run(
            [command, *self._cluster, *words], accept=accept, unset=_HIDDEN, variables=_VARIABLES
        )


# ---------------------------------------------------------------------- what the commands say


def parse_accepted(answer: commands.Completed) -> str:
    """The id that ``sbatch --parsable`` printed.

    Raises SubmissionRefused when SLURM will not have the job, BatchError when the answer leaves
    open whether it has it.
    """
    if answer.code == 0:
        # Last: a site's own scripts may greet the user before.  Of half a line, an id would be
        # another job's.
        last = lines_of(answer.stdout)[-1:] if answer.stdout.endswith("\n") else []
        match = _ACCEPTED.fullmatch(last[0]) if last else None
        if match is None:
            what = f"sbatch did not tell the job's id, but {answer.stdout[:100]!r}"
            raise BatchError(system=SlurmSystem.name, what=what)
        return match[1]
    lines = lines_of(answer.stderr)
    what = "; ".join(lines) or f"sbatch failed with exit code {answer.code} and did not say why"
    own = [line.removeprefix("sbatch: ") for line in lines if line.startswith("sbatch: ")]
    if not own or _UNANSWERED.search(what):
        raise BatchError(system=SlurmSystem.name, what=what)
    reasons = [line.removeprefix("error: ") for line in own]
    raise SubmissionRefused(system=SlurmSystem.name, what="; ".join(reasons))


def parse_squeue(text: str) -> list[Listed]:
    """The jobs that squeue printed; raises QueryFailed when it is not a whole answer."""
    lines = text.split("\n")
    if lines[0].startswith(_CLUSTER):
        del lines[0]
    if not lines or lines[0] != _HEADER or lines.pop():
        raise QueryFailed(system=SlurmSystem.name, what=f"squeue printed {text[:100]!r}")
    return [_listed(line) for line in lines[1:]]


def _listed(line: str) -> Listed:
    match = _ROW.fullmatch(line)
    if match is None:
        raise QueryFailed(system=SlurmSystem.name, what=f"squeue printed {line[:100]!r}")
    id_, index, state, queue, reason, name = match.groups()
    place = Place(name, None if index is None else int(index))
    if state in _HELD or (state in _PENDING and (reason in _HOLDS or "held" in reason.lower())):
        why = f"{_HOLDS.get(reason, 'held')} ({reason if state in _PENDING else state})"
        return Listed(id_, place, JobState.HELD, why, queue)
    if state in _PENDING:
        return Listed(id_, place, JobState.PENDING, queue=queue)
    if state in _ENDED:
        return Listed(id_, place, JobState.GONE, in_words(state))
    # Running, or one of the many states before and after, of which each release has more.
    return Listed(id_, place, JobState.RUNNING)


def parse_sacct(text: str) -> dict[str, str]:
    """How the jobs ended that sacct printed, in words, by id; others are left out.

    After the line of a job come those of its steps, of which ``.batch`` is the script.  Raises
    CommandError when it is no answer.
    """
    header, *lines = text.splitlines() or [""]
    if header != _ACCOUNT:
        raise CommandError(command="sacct", what=f"it printed {header[:100]!r}")
    ended: dict[str, tuple[str, str, str]] = {}
    used: dict[str, str] = {}
    for line in lines:
        fields = line.split("|")
        if len(fields) != 5:
            continue
        job, state, exit_code, allowed, most = fields
        if state.split(" ")[0] in _ENDED:
            ended |= dict.fromkeys(_ids(job), (state, exit_code, allowed))
        if job.endswith(".batch"):
            used[job.removesuffix(".batch")] = most
    return {
        id_: _over_memory(state, exit_code, allowed, used.get(id_, ""))
        or in_words(state, exit_code)
        for id_, (state, exit_code, allowed) in ended.items()
    }


def _ids(text: str) -> list[str]:
    """The ids of the jobs that a line of sacct or scontrol is about; none for a step."""
    if match := _ELEMENTS.fullmatch(text):
        with contextlib.suppress(ValueError):
            return [f"{match[1]}_{index}" for index in indices(match[2])]
    return [text] if _ID.fullmatch(text) else []


def _over_memory(state: str, exit_code: str, allowed: str, used: str) -> str:
    """Words for a job that was killed for its memory without being called OUT_OF_MEMORY.

    So it happens where the nodes themselves watch the memory, without cgroups.
    """
    limit, most = _bytes(allowed), _bytes(used)
    if state != "FAILED" or exit_code != "0:9" or limit == 0 or most <= limit:
        return ""
    figures = f"{most / 1e6:.0f} MB used, {limit / 1e6:.0f} MB asked for"
    return f"over the memory limit of the batch system: {figures} ({state})"


def _bytes(text: str) -> float:
    """A size such as 304132K, 0 for what is none."""
    match = _SIZE.fullmatch(text)
    return float(match[1]) * _FACTORS[match[2]] if match else 0


def parse_scontrol(text: str) -> dict[str, str]:
    """How the jobs ended that ``scontrol --oneliner show job`` printed, in words, by id."""
    told: dict[str, str] = {}
    for line in text.splitlines():
        fields = dict(word.partition("=")[::2] for word in reversed(line.split(" ")))
        job, elements = fields.get("JobId", ""), fields.get("ArrayTaskId")
        if elements is not None:
            job = f"{fields.get('ArrayJobId')}_[{elements}]"
        state = fields.get("JobState", "")
        if state in _ENDED:
            words = in_words(state, fields.get("ExitCode", ""))
            told |= dict.fromkeys(_ids(job), words)
    return told


def in_words(state: str, exit_code: str = "") -> str:
    """A final state such as ``CANCELLED by 1000`` in words; ``exit_code`` is CODE:SIGNAL."""
    short, _, who = state.partition(" by ")
    words = _ENDED[short.split(" ")[0]]
    if re.fullmatch(r"[0-9]{1,10}", who, re.ASCII):
        words += f" by {_user(int(who))}"
    code, _, number = exit_code.partition(":")
    if short == "FAILED" and number == _NO_START:
        words = "it could not be started: are there directories for all of its files?"
    elif short == "FAILED" and number not in {"", "0"}:
        words += f", ended by signal {number}"
    elif short == "FAILED" and code:
        words += f" with exit code {code}"
    return f"{words} ({short})"


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return f"user {uid}"


def _language() -> Mapping[str, str]:
    """The user's language, for sbatch hands its own environment on; its messages have none."""
    return {name: os.environ.get(name, "") for name in ("LC_ALL", "LANG")}
