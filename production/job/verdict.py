"""How an attempt ended, in words that a physicist understands."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Mapping
from pathlib import Path

from production.model import JobRecord, Verdict

# What the wrapper itself exits with; sge_scripts/job.sh, which writes the reason as well.
WRAPPER_EXIT_CODES: Mapping[int, str] = {
    90: "the orders cannot be read",
    91: "the attempt was started or revoked before",
    92: "the environment script failed",
    93: "the job script cannot be read",
    94: "an output exists already",
    95: "an output was not written",
    96: "the filesystem refused",
    97: "over the time limit",
    98: "the manager had given the attempt up",
    99: "over the memory limit",
}

_CRASH = "the program crashed"
_OUTSIDE = "ended from outside (cancelled, or over a limit of the batch system)"
_SIGNALS: Mapping[str, str] = {
    "SIGSEGV": _CRASH,
    "SIGBUS": _CRASH,
    "SIGILL": _CRASH,
    "SIGFPE": _CRASH,
    "SIGABRT": "the program gave up (abort)",
    "SIGKILL": "killed from outside, often for want of memory",
    "SIGTERM": _OUTSIDE,
    "SIGINT": _OUTSIDE,
    "SIGHUP": _OUTSIDE,
    "SIGQUIT": _OUTSIDE,
    "SIGUSR1": _OUTSIDE,
    "SIGUSR2": _OUTSIDE,
    "SIGXCPU": "over the limit of CPU time",
    "SIGXFSZ": "a file became larger than allowed",
    "SIGPIPE": "a program that it wrote to was gone",
}

_FROM_OUTSIDE = frozenset(
    (signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGXCPU, signal.SIGUSR1, signal.SIGUSR2)
)

_TAIL = 65536  # bytes of a log in which its last line is looked for
_LONGEST = 200  # characters of it that are shown
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


def was_ended_from_outside(record: JobRecord) -> bool:
    """Whether the batch system may know better why a job ended than the job itself."""
    return record.signal in _FROM_OUTSIDE and record.exit_code not in WRAPPER_EXIT_CODES


def judge(record: JobRecord, exit_codes: Mapping[int, str], elog: Path, why: str = "") -> Verdict:
    """How the attempt ended that left ``record``.

    ``exit_codes``: the recipe's words for the payload's own.  ``why``: what the batch system says
    of its end.  Where nobody gave a reason, the last line of the error log ``elog`` has to do.
    """
    if record.phase == "done" and record.exit_code == 0:
        return Verdict(ok=True, exit_code=0, record=record)
    reason, spoken = _reason(record, exit_codes)
    if why and was_ended_from_outside(record):
        reason, spoken = f"{reason}; the batch system says: {why}", True
    if not spoken:
        reason += _last_words(elog)
    return Verdict(ok=False, reason=reason, exit_code=record.exit_code, record=record)


def lost(elog: Path, why: str = "") -> Verdict:
    """For a job that is gone and left no record; ``why``: what the batch system says of it."""
    if why:
        reason = f"the job left no exit record; the batch system says: {why}"
    else:
        reason = "the job vanished without an exit record (killed, or its node failed)"
    return Verdict(ok=False, reason=reason + _last_words(elog))


def last_line(log: Path) -> str:
    """The last line of a log with something on it, fit for a table; "" when there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
            tail = file.read(_TAIL)
    except OSError:
        return ""
    for line in reversed(re.split(rb"[\n\r]", tail)):
        text = _CONTROL.sub(" ", _ESCAPES.sub("", line.decode(errors="replace"))).strip()
        if text:
            return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
    return ""


def _reason(record: JobRecord, exit_codes: Mapping[int, str]) -> tuple[str, bool]:
    """The reason, and whether it explains itself."""
    code = record.exit_code
    if record.reason and code in WRAPPER_EXIT_CODES:
        return record.reason, True
    if record.reason:
        return f"exit code {code}: {record.reason}", True
    if record.signal is not None:
        name = _signal_name(record.signal)
        words = _SIGNALS.get(name)
        return (f"killed by {name}: {words}" if words else f"killed by {name}"), False
    if code in exit_codes:
        return f"exit code {code}: {exit_codes[code]}", True
    return f"exit code {code}", False


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _last_words(elog: Path) -> str:
    line = last_line(elog)
    return f"; last line of its log: {line}" if line else ""
