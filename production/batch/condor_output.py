"""What HTCondor's commands say, and how its jobs end, in words for users.

Sources: the manual of release 23.9 ("Job ClassAd Attributes", "Codes and Other Needed Values"),
and the commands' output as recorded in tests/data/htcondor_*.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from production import commands
from production.batch.cluster import Listed, lines_of
from production.batch.together import Place
from production.errors import BatchError, QueryFailed, SubmissionRefused
from production.model import JobState

NAME = "htcondor"

# Attributes of our own: the name of jobs that were submitted together, and whether it is an array.
JOB, ARRAY = "ProductionJob", "ProductionArray"
ATTRIBUTES = (
    *("ClusterId", "ProcId", "JobStatus", JOB, ARRAY, "NumJobStarts"),
    *("HoldReason", "HoldReasonCode", "LastHoldReason", "LastHoldReasonCode", "VacateReason"),
    *("RemoveReason", "ExitBySignal", "ExitCode", "ExitSignal"),
)
_STATES: Mapping[int, JobState] = {
    1: JobState.PENDING,  # idle
    2: JobState.RUNNING,
    3: JobState.RUNNING,  # about to be removed: it is still being ended
    4: JobState.GONE,  # completed
    5: JobState.HELD,
    6: JobState.RUNNING,  # transferring output
    7: JobState.RUNNING,  # suspended
}

# Why a job is held, by HoldReasonCode, where the system's own words may need some more.
_HOLDS: Mapping[int, str] = {
    6: "it could not be started",
    7: "its output could not be opened",
    14: "its directory could not be entered",
    21: "by a rule of its node",
    22: "its event log could not be opened",
    26: "by a rule of the batch system",
    34: "over the memory or disk limit of the batch system",
    46: "over the time limit of the batch system",
    47: "over the time limit of the batch system",
}

_ACCEPTED = re.compile(r"([0-9]{1,18})\.0 - \1\.[0-9]{1,9}", re.ASCII)
# In what condor_submit says when the server did not answer, or has too many jobs already.
_UNANSWERED = re.compile(
    r"connect|find address|authenticat|secman|timed? ?out|communicat|no record|"
    r"would exceed max_jobs_(submitted|per_owner)",
    re.IGNORECASE,
)
# What it says besides, when the connection broke as well as when the server objects.
_NO_REASON = re.compile(r"Failed to (commit|queue|create|set|submit)|Failed submission")


def parse_accepted(answer: commands.Completed) -> str:
    """The id of the first job that ``condor_submit -terse`` printed.

    Raises SubmissionRefused when HTCondor will not have the jobs, BatchError when the answer
    leaves open whether it has them.
    """
    if answer.code == 0:
        last = lines_of(answer.stdout)[-1:]
        match = _ACCEPTED.fullmatch(last[0]) if last else None
        if match is None:
            what = f"condor_submit did not tell the jobs' ids, but {answer.stdout[:100]!r}"
            raise BatchError(system=NAME, what=what)
        return f"{match[1]}.0"
    said = [line for line in lines_of(answer.stderr) if not line.startswith("WARNING")]
    lines = [line.removeprefix("ERROR: ") for line in said]
    what = "; ".join(lines) or f"exit code {answer.code} without a reason"
    reasons = [line for line in lines if not _NO_REASON.match(line)]
    if not reasons or "ERROR" not in answer.stderr or _UNANSWERED.search(what):
        raise BatchError(system=NAME, what=f"condor_submit: {what}")
    raise SubmissionRefused(system=NAME, what="; ".join(reasons))


def parse_queue(text: str, queue_attribute: str) -> list[Listed]:
    """The jobs that ``condor_q -json`` printed; raises QueryFailed when it is no whole answer."""
    try:
        return [_listed(ad, queue_attribute) for ad in _ads(text)]
    except ValueError as error:
        what = f"condor_q printed {text[:100]!r} ({error})"
        raise QueryFailed(system=NAME, what=what) from None


def _listed(ad: Mapping[str, object], queue_attribute: str) -> Listed:
    process, status = _number(ad, "ProcId"), _number(ad, "JobStatus")
    if status not in _STATES:
        raise ValueError(f"JobStatus {status}")
    state = _STATES[status]
    why = ""
    if state is JobState.HELD:
        why = held(_number(ad, "HoldReasonCode", 0), _words(ad, "HoldReason"))
    elif state is JobState.GONE:
        why = in_words(ad)
    index = process + 1 if ARRAY in ad else None
    place = Place(_words(ad, JOB), index)
    return Listed(_id(ad), place, state, why, _words(ad, queue_attribute))


def parse_history(text: str) -> dict[str, str]:
    """How the jobs ended that ``condor_history -json`` printed, in words, by id."""
    try:
        ended = {_id(ad): in_words(ad) for ad in _ads(text)}
    except ValueError:  # there may be no history, and then messages
        return {}
    return {id_: why for id_, why in ended.items() if why}


def in_words(ad: Mapping[str, object]) -> str:
    """How a job ended whose attributes these are; empty when they do not tell."""
    if reason := _words(ad, "RemoveReason"):
        before = ""
        if hold := _words(ad, "LastHoldReason"):
            before = held(_number(ad, "LastHoldReasonCode", 0), hold)
        elif "VacateReason" in ad:
            before = evicted(_words(ad, "VacateReason"))
        return removed(reason, before)
    if ad.get("ExitBySignal") is True and "ExitSignal" in ad:
        return ended_by(_number(ad, "ExitSignal"))
    return ended_with(_number(ad, "ExitCode")) if "ExitCode" in ad else ""


def _ads(text: str) -> list[Mapping[str, object]]:
    """Jobs as their attributes; nothing at all is printed when there is none."""
    try:
        ads = json.loads(text) if text.strip() else []
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(ads, list) or not all(isinstance(ad, dict) for ad in ads):
        raise ValueError("it is not a list of jobs")
    return ads


def _id(ad: Mapping[str, object]) -> str:
    return f"{_number(ad, 'ClusterId')}.{_number(ad, 'ProcId')}"


def _number(ad: Mapping[str, object], name: str, default: int | None = None) -> int:
    value = ad.get(name, default)
    if type(value) is not int or not 0 <= value < 10**18:
        raise ValueError(f"{name} is {str(value)[:40]}")
    return value


def _words(ad: Mapping[str, object], name: str) -> str:
    value = ad.get(name, "")
    text = value if isinstance(value, str) else ""
    return " ".join(text.encode(errors="replace").decode().split())


def held(code: int, reason: str) -> str:
    """Why a job is held, in words for users; ``code``: HTCondor's HoldReasonCode."""
    return ": ".join(filter(None, ("held", _HOLDS.get(code), reason)))


def evicted(reason: str = "") -> str:
    """How a job was interrupted that its node no longer wanted, or was to give up."""
    return ": ".join(filter(None, ("evicted from its node", reason)))


def removed(reason: str, before: str = "") -> str:
    """Why a job was removed from the queue; ``before``: why it was held or interrupted earlier.

    A job that was interrupted is removed because we have it so, which is no reason.
    """
    if before and "PeriodicRemove" in reason:
        return before
    if reason.startswith("via "):  # a command
        return f"removed {reason}"
    return ": ".join(filter(None, ("removed", reason)))


def ended_with(code: int) -> str:
    """How a job ended that ended by itself."""
    return f"ended with exit code {code}"


def ended_by(number: int) -> str:
    """How a job ended that a signal ended."""
    return f"ended by signal {number}"
