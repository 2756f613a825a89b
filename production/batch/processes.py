"""Processes of this host, as the kernel shows them under /proc (proc(5))."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """A process; the start time tells it from a later one with the same pid."""

    pid: int
    start: int  # clock ticks after boot


@dataclass(frozen=True)
class _Stat:
    state: str
    session: int
    start: int


def running(pid: int) -> Process | None:
    """The process that now has this pid, None when there is none."""
    stat = _stat(pid)
    return Process(pid, stat.start) if stat else None


def is_alive(process: Process) -> bool:
    """Whether the process lives; one that only waits to be reaped does not."""
    stat = _stat(process.pid)
    if stat is not None:
        return stat.start == process.start
    try:
        os.kill(process.pid, 0)
    except PermissionError:
        return True  # another user's, and /proc is mounted with hidepid
    except OSError:
        pass
    return False


def session_members(sessions: Collection[int]) -> dict[int, list[int]]:
    """The living processes of each session that has any, in one pass over /proc."""
    members: dict[int, list[int]] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal():
            pid = int(entry.name)
            if (stat := _stat(pid)) and stat.session in sessions:
                members.setdefault(stat.session, []).append(pid)
    return members


def _stat(pid: int) -> _Stat | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes().decode(errors="replace")
    except OSError:
        return None
    # The command, in parentheses, may hold blanks and parentheses itself.
    fields = text[text.rindex(")") + 1 :].split()
    stat = _Stat(state=fields[0], session=int(fields[3]), start=int(fields[19]))
    return None if stat.state in "ZX" else stat
