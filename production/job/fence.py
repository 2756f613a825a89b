"""The fence: whoever brings ``spool/started`` into being first decides about the attempt.

The wrapper does so before it runs anything, the manager when it gives an attempt up.  Both rename
a directory with contents to that name, which succeeds for exactly one (rename(2): the new name
must not be a directory with entries), on network filesystems as well.
"""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

from production.errors import SpoolTrouble

STARTED = "started"
REVOKED = "revoked"


def started_on(spool: Path) -> str:
    """The node on which the attempt started; "" when it has not, or that cannot be seen."""
    try:
        notes = (spool / STARTED / "pid").read_text(errors="replace").split()
    except OSError:
        return ""
    return notes[2] if len(notes) > 2 else ""


def revoke(spool: Path) -> bool:
    """Forbid the attempt; True when from now on it cannot start any more.

    False: it had started.  Then it still runs, or ran, but it publishes nothing from now on,
    unless it is doing so at this moment: its record or its manifest tells.

    A spool that is not there counts as forbidden, for the wrapper refuses without one; so a spool
    must exist before anybody can learn of the job.  Raises SpoolTrouble, also when the directory
    of all spools is not there: then the filesystem is not.
    """
    return _carefully(spool, lambda: _close_fence(spool) or not _mark(spool))


def forestall(spool: Path) -> bool:
    """The same for an attempt that has not started; one that has is left as it is."""
    return _carefully(spool, lambda: _close_fence(spool))


def has_gone(spool: Path) -> bool:
    """Whether a spool that was not found is really not there: the directory of all spools is.

    Where that is not there either, it is the filesystem that has gone.
    """
    return os.path.isdir(spool.parent)  # noqa: PTH112 - pathlib's raises where it may not look


def _carefully(spool: Path, action: Callable[[], bool]) -> bool:
    try:
        return action()
    except FileNotFoundError as error:
        if has_gone(spool):
            return True
        raise SpoolTrouble(path=spool.parent, what=error.strerror) from None
    except OSError as error:
        raise SpoolTrouble(path=spool, what=error.strerror or error) from None


def _close_fence(spool: Path) -> bool:
    ours = spool / f"revoking.{uuid.uuid4().hex}"
    ours.mkdir()
    try:
        (ours / REVOKED).touch()
        ours.rename(spool / STARTED)
    except OSError as error:
        shutil.rmtree(ours, ignore_errors=True)
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    return True


def _mark(spool: Path) -> bool:
    """Forbid publishing; False when an earlier call had closed the fence."""
    if (spool / STARTED / REVOKED).exists():
        return False
    (spool / REVOKED).touch()
    return True
