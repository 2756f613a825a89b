"""Giving back the space that is not used any more.

In place, by SQLite's VACUUM: a new file put in the old one's place would leave managers with the
old one open, and what they write there would be lost (sqlite.org/howtocorrupt.html, section 2.4).
VACUUM writes a copy among the temporary files, then over the database under a rollback journal, so
that each may take as much space as the database has now (sqlite.org/lang_vacuum.html).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from production.errors import DatabaseTrouble
from production.store.backup import size
from production.store.connection import BUSY_MILLISECONDS, Database

# Where SQLite puts temporary files: the first that exists and can be written.
# Source: sqlite.org/tempfiles.html, section 5.
_VARIABLES = ("SQLITE_TMPDIR", "TMPDIR")
_DIRECTORIES = ("/var/tmp", "/usr/tmp", "/tmp", ".")  # noqa: S108 - SQLite's choice, not ours


def vacuum(db: Database) -> None:
    """Rewrite the database without unused space; waits for its turn as long as ``db`` does.

    Raises DatabaseTrouble when there may not be space enough, and DatabaseLocked.
    """
    _check_space(db, size(db))
    # Readers may hold its end up, for moments; what they must not do is to have it begin again.
    db.rows(f"PRAGMA busy_timeout = {BUSY_MILLISECONDS}")
    db.rows("VACUUM")


def _check_space(db: Database, needed: int) -> None:
    """Quotas are not seen; SQLite says when one is exceeded, and takes all back."""
    beside = Path(os.path.realpath(db.path)).parent
    temporary = next(_temporary(), beside)
    together = temporary.stat().st_dev == beside.stat().st_dev
    for place in (beside, temporary):
        free, wanted = shutil.disk_usage(place).free, needed * (2 if together else 1)
        if free < wanted:
            raise DatabaseTrouble(
                path=db.path,
                what=f"{place} has {free} bytes free, and {wanted} may be needed to rewrite it; "
                "nothing was changed",
            )


def _temporary() -> Iterator[Path]:
    names = [*filter(None, map(os.environ.get, _VARIABLES)), *_DIRECTORIES]
    return (Path(n) for n in names if os.path.isdir(n) and os.access(n, os.W_OK | os.X_OK))  # noqa: PTH112
