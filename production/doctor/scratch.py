"""The doctor's own directory beside the database: all that it writes is in it, and goes with it.

Its name tells others that a doctor is at work there.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote

from production.doctor.findings import Finding, note
from production.identity import is_alive, this_process

PREFIX = ".production-doctor-"
_OLD = 3600.0  # seconds after which no doctor is at work any more
_OWNER = "owner"  # the file that tells which process this is


@contextmanager
def scratch(directory: Path) -> Iterator[Path]:
    """A new directory in ``directory``, for everybody who may write there; raises OSError."""
    host = re.sub(r"[^A-Za-z0-9.-]", "_", os.uname().nodename)
    made = directory / f"{PREFIX}{host}-{os.getpid()}-{secrets.token_hex(4)}"
    made.mkdir()
    try:
        # The group's bit was inherited from the directory, or not; it stays as it is.
        made.chmod((made.stat().st_mode & 0o7000) | (directory.stat().st_mode & 0o777) | 0o700)
        process = this_process()
        owner = f"{process.boot} {process.pid} {process.pid_start}\n"
        (made / _OWNER).write_text(owner)
        yield made
    finally:
        remove(made)


def remove(directory: Path) -> None:
    """Remove a scratch directory, as far as it can be done."""
    for _ in range(20):
        shutil.rmtree(directory, ignore_errors=True)
        if not os.path.lexists(directory):
            return
        time.sleep(0.1)  # NFS and FUSE keep files under other names as long as they are open


def others(directory: Path, own: Path) -> list[str]:
    """The names of other doctors' directories that are there now; raises OSError."""
    names = (name for name in _names(directory) if name != own.name)
    return [name for name in names if not _is_left(directory / name)]


def leftovers(directory: Path) -> Iterator[Finding]:
    """What doctors left behind that were killed; raises OSError."""
    for path in (directory / name for name in _names(directory)):
        if _is_left(path) and os.path.lexists(path):  # else it has ended meanwhile
            what = f"{path} was left by a production doctor that was killed"
            yield note("scratch", what, f"rm -r {quote(str(path))}")


def _names(directory: Path) -> list[str]:
    with os.scandir(directory) as entries:
        return sorted(entry.name for entry in entries if entry.name.startswith(PREFIX))


def _is_left(path: Path) -> bool:
    """Whether the doctor is gone: it was of this host, or would have ended long ago."""
    with contextlib.suppress(OSError):
        if time.time() - path.stat().st_mtime > _OLD:
            return True
    with contextlib.suppress(OSError, ValueError):
        boot, pid, start = (path / _OWNER).read_text().split()
        return is_alive(boot, int(pid), int(start)) is False
    return False
