"""How LSF's jobs ended: what bjobs -l, bhist -l and bacct -l tell, in words.

Sources: "Termination reasons displayed by bacct, bhist, and bjobs" in the documentation of IBM
Spectrum LSF 10.1, and recorded output of volclava 2.2 (tests/data/lsf_*), which tells no
termination reasons, and calls jobs done that were killed.
"""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from production.commands import Completed
from production.errors import CommandError, CommandTimeout

# Not "it ended well": some releases say so of jobs that were killed.
SEEN_DONE = "the batch system calls it done (DONE), which it may do with killed jobs as well"

_LIMIT = "limit of the batch system"
_TERMINATED: Mapping[str, str] = {
    "TERM_ADMIN": "cancelled by an administrator",
    "TERM_BUCKET_KILL": "cancelled",
    "TERM_CPULIMIT": f"over the CPU time {_LIMIT}",
    "TERM_CWD_NOTEXIST": "its working directory does not exist on the node",
    "TERM_DEADLINE": "its deadline had passed",
    "TERM_EXTERNAL_SIGNAL": "ended by a signal from outside the batch system",
    "TERM_FORCE_ADMIN": "removed by an administrator",
    "TERM_FORCE_OWNER": "removed by its owner",
    "TERM_LOAD": "its node was overloaded",
    "TERM_MEMLIMIT": f"over the memory {_LIMIT}",
    "TERM_ORPHAN_SYSTEM": "the batch system ended it as an orphan",
    "TERM_OWNER": "cancelled by its owner",
    "TERM_PREEMPT": "stopped in favour of another job",
    "TERM_PRE_EXEC_FAIL": "the node's preparation for it failed too often",
    "TERM_PROCESSLIMIT": f"over the process {_LIMIT}",
    "TERM_RC": "its node was taken away by the cloud",
    "TERM_REMOVE_HUNG_JOB": "removed, since its node could not be reached",
    "TERM_REQUEUE_ADMIN": "requeued by an administrator",
    "TERM_REQUEUE_OWNER": "requeued by its owner",
    "TERM_RUNLIMIT": f"over the time {_LIMIT}",
    "TERM_SWAP": f"over the swap space {_LIMIT}",
    "TERM_THREADLIMIT": f"over the thread {_LIMIT}",
    "TERM_WINDOW": "the queue's time window closed",
    "TERM_ZOMBIE": "it ended while the batch system was not available",
}
# What LSF sends first: for bkill, and at the run limit.
_CUSTOMARY: Mapping[int, str] = {
    signal.SIGINT: "as bkill does it",
    signal.SIGUSR2: "as the batch system does it at the time limit",
}

_PATIENCE = 20.0  # seconds for all commands together; bhist and bacct read the files of days
_TOGETHER = 100  # jobs that one command is asked about
_COMMANDS = (("bjobs", "-a", "-l"), ("bhist", "-l"), ("bacct", "-l"))

_WRAPPED = re.compile(r"\n {21}")
_HEADER = re.compile(r"^Job <([0-9]{1,18}(?:\[[0-9]{1,9}\])?)>,", re.MULTILINE | re.ASCII)
_EVENT = re.compile(
    r"^[A-Z][a-z]{2} [A-Z][a-z]{2} [ 0-9]?[0-9] [0-9:]{8}(?: [0-9]{4})?: (.*)",
    re.MULTILINE | re.ASCII,
)
_TERM = re.compile(r"\b(TERM_[A-Z_]{2,40})(?:: ?([^.;]{1,200}))?", re.ASCII)
_KILLED = re.compile(r"Signal <\w+> requested by user or administrator <([^<>]{1,64})>", re.ASCII)
_CODE = re.compile(r"Exited with exit code ([0-9]{1,5})", re.ASCII)
_SIGNAL = re.compile(r"Exited by signal ([0-9]{1,3})", re.ASCII)


@dataclass(frozen=True)
class End:
    """How a job ended, as far as one command tells it."""

    reason: str = ""  # who or what ended it
    exit: str = ""  # its exit code or signal
    done: bool = False

    def in_words(self) -> str:
        """Empty when nothing is known."""
        if self.reason:
            return f"{self.reason}, {self.exit}" if self.exit else self.reason
        return self.exit or (SEEN_DONE if self.done else "")


def reasons(
    ids: Collection[str], run: Callable[[Sequence[str], float], Completed]
) -> dict[str, str]:
    """How these jobs ended, in words, by id, as far as LSF tells it within a moment.

    ``run`` runs one command with a time-out in seconds.  Never raises.
    """
    ends: dict[str, End] = {}
    deadline = time.monotonic() + _PATIENCE
    for command in _COMMANDS:
        # All of them are asked for a reason; few systems have all of them.
        unclear = sorted(id_ for id_ in ids if id_ not in ends or not ends[id_].reason)
        for start in range(0, len(unclear), _TOGETHER):
            left = deadline - time.monotonic()
            if left <= 0:
                break
            try:
                answer = run([*command, *unclear[start : start + _TOGETHER]], left)
            except CommandTimeout:
                break
            except CommandError:
                continue
            for id_, end in parse_long(answer.stdout).items():
                if end.reason or id_ not in ends:
                    ends[id_] = end
    return {id_: ends[id_].in_words() for id_ in ids if id_ in ends and ends[id_].in_words()}


def parse_long(text: str) -> dict[str, End]:
    """How the jobs ended of which a command told at length, by id; others are left out."""
    # Lines are cut at 80 columns, also within words.
    text = _WRAPPED.sub("", text)
    headers = list(_HEADER.finditer(text))
    ends = {}
    for number, header in enumerate(headers):
        stop = headers[number + 1].start() if number + 1 < len(headers) else len(text)
        # Events alone: a job's own command may hold anything.
        events = "\n".join(_EVENT.findall(text, header.end(), stop))
        end = _end(events)
        if end != End():
            ends[header[1]] = end
    return ends


def _end(events: str) -> End:
    reason = exit_ = ""
    if term := _TERM.search(events):
        words = _TERMINATED.get(term[1]) or (term[2] or "ended by the batch system").strip()
        reason = f"{words} ({term[1]})"
    elif killed := _KILLED.search(events):
        reason = f"cancelled by {killed[1]}"
    if code := _CODE.search(events):
        exit_ = in_words(int(code[1]))
    elif ended := _SIGNAL.search(events):
        exit_ = in_words(128 + int(ended[1]))
    if reason:
        exit_ = exit_.partition(", ")[0]
    return End(reason, exit_, "Done successfully" in events)


def in_words(code: int) -> str:
    """An exit code, which above 128 means a signal."""
    if code <= 128:
        return f"ended with exit code {code}"
    number = code - 128
    try:
        words = f"ended by signal {number} ({signal.Signals(number).name})"
    except ValueError:
        return f"ended with exit code {code}"
    customary = _CUSTOMARY.get(number)
    return f"{words}, {customary}" if customary else words
