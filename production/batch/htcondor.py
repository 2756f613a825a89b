"""HTCondor: condor_submit, condor_q, condor_rm, condor_qedit, condor_history, and event logs.

Sources: the manual of release 23.9 (condor_submit(1) and the other commands, "Job ClassAd
Attributes", "Codes and Other Needed Values"), and what these commands printed as recorded in
tests/data/htcondor_*.
"""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from production import commands
from production.batch.base import WRAPPER, BatchSystem
from production.batch.cluster import ClusterSystem, Listed, Site, chunks, lines_of, read_site
from production.batch.condor_events import LOG, EventLogs, Told
from production.batch.condor_output import (
    ARRAY,
    ATTRIBUTES,
    JOB,
    NAME,
    parse_accepted,
    parse_history,
    parse_queue,
)
from production.batch.together import Together, start_command
from production.errors import (
    CommandError,
    ConfigurationError,
    SubmissionRefused,
    UsageError,
)
from production.model import JobHandle, JobState, Requirements

# Lines of a submit description after which jobs would get lost, be started again, or not be ours.
_OURS = "the manager says what is run, and where its log is"
_ONCE = "a job is started once; a new attempt is the manager's decision"
_FORBIDDEN: Mapping[str, str] = {
    **dict.fromkeys(("executable", "arguments", "args", "universe", "queue"), _OURS),
    **dict.fromkeys(("log", "log_xml"), _OURS),
    **dict.fromkeys(("max_retries", "retry_until", "success_exit_code", "on_exit_remove"), _ONCE),
    **dict.fromkeys(("max_materialize", "max_idle"), "all jobs must be there when it has answered"),
    "noop_job": "its jobs would not run",
    "+productionjob": "the manager finds its jobs by it",
    "+productionarray": "the manager finds its jobs by it",
}
_LINE = re.compile(r"\s*((?:\+|MY\.)?[A-Za-z_][A-Za-z0-9_.]*)\s*=(?!.*\\$).*", re.ASCII)

# What differs from site to site; attributes of CERN's pools, which others do not look at.
_SITE_WORDS: Mapping[str, str] = {
    "name": "",  # of the schedd
    "pool": "",  # of its central manager
    "queue_attribute": "JobFlavour",
    "time_attribute": "MaxRuntime",
    "event_log": "yes",
}

_MARGIN = 60  # seconds beyond a job's limit in which the wrapper, which knows it, is to be first
_CONFIRM = 300.0  # seconds after which what the event logs tell is asked of the server again
_LOG_LAG = 60.0  # seconds that a log may lag behind the server on a network filesystem
_HISTORY_PATIENCE = 20.0  # seconds; the history is searched backwards from its end
_HISTORY_DEPTH = 20_000  # jobs

_ID = re.compile(r"[0-9]{1,18}\.[0-9]{1,9}", re.ASCII)
# What condor_rm and condor_qedit say of jobs that have ended or started in the meantime.
_NOT_THERE = re.compile(r"Job \S+ not found|Couldn't find/remove all jobs in cluster \S+")
_NOT_SET = re.compile(r"Failed to set attribute .*|Queue transaction failed\. .*")


def open_system(options: Mapping[str, object]) -> BatchSystem:
    """HTCondor, with the options of [batch.htcondor]; raises ConfigurationError."""
    site = read_site(NAME, options, _SITE_WORDS)
    if (word := site.words["event_log"]) not in {"yes", "no"}:
        what = f'event_log must be "yes" or "no", not {word!r}'
        raise ConfigurationError(where=f"[batch.{NAME}]", what=what)
    return HTCondorSystem(site)


class HTCondorSystem(ClusterSystem):
    """The batch system ``htcondor``; an array is a cluster, whose processes count from 0."""

    name = NAME
    largest_array = 5000  # of at most 20000 (SUBMIT_MAX_PROCS_IN_CLUSTER)
    forbidden = _FORBIDDEN

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._logs = EventLogs()
        self._asked = -math.inf  # when the server last told of all jobs
        self._doubted: dict[str, float] = {}  # by job name: since when only its log knows it
        self._running: Collection[str] = ()  # the jobs that do as far as the server last told

    # ----------------------------------------------------------------- submit

    def check(self, needs: Requirements) -> None:
        """See BatchSystem; an option is a line of the submit description."""
        for line in (*self._site.options, *needs.options):
            match = _LINE.fullmatch(line)
            if match is None:
                what = f"Option {line!r} for {self.name} must be a line such as 'priority = 5'"
                raise UsageError(text=what)
            if why := self.forbidden.get(match[1].lower().replace("my.", "+")):
                what = f"Option {line!r} for {self.name} cannot be used: {why}"
                raise UsageError(text=what)

    def command(self, jobs: Together) -> list[str]:  # noqa: ARG002 - all is in the input
        """See ClusterSystem."""
        return [*self._tool("condor_submit"), "-terse", "-"]

    def input(self, jobs: Together) -> str:
        """The submit description; raises SubmissionRefused.

        The user's lines come after those that may be replaced, and before those that must hold.
        """
        needs, words = self.needs(jobs), self._site.words
        lines = [
            "getenv = True",
            f"environment = {_language()}",
            f"batch_name = {_literal(jobs.name)}",
        ]
        lines += ["should_transfer_files = NO", "initialdir = /", f"request_cpus = {needs.cores}"]
        if needs.memory is not None:
            lines.append(f"request_memory = {math.ceil(needs.memory / 2**20)}")  # MB
        if needs.time is not None:
            seconds = needs.time + _MARGIN
            # Not allowed_execute_duration, which has no effect on a job that starts in the same
            # second as its shadow.
            lines.append(f"allowed_job_duration = {seconds}")
            lines.append(f"+{words['time_attribute']} = {seconds}")
        if needs.queue is not None:
            lines.append(f"+{words['queue_attribute']} = {_text(needs.queue)}")
        if needs.project is not None:
            lines.append(f"accounting_group = {_literal(needs.project)}")
        # Between SIGTERM and SIGKILL, so that the wrapper can clear up and leave its record.
        lines += ["job_max_vacate_time = 30", "want_graceful_removal = True"]
        lines += needs.options
        # Without the next two HTCondor would start an attempt again that had been interrupted.
        started = "(NumJobStarts ?: 0) > 0"
        lines.append(f"requirements = ($(requirements:True)) && !({started})")
        idle_or_held = "(JobStatus == 1 || JobStatus == 5)"
        lines.append(f"periodic_remove = ($(periodic_remove:False)) || {started} && {idle_or_held}")
        lines += ["on_exit_remove = True", "universe = vanilla"]
        lines += ["executable = /bin/bash", "transfer_executable = False"]
        lines.append(f"+{JOB} = {_text(jobs.name)}")
        if jobs.is_array:
            lines.append(f"+{ARRAY} = True")
        argv = " ".join(map(_word, ("-c", start_command('"$0"'), str(WRAPPER))))
        lines.append(f'arguments = "{argv} $(files_$(ProcId))"')
        if words["event_log"] == "yes":
            lines.append(f"log = $(spool_$(ProcId))/{LOG}")
        for number, job in enumerate(jobs.jobs):
            lines.append(f"spool_{number} = {self._path(job.spool)}")
            files = map(self._path, (job.spool, job.stdout, job.stderr))
            lines.append(f"files_{number} = {' '.join(map(_quoted, files))}")
        return "\n".join([*lines, f"queue {len(jobs.jobs)}", ""])

    def _path(self, path: Path) -> str:
        """A path in a submit description; raises SubmissionRefused."""
        text = str(path)
        if "$$" in text or "\n" in text:  # it would put attributes of the node in place of $$
            what = f"its submit descriptions cannot hold the path {text!r}"
            raise SubmissionRefused(system=self.name, what=what)
        return _literal(text)

    def accepted(self, answer: commands.Completed) -> str:
        """See ClusterSystem."""
        return parse_accepted(answer)

    def element(self, job: str, index: int) -> str:
        """See ClusterSystem."""
        return f"{job.partition('.')[0]}.{index - 1}"

    def is_id(self, text: str) -> bool:
        """See ClusterSystem."""
        return _ID.fullmatch(text) is not None

    # ----------------------------------------------------------------- watch

    def poll(self, jobs: Sequence[JobHandle]) -> dict[str, JobState]:
        """See BatchSystem; the server is asked when not all logs tell that jobs go on.

        And from time to time in any case.
        """
        self._logs.keep({job.name for job in jobs})
        self._doubted = {j.name: self._doubted[j.name] for j in jobs if j.name in self._doubted}
        states = {job.name: _told(job, self._logs.read(job)) for job in jobs}
        now = time.monotonic()
        if now - self._asked < _CONFIRM and not self._doubted and all(states.values()):
            return {name: state for name, state in states.items() if state is not None}
        found = super().poll(jobs)
        self._asked = now
        self._running = {name for name, state in found.items() if state is JobState.RUNNING}
        for name, state in found.items():
            if state in (JobState.PENDING, JobState.RUNNING):
                self._why.pop(name, None)  # a hold that is over is no reason
        return found

    def _find(self, jobs: Sequence[JobHandle]) -> dict[str, Listed]:
        """See ClusterSystem; what only the server no longer knows is not gone yet.

        No jobs and no answer look the same, so a job's log must have had the time to agree.
        """
        found = super()._find(jobs)
        now = time.monotonic()
        for job in jobs:
            since = self._doubted.pop(job.name, now)
            if job.name in found:
                continue
            log = self._logs.read(job, now=True)
            state = _told(job, log)
            if state is not None:
                self._doubted[job.name] = since
            if state is not None and now - since < _LOG_LAG:
                found[job.name] = Listed(log.job, self._look_up(job).place, state, log.why)
        return found

    def reason_of(self, jobs: Sequence[JobHandle]) -> dict[str, str | None]:
        """See BatchSystem; what the logs do not tell, the queue and the history do.

        The logs are read once more, for they are ahead of the queue: a job that it has as waiting
        again was interrupted, as its log tells.  One that is held while it runs is interrupted
        first, and its log tells why a moment later.
        """
        logs = {job.name: self._logs.read(job, now=True) for job in jobs}
        ends = {name: log.why for name, log in logs.items() if log.why}
        others = super().reason_of([job for job in jobs if job.name not in ends])
        interrupted = {
            name: log.interruption
            for name, log in logs.items()
            if log.interruption and name not in self._running
        }
        return {**interrupted, **others, **ends}

    def listed(self, ids: Collection[str], names: Collection[str]) -> list[Listed]:
        """See ClusterSystem: the jobs of all managers, in the range of the ids that are known."""
        constraint = f"{JOB} isnt undefined"
        if ids and not names:
            clusters = [int(id_.partition(".")[0]) for id_ in ids]
            constraint += f" && ClusterId >= {min(clusters)} && ClusterId <= {max(clusters)}"
        queue = self._site.words["queue_attribute"]
        argv = [*self._tool("condor_q"), "-allusers", "-json", "-attributes"]
        argv += [",".join((*ATTRIBUTES, queue)), "-constraint", constraint]
        return parse_queue(commands.run(argv).stdout, queue)

    def delete(self, ids: Sequence[str]) -> None:
        """See ClusterSystem."""
        _run_for_any([*self._tool("condor_rm"), *ids], _NOT_THERE)

    def send(self, ids: Sequence[str], queue: str) -> None:
        """See ClusterSystem."""
        clusters: dict[str, list[str]] = {}
        for id_ in ids:
            cluster, _, process = id_.partition(".")
            clusters.setdefault(cluster, []).append(process)
        chosen = " || ".join(
            f"ClusterId == {cluster} && member(ProcId, {{{','.join(processes)}}})"
            for cluster, processes in clusters.items()
        )
        argv = [*self._tool("condor_qedit"), "-constraint", f"({chosen}) && JobStatus != 2"]
        argv += [self._site.words["queue_attribute"], _text(queue)]
        _run_for_any(argv, _NOT_SET)

    def reasons(self, ids: Collection[str]) -> dict[str, str]:
        """See ClusterSystem."""
        told: dict[str, str] = {}
        deadline = time.monotonic() + _HISTORY_PATIENCE
        for some in chunks(ids, 500):
            argv = [*self._tool("condor_history"), "-json", "-attributes", ",".join(ATTRIBUTES)]
            argv += ["-scanlimit", str(_HISTORY_DEPTH), "-limit", str(len(some)), *some]
            left = max(deadline - time.monotonic(), 0.1)
            told.update(parse_history(commands.run(argv, timeout=left).stdout))
        return told

    def _tool(self, command: str) -> list[str]:
        words = self._site.words
        options = [(f"-{name}", words[name]) for name in ("pool", "name") if words[name]]
        return [command, *(word for option in options for word in option)]


def _run_for_any(argv: list[str], harmless: re.Pattern[str]) -> None:
    """A command that also fails when only some jobs, or none, are left for it."""
    answer = commands.run(argv, accept=range(256))
    lines = lines_of(answer.stderr)
    if answer.code and not (lines and all(map(harmless.fullmatch, lines))):
        what = "; ".join(lines) or f"exit code {answer.code} without a reason"
        raise CommandError(command=argv[0], what=what)


# ---------------------------------------------------------------------- what a job is described by


def _language() -> str:
    """The user's language for the job: the command itself is run in the C locale."""
    values = {name: os.environ.get(name, "") for name in ("LC_ALL", "LANG")}
    assignments = (f"{name}={_quoted(_literal(value))}" for name, value in values.items())
    return f'"{" ".join(assignments)}"'


def _word(text: str) -> str:
    """A word of a command line in double quotes."""
    return _quoted(_literal(text))


def _quoted(text: str) -> str:
    doubled = text.replace("'", "''").replace('"', '""')
    return f"'{doubled}'"


def _text(text: str) -> str:
    """A text as value of an attribute."""
    return json.dumps(_literal(text), ensure_ascii=False)


def _literal(text: str) -> str:
    """The same text where $ stands for macros."""
    return text.replace("$", "$(DOLLAR)")


def _told(job: JobHandle, log: Told) -> JobState | None:
    """What a job's log tells for certain."""
    return log.state if job.id is None or job.id == log.job else None
