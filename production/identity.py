"""Who and where this process is, and whether another process of this host still lives.

A pid alone is no identity: pids are used again, and mean something only within one boot and one
pid namespace.  Source: proc(5), /proc/PID/stat field 22 and /proc/sys/kernel/random/boot_id.
"""

from __future__ import annotations

import os
import pwd
import socket
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Identity:
    """A process for the manager table."""

    user: str
    host: str
    boot: str
    pid: int
    pid_start: int


def current_user() -> str:
    """The account's name; not from $USER, which anybody may set."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def current_boot() -> str:
    """Names the boot and the pid namespace: where a pid means something."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    namespace = Path("/proc/self/ns/pid").stat().st_ino
    return f"{boot}:{namespace}"


def start_ticks(pid: int) -> int | None:
    """When process ``pid`` began, in clock ticks after boot; None when there is none."""
    try:
        # The command, in parentheses, may be any bytes: blanks, parentheses, and a letter that the
        # kernel has cut in two.
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    state, *fields = stat[stat.rindex(")") + 1 :].split()
    return None if state in "ZX" else int(fields[18])


def this_process() -> Identity:
    """The calling process."""
    pid = os.getpid()
    return Identity(
        current_user(), socket.gethostname(), current_boot(), pid, start_ticks(pid) or 0
    )


def is_alive(boot: str | None, pid: int | None, pid_start: int | None) -> bool | None:
    """Whether that process lives; None when it ran elsewhere and cannot be seen from here."""
    if boot is None or pid is None or boot != current_boot():
        return None
    ticks = start_ticks(pid)
    if ticks is None and _is_hidden(pid):
        return None
    return ticks == pid_start


def _is_hidden(pid: int) -> bool:
    """Whether there is such a process of another user that /proc does not show (hidepid)."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return False
