"""LSF 10.1 and its relatives (OpenLava, volclava): bsub, bjobs, bkill, bswitch.

Sources: the command reference and the lsf.conf reference of IBM Spectrum LSF 10.1, the manual
pages of volclava 2.2, and what its commands printed as recorded in tests/data/lsf_*.  How jobs
ended is told by production/batch/lsf_history.py.
"""

from __future__ import annotations

import math
import os
import re
import shlex
from collections.abc import Collection, Mapping, Sequence

from production import commands
from production.batch import lsf_history
from production.batch.base import BatchSystem
from production.batch.cluster import ClusterSystem, Listed, Site, chunks, lines_of, read_site
from production.batch.lsf_output import FORMS, ID, NOT_FOUND, SYSTEM, Form, number, parse_bjobs
from production.batch.together import Place, Together
from production.errors import (
    BatchError,
    CommandError,
    ConfigurationError,
    QueryFailed,
    SubmissionRefused,
)
from production.model import JobState

# Options of bsub after which the manager would not find its jobs again, or wait for ever.
_FORBIDDEN: Mapping[str, str] = {
    "-K": "the manager waits itself",
    **dict.fromkeys(("-I", "-Ip", "-Is", "-IS", "-IX"), "jobs have no terminal"),
    **dict.fromkeys(("-pack", "-i", "-is", "-Zs"), "what is submitted is the manager's script"),
    "-J": "the manager finds its jobs by their names",
    "-r": "an attempt that was started is not started again",
}
# What differs from site to site: in which unit bsub takes memory, where lsf.conf says so by
# LSF_UNIT_FOR_LIMITS; and whether it reserves memory for a job or, as with
# RESOURCE_RESERVE_PER_TASK=Y, for each core.
_SITE_WORDS: Mapping[str, str] = {"memory_unit": "", "memory_per": "job"}
_UNITS: Mapping[str, int] = {"KB": 2**10, "MB": 2**20, "GB": 2**30, "TB": 2**40}

# Without it the commands try for ever, when a daemon does not answer or a user has as many
# pending jobs as MAX_PEND_JOBS allows.
VARIABLES: Mapping[str, str] = {"LSB_NTRIES": "1"}
# Settings of the user that change what bsub does and says, and what bjobs shows.
HIDDEN = ("BSUB_", "LSB_BJOBS_")

_ACCEPTED = re.compile(r"^(?:.*\s)?Job <([0-9]{1,18})> is submitted to ", re.MULTILINE | re.ASCII)
_REFUSED = re.compile(
    r"not submitted|request aborted|(illegal|invalid|unknown|unrecognized) option|^usage:",
    re.IGNORECASE | re.MULTILINE,
)
# In what the commands say when no daemon took notice, or not yet, of what it was asked.
_UNANSWERED = re.compile(
    r"not responding|is down|processing your request|tr(y|ying) (later|again)|still trying|"
    r"retrying|threshold reached|library call|timed out|time-?out|internal cutoff|query limit|"
    r"(cannot|can't|could not|failed to|unable to) (connect|contact|open|send|receive|communicate)|"
    r"connection (refused|reset|closed|failed)|sending/receiving|communication|protocol|is busy|"
    r"temporarily",
    re.IGNORECASE,
)
_HARMLESS = re.compile(
    r"is being terminated|No matching job found|has already finished|is not found|^No |"
    r"already (being )?(killed|terminated)",
)

_NO_ARRAY = (
    "the batch system took its array for one single job: set arrays = false, or lower --nproc to "
    "the largest array that it accepts (MAX_JOB_ARRAY_SIZE)"
)


def open_system(options: Mapping[str, object]) -> BatchSystem:
    """LSF, with the options of [batch.lsf]; raises ConfigurationError."""
    site = read_site(SYSTEM, options, _SITE_WORDS)
    for name, known in (("memory_unit", ("", *_UNITS)), ("memory_per", ("job", "core"))):
        if site.words[name] not in known:
            what = f"{name} must be one of {', '.join(filter(None, known))}"
            raise ConfigurationError(where=f"[batch.{SYSTEM}]", what=what)
    return LsfSystem(site)


class LsfSystem(ClusterSystem):
    """The batch system ``lsf``."""

    name = SYSTEM
    largest_array = 1000  # MAX_JOB_ARRAY_SIZE, unless the site changed it
    index = "$LSB_JOBINDEX"
    forbidden = _FORBIDDEN
    # Not for the accounting: bjobs may show new jobs late (MBD_REFRESH_TIME, NEWJOB_REFRESH).
    accounting_lag = 60.0
    variables = VARIABLES
    hidden = HIDDEN

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._form: Form | None = None  # what this site's bjobs understands, once that is known

    def input(self, jobs: Together) -> str:
        """See ClusterSystem; with the user's language.

        The job gets the environment of bsub, which itself is run in the C locale.
        """
        names = ("LC_ALL", "LANG")
        given = {name: os.environ[name] for name in names if name in os.environ}
        lines = [f"export {name}={shlex.quote(value)}\n" for name, value in given.items()]
        return jobs.script(self.index, "".join((f"unset {' '.join(names)}\n", *lines)))

    def command(self, jobs: Together) -> list[str]:
        """See ClusterSystem; the user's options come after those that may be replaced.

        Not in it are -rn and -cwd, which OpenLava's bsub takes for -r -n and -c wd.  The fence in
        the spool keeps a job from starting twice, and the wrapper works in the spool.
        """
        needs = self.needs(jobs)
        argv = ["bsub", "-o", "/dev/null", "-e", "/dev/null"]
        resources = []
        if needs.cores > 1:
            argv += ["-n", str(needs.cores)]
            resources.append("span[hosts=1]")
        if needs.time is not None:
            argv += ["-W", str(math.ceil(needs.time / 60))]  # minutes
        if needs.memory is not None:
            per_core = self._site.words["memory_per"] == "core"
            share = needs.memory / (needs.cores if per_core else 1)
            argv += ["-M", str(self._amount(needs.memory, "KB"))]
            resources.append(f"rusage[mem={self._amount(share, 'MB')}]")
        if resources:
            argv += ["-R", " ".join(resources)]
        if needs.queue is not None:
            argv += ["-q", needs.queue]
        if needs.project is not None:
            argv += ["-P", needs.project]
        argv += needs.options
        indices = f"[1-{len(jobs.jobs)}]" if jobs.is_array else ""
        return [*argv, "-J", f"{jobs.name}{indices}"]

    def _amount(self, size: float, default: str) -> int:
        """A size in bytes as a number in the site's unit, or in LSF's own for this option."""
        return math.ceil(size / _UNITS[self._site.words["memory_unit"] or default])

    def accepted(self, answer: commands.Completed) -> str:
        """See ClusterSystem."""
        return parse_accepted(answer)

    def element(self, job: str, index: int) -> str:
        """See ClusterSystem."""
        return f"{job}[{index}]"

    def is_id(self, text: str) -> bool:
        """See ClusterSystem."""
        return ID.fullmatch(text) is not None

    def listed(self, ids: Collection[str], names: Collection[str]) -> list[Listed]:
        """See ClusterSystem: our own jobs, and once more by id or name those not among them.

        A job is not there only if bjobs says so: what it returns says nothing.
        """
        rows, _ = self._bjobs()
        missing = set(ids).difference(row.id for row in rows)
        unseen = set(names).difference(row.place.name for row in rows)
        rows += self._asked_for({number(id_) for id_ in missing})
        listed = {row.id for row in rows}
        arrays = {number(id_) for id_ in listed} - listed
        left = {id_ for id_ in missing - listed if number(id_) in arrays}
        rows += self._asked_for(left)
        if unseen:  # with one query; that of one production begin alike
            first = os.path.commonprefix(sorted(unseen))  # noqa: RUF071 - no paths
            pattern = first if unseen == {first} else f"{first}*"
            rows += self._bjobs("-u", "all", "-J", pattern)[0]
        return rows + [
            Listed(id_, Place(""), JobState.GONE, _NO_ARRAY)
            for id_ in missing - listed
            if number(id_) in listed
        ]

    def _asked_for(self, ids: Collection[str]) -> list[Listed]:
        """What there is of certain jobs, whoever submitted them."""
        found = []
        for some in chunks(sorted(ids), 500):
            rows, denied = self._bjobs("-u", "all", *some)
            told = {row.id for row in rows} | {number(row.id) for row in rows} | denied
            if silent := [id_ for id_ in some if id_ not in told]:
                what = f"bjobs did not tell of {', '.join(silent[:5])}"
                raise QueryFailed(system=self.name, what=what)
            found += rows
        return found

    def _bjobs(self, *chosen: str) -> tuple[list[Listed], set[str]]:
        """The chosen jobs, also those that ended a while ago, and those that do not exist.

        Raises QueryFailed, CommandError.
        """
        trouble = QueryFailed(system=self.name, what="bjobs cannot be asked")
        for form in (self._form,) if self._form else FORMS:
            argv = ["bjobs", "-a", *form.options, *chosen]
            answer = run(argv)
            if unanswered := said_no_answer(answer):
                raise QueryFailed(system=self.name, what=f"bjobs: {unanswered}")
            try:
                rows, denied = parse_bjobs(answer, form)
            except QueryFailed as error:
                trouble = error
                continue
            if rows:
                self._form = form
            return rows, denied
        raise trouble

    def delete(self, ids: Sequence[str]) -> None:
        """See ClusterSystem; bkill fails as a whole when any job had ended before."""
        answer = run(["bkill", *ids])
        for line in lines_of(answer.stderr):
            if not _HARMLESS.search(line):
                raise CommandError(command="bkill", what=line)

    def send(self, ids: Sequence[str], queue: str) -> None:
        """See ClusterSystem; some of the jobs may have started meanwhile."""
        answer = run(["bswitch", queue, *ids])
        unanswered = said_no_answer(answer)
        if unanswered or (answer.code and "is switched to queue" not in answer.stdout):
            lines = [unanswered, *lines_of(answer.stderr), f"exit code {answer.code}"]
            raise CommandError(command="bswitch", what=next(filter(None, lines)))

    def reasons(self, ids: Collection[str]) -> dict[str, str]:
        """See ClusterSystem."""
        return lsf_history.reasons(ids, run)


def run(argv: Sequence[str], timeout: float | None = None) -> commands.Completed:
    """Run a command of LSF, whatever it returns; raises CommandError."""
    return commands.run(argv, timeout=timeout, accept=range(256), unset=HIDDEN, variables=VARIABLES)


def said_no_answer(answer: commands.Completed) -> str:
    """The line by which a command tells that the batch system did not answer, or nothing."""
    # Names of jobs stand in denials, and may be anything.
    lines = [line for line in lines_of(answer.stderr) if not NOT_FOUND.search(line)]
    return next((line for line in lines if _UNANSWERED.search(line)), "")


# ---------------------------------------------------------------------- what the commands say


def parse_accepted(answer: commands.Completed) -> str:
    """The id that bsub printed.

    Raises SubmissionRefused when LSF will not have the job, BatchError when the answer leaves open
    whether it has it.
    """
    # Last: a site's own scripts may greet the user before, or submit something.
    if found := _ACCEPTED.findall(answer.stdout):
        return str(found[-1])
    lines = lines_of(answer.stderr) or lines_of(answer.stdout)
    what = "; ".join(lines) or f"bsub ended with exit code {answer.code} and did not say more"
    if not answer.code or not _REFUSED.search(answer.stderr) or said_no_answer(answer):
        raise BatchError(system=SYSTEM, what=what[:1000])
    why = [line for line in lines if _REFUSED.search(line)][:1] or lines
    raise SubmissionRefused(system=SYSTEM, what=why[0].removeprefix("bsub: "))
