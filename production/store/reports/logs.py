"""Where an attempt's logs are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from production.errors import NotRecorded
from production.model import Production, Status
from production.store.connection import Database


@dataclass(frozen=True)
class Logged:
    """An attempt at a run, as far as its logs go."""

    run: int
    status: Status  # of the run, now
    attempt: int | None  # None: it was never tried
    outcome: str | None  # None: the attempt lasts
    reason: str | None
    olog: Path | None  # None: nothing was prepared for its job yet
    elog: Path | None

    @property
    def lasts(self) -> bool:
        """Whether more may be written."""
        return self.attempt is not None and self.outcome is None


def logged(db: Database, production: Production, run: int, attempt: int | None) -> Logged:
    """The attempt of that number, or the latest.  Raises NotRecorded."""
    row = db.row(
        """
        SELECT r.status, a.attempt, a.outcome, a.reason, a.olog, a.elog
        FROM run r LEFT JOIN attempt a
          ON a.production = r.production AND a.run = r.run AND a.attempt = coalesce(?, r.attempt)
        WHERE r.production = ? AND r.run = ?
        """,
        (attempt, production.id, run),
    )
    if row is None:
        raise NotRecorded(what=f"There is no run {run} in {production.label}")
    if row["attempt"] is None and attempt is not None:
        raise NotRecorded(
            what=f"Run {run} of {production.label} has had no attempt {attempt}. See: production "
            f"history {run} --production={production.type} --version={production.version}"
        )
    olog, elog = (None if row[name] is None else Path(row[name]) for name in ("olog", "elog"))
    return Logged(
        *(run, Status(row["status"]), row["attempt"], row["outcome"], row["reason"]), olog, elog
    )
