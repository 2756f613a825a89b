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

PREFIX = ".production-doctor-"
_OLD = 3600.0  # seconds after which no doctor is at work any more


@contextmanager
def scratch(directory: Path) -> Iterator[Path]:
    """A new directory in ``directory``, for everybody who may write there; raises OSError."""
    host = re.sub(r"[^A-Za-z0-9.-]", "_", os.uname().nodename)
    made = directory / f"{PREFIX}{host}-{os.getpid()}-{secrets.token_hex(4)}"
    made.mkdir()
    try:
        # The group's bit was inherited from the directory, or not; it stays as it is.
        made.chmod((made.stat().st_mode & 0o7000) | (directory.stat().st_mode & 0o777) | 0o700)
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
    return [name for name in _names(directory) if name != own.name and not _is_old(directory, name)]


def leftovers(directory: Path) -> list[Path]:
    """What doctors left behind that were killed; raises OSError."""
    return [directory / name for name in _names(directory) if _is_old(directory, name)]


def _names(directory: Path) -> list[str]:
    with os.scandir(directory) as entries:
        return sorted(entry.name for entry in entries if entry.name.startswith(PREFIX))


def _is_old(directory: Path, name: str) -> bool:
    with contextlib.suppress(OSError):
        return time.time() - (directory / name).stat().st_mtime > _OLD
    return False
