"""Who holds the lock on the shared file, as far as this host can know.

The kernel lists the locks of its own processes, also those on a network filesystem; a lock that is
held on another host is not among them.  Sources: proc_locks(5); where in the file SQLite puts its
locks, sqlite.org/src (os.h, PENDING_BYTE).
"""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Iterator
from pathlib import Path

LOCK_PAGE = range(0x4000_0000, 0x4000_0000 + 512)  # SQLite's bytes for locks
_LINE = re.compile(
    r"\d+: (?:-> )?(?:POSIX|OFDLCK)\s+\w+\s+WRITE (-?\d+) "
    r"[0-9a-f]+:[0-9a-f]+:(\d+) (\d+) (\d+|EOF)",
    re.ASCII,
)


def lock_holder(path: Path) -> str:
    """In words: which process, whose; never fails."""
    try:
        inode = path.stat().st_ino
        pids = set(writers(Path("/proc/locks").read_text(), inode)) - {os.getpid()}
    except OSError:
        pids = set()
    found = [words for pid in sorted(pids) if (words := _describe(pid))]
    return " and ".join(found) or "a session on another host, or one that cannot be seen from here"


def writers(text: str, inode: int) -> Iterator[int]:
    """The processes that hold SQLite's write lock on the file, from the text of /proc/locks.

    The file's device is left out: on some filesystems it is another one there than in stat(2).
    """
    for line in text.splitlines():
        match = _LINE.match(line)
        # An arrow marks those that wait.
        if match and "->" not in line and int(match[2]) == inode and int(match[3]) in LOCK_PAGE:
            yield int(match[1])


def _describe(pid: int) -> str:
    try:
        name = Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
        uid = Path(f"/proc/{pid}").stat().st_uid
    except OSError:
        return ""
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = f"user {uid}"
    return f"process {pid} ({name}) of {user} on this host"
