"""The event log that HTCondor keeps of a job: a file in the job's spool, cheap to read again.

It tells at once, and without asking any server, where a job stands that goes on as it should.  It
comes late over a network filesystem, can be cut off or missing, and what it tells last need not
be the end; so a job whose log tells anything else than to go on waiting is asked for elsewhere.

Sources: the events' numbers in HTCondor's manual ("Job Event Log Codes"), and logs as recorded
in tests/data/htcondor_events.log (release 23.9).
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from production.batch.condor_output import ended_by, ended_with, evicted, held, removed
from production.model import JobHandle, JobState

LOG = "events"  # in the spool
_LONGEST = 1_000_000  # bytes read at a time; what a job's log has in all is a few thousand

_END = b"\n...\n"
# Number, cluster and process of the job, date and time in one of several forms, what happened.
_HEAD = re.compile(
    r"([0-9]{3}) \(([0-9]{1,18})\.([0-9]{1,9})\.-?[0-9]{1,9}\) \S+ \S+ (.*)", re.ASCII
)
_ENDED = re.compile(
    r"\(([01])\) (?:Abn|N)ormal termination \((?:return value|signal) ([0-9]{1,9})\)"
)
# Used, asked for, given.
_MEMORY = re.compile(r"Memory \(MB\) +: +([0-9]{1,9}) +[0-9]{1,9} +([0-9]{1,9})\b", re.ASCII)
_CODES = re.compile(r"Code ([0-9]{1,9}) Subcode ([0-9]{1,9})", re.ASCII)


@dataclass(frozen=True)
class Event:
    """One entry of a log."""

    number: int
    job: str  # such as 12.3
    lines: tuple[str, ...]  # what happened, and the details


@dataclass(frozen=True)
class Told:
    """What a job's log has told so far."""

    job: str = ""  # its id
    state: JobState | None = None  # None: others must be asked
    why: str = ""  # why it ended or is held
    interruption: str = ""  # what interrupted it; why that was done may follow


NOTHING = Told()


def parse_events(data: bytes) -> tuple[list[Event | None], int]:
    """The complete entries, None for one that makes no sense, and how many bytes they take."""
    end = data.rfind(_END)
    if end < 0:
        return [], 0
    whole = data[: end + 1]
    return [_event(entry) for entry in whole.split(_END[1:])], end + len(_END)


def _event(entry: bytes) -> Event | None:
    lines = [line.strip() for line in entry.decode(errors="replace").splitlines()]
    match = _HEAD.fullmatch(lines[0]) if lines else None
    if match is None:
        return None
    number, cluster, process, what = match.groups()
    job = f"{int(cluster)}.{int(process)}"
    return Event(int(number), job, (what, *filter(None, lines[1:])))


def after(told: Told, event: Event | None) -> Told:
    """What is known when one more entry has been read."""
    if event is None:
        return replace(told, state=None)
    told = replace(told, job=event.job)
    details = event.lines[1:]
    match event.number:
        case 0:  # submitted
            return replace(told, state=JobState.PENDING)
        case 1:  # executing
            return replace(told, state=JobState.RUNNING, why="", interruption="")
        case 10 | 11 | 22 | 23:  # (un)suspended, disconnected, reconnected
            return replace(told, state=JobState.RUNNING)
        case 12:  # held
            return replace(told, state=JobState.HELD, why=_held(details))
        case 13:  # released
            return replace(told, state=JobState.PENDING)
        case 2 | 4 | 7 | 24:  # not executable, evicted, lost by its shadow or by its node
            return replace(told, state=None, interruption=_interrupted(event))
        case 5:  # terminated
            return replace(told, state=None, why=_terminated(details))
        case 9:  # aborted
            before = told.why or told.interruption
            return replace(told, state=None, why=removed(" ".join(details), before))
    return told


def _held(details: Sequence[str]) -> str:
    codes = next(filter(None, map(_CODES.fullmatch, details)), None)
    reason = " ".join(line for line in details if not _CODES.fullmatch(line))
    return held(int(codes[1]) if codes else 0, reason)


def _interrupted(event: Event) -> str:
    if event.number != 4:
        return f"interrupted: {' '.join(event.lines)[:200]}"
    memory = next(filter(None, map(_MEMORY.match, event.lines)), None)
    if memory and int(memory[1]) > int(memory[2]):
        return evicted(f"it used {memory[1]} MB of memory and had {memory[2]} MB")
    return evicted()


def _terminated(details: Sequence[str]) -> str:
    match = _ENDED.match(details[0]) if details else None
    if match is None:
        return ""
    return ended_with(int(match[2])) if match[1] == "1" else ended_by(int(match[2]))


@dataclass
class _Followed:
    file: int = 0  # inode
    offset: int = 0  # how far it has been read
    told: Told = NOTHING


class EventLogs:
    """The logs of many jobs, of which only what is new is read."""

    def __init__(self) -> None:
        self._followed: dict[str, _Followed] = {}  # by job name

    def keep(self, names: Collection[str]) -> None:
        """Forget the other jobs."""
        self._followed = {name: log for name, log in self._followed.items() if name in names}

    def read(self, job: JobHandle, *, now: bool = False) -> Told:
        """What the job's log tells.

        ``now``: not what a network filesystem remembers of the file, which is cheaper.
        """
        followed = self._followed.setdefault(job.name, _Followed())
        path = f"{job.spool}/{LOG}"
        try:
            if now:
                with open(path, "rb") as log:  # noqa: PTH123 - of thousands, each time
                    found = os.fstat(log.fileno())
            else:
                found = os.stat(path)  # noqa: PTH116
        except OSError:  # not there yet, another user's, or out of reach
            return NOTHING
        if found.st_ino != followed.file or found.st_size < followed.offset:
            followed.file, followed.offset, followed.told = found.st_ino, 0, NOTHING
        if found.st_size > followed.offset:
            for event in self._new(path, followed):
                followed.told = after(followed.told, event)
        return followed.told

    def _new(self, path: str, followed: _Followed) -> Iterator[Event | None]:
        with contextlib.suppress(OSError), open(path, "rb") as log:  # noqa: PTH123
            log.seek(followed.offset)
            data = log.read(_LONGEST)
            events, length = parse_events(data)
            if not length and len(data) == _LONGEST:
                events, length = [None], len(data)
            followed.offset += length
            yield from events
