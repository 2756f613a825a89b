"""Clearing away what an attempt left on disk."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from production.errors import SpoolTrouble
from production.model import OutputPlan

MANIFEST = "manifest"  # what the job was about to publish, written by sge_scripts/job.sh

# Size, time in seconds, inode, sha256, final name; a rename and a hard link keep the first three.
_LINE = re.compile(r"([0-9]+) ([0-9]+) ([0-9]+) [0-9a-f]{64} (/.*)")


def discard_outputs(spool: Path, outputs: Iterable[OutputPlan]) -> None:
    """Remove what an unfinished attempt left of its outputs, under both names; its spool stays.

    A final name is freed only when the attempt's manifest lists it and the file there is the one
    that was listed; whatever else stands there belongs to somebody else.  To be called when the
    job is gone, or was revoked.  Raises SpoolTrouble when something could not be removed.
    """
    # The job may still be publishing: on NFS it may not see for a while that it was revoked.  It
    # renames or links the temporary names, so once these are gone no final name is made any more,
    # and those that were made until then are found.
    for plan in outputs:
        unlink(plan.temporary)
    for path in _published(spool):
        unlink(path)


def discard_spool(spool: Path, done: Path) -> None:
    """Remove the spool and the job's announcement in ``done``; the outputs stay.

    Raises SpoolTrouble.
    """
    remove_tree(spool)
    try:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(spool)  # says why something is left
    except OSError as error:
        raise SpoolTrouble(path=spool, what=error.strerror or error) from None
    unlink(done / spool.name)


def remove_tree(directory: Path) -> None:
    """Remove a directory as far as possible; somebody on another host may be doing the same."""
    # Whatever ignore_errors says, Python 3.11's rmtree raises what it meets when it looks at a
    # directory that it has opened: on a network filesystem ESTALE, if that is gone by then.
    with contextlib.suppress(OSError):
        shutil.rmtree(directory, ignore_errors=True)


def _published(spool: Path) -> Iterator[Path]:
    """The final names that this attempt holds, each looked at when it is asked for.

    A line that makes no sense names nothing, so that nothing is removed by mistake.  Raises
    SpoolTrouble when it cannot be seen now whose file stands there: one that stayed behind without
    its manifest would be in the way of all later attempts.
    """
    try:
        manifest = os.fsdecode((spool / MANIFEST).read_bytes())
    except FileNotFoundError:
        return
    except OSError as error:
        raise SpoolTrouble(path=spool / MANIFEST, what=error.strerror or error) from None
    for match in filter(None, map(_LINE.fullmatch, manifest.split("\n"))):
        path = Path(match[4])
        try:
            found = path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise SpoolTrouble(path=path, what=error.strerror or error) from None
        seconds = found.st_mtime_ns // 10**9
        if (found.st_size, seconds, found.st_ino) == tuple(map(int, match.group(1, 2, 3))):
            yield path


def unlink(path: Path) -> None:
    """Remove a file, if it is there; raises SpoolTrouble."""
    try:
        path.unlink(missing_ok=True)
    except NotADirectoryError:
        pass  # there cannot be such a file
    except OSError as error:
        raise SpoolTrouble(path=path, what=error.strerror or error) from None
