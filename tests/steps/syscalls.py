"""Below a manager: kills it at a call of the kernel, or has the call fail, by strace.

This is how SQLite itself meets trouble: in the midst of a COMMIT, at a lock, when it brings its
journal to disk.  Only calls about the database and the files that a manager writes count
(strace(1), options -P and -e inject).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from network.needs import NoFilesystemError, need

TRACE = "trace"  # in the experiment's directory: what strace saw

# The calls in question, and the errors that each can meet on some filesystem.
ERRORS = {
    "openat": ("EIO", "ENOSPC", "EDQUOT", "ESTALE"),
    "newfstatat": ("EIO", "ESTALE"),
    "pread64": ("EIO", "ESTALE"),
    "pwrite64": ("EIO", "ENOSPC", "EDQUOT"),
    "write": ("EIO", "ENOSPC", "EDQUOT"),
    "fdatasync": ("EIO", "ENOSPC", "EDQUOT"),
    "fsync": ("EIO", "ENOSPC", "EDQUOT"),
    "fcntl": ("ENOLCK", "EAGAIN", "EIO"),  # EAGAIN: somebody else has the lock
    "rename": ("EIO", "ENOSPC", "EDQUOT"),
    "unlink": ("EIO",),
}


@dataclass(frozen=True)
class CallInjection:
    """What happens at the call ``at`` of its name, counted from 1 in each thread.

    ``error``: the name of an errno; "" is kill -9.  ``lasting``: also at all calls of that name
    from then on.
    """

    call: str
    at: int
    error: str = ""
    lasting: bool = False

    def prefix(self, trace: Path, paths: Sequence[Path]) -> list[str]:
        """The command that starts a manager with it."""
        when = f"{self.at}+" if self.lasting else str(self.at)
        if self.error:
            # The manager's own thread speaks to the database, others write files.
            how, what = ["-f", "--seccomp-bpf"], f"error={self.error}"
        else:
            # A call that seccomp has stopped takes no signals.
            how, what = [], "signal=KILL"
        how += ["-e", f"inject={self.call}:{what}:when={when}"]
        return _strace(how, [self.call], trace, paths)  # no others, for each costs time

    def struck(self, directory: Path) -> bool:
        """Whether it has happened in this experiment."""
        text = _read(directory)
        return "(INJECTED)" in text or "killed by SIGKILL" in text


def watching(trace: Path, paths: Sequence[Path]) -> list[str]:
    """The command that starts a manager to which nothing happens but that its calls are seen."""
    return _strace(["-f", "--seccomp-bpf"], list(ERRORS), trace, paths)


def counts(directory: Path) -> dict[str, int]:
    """How many calls of each name the manager that was watched made, in one thread at most.

    For strace counts those of each thread by themselves.
    """
    by_thread = Counter(re.findall(r"^(\d+) +(\w+)\(", _read(directory), re.M))
    found = dict.fromkeys(ERRORS, 0)
    for (_, name), number in by_thread.items():
        if name in found:
            found[name] = max(found[name], number)
    return found


def _read(directory: Path) -> str:
    path = directory / TRACE
    return path.read_text(errors="replace") if path.exists() else ""


def _strace(
    options: Sequence[str], calls: Sequence[str], trace: Path, paths: Sequence[Path]
) -> list[str]:
    about = [word for path in paths for word in ("-P", str(path))]
    chosen = f"trace={','.join(calls)}"
    return ["strace", "-q", "-o", str(trace), "-e", chosen, *about, *options]


@cache
def why_not() -> str:
    """Why there is no strace here; "" when there is.  As root it is installed."""
    if not shutil.which("strace"):
        try:
            need(["strace"], ["strace"], device=os.devnull)
        except NoFilesystemError as error:
            return f"there is no strace: {error}"
    tried = subprocess.run(
        ["strace", "-q", "-f", "--seccomp-bpf", "-o", os.devnull, "true"],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"strace does not work here: {tried.stderr.strip()}" if tried.returncode else ""
