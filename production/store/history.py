"""What was tried at a run: its attempts in all productions, or in one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from production.model import Production
from production.store.choice import RunChoice, nothing_there
from production.store.connection import Database


@dataclass(frozen=True)
class Tried:
    """One attempt at a run; a run that was never tried has one with None from ``attempt`` on."""

    run: int
    production: str  # alcapana_v4
    status: str  # of the run, now
    attempt: int | None
    outcome: str | None  # finished, failed, rolled back; None: it lasts
    user: str | None  # who claimed it
    manager_host: str | None  # where that manager ran
    claimed: str | None
    start: str | None  # submitted
    stop: str | None  # outcome known
    batch: str | None
    job: str | None
    host: str | None  # the node
    exit_code: int | None
    reason: str | None


def attempts(db: Database, chosen: RunChoice, of: Sequence[Production]) -> list[Tried]:
    """All attempts at the chosen runs, by run, production and number.  Raises NotRecorded."""
    condition, parameters = chosen.condition("r.run")
    rows = db.rows(
        f"""
        SELECT r.run, p.type || '_v' || p.version AS production, r.status, a.attempt, a.outcome,
               m.user, m.host AS manager_host, a.claimed, a.start, a.stop, a.batch, a.job, a.host,
               a.exit_code, a.reason
        FROM productions p JOIN run r ON r.production = p.id
        LEFT JOIN attempt a ON a.production = r.production AND a.run = r.run
        LEFT JOIN manager m ON m.id = a.manager
        WHERE {condition} AND p.id IN (SELECT value FROM json_each(?))
        ORDER BY r.run, p.type, p.version, a.attempt
        """,
        (*parameters, json.dumps([production.id for production in of])),
    )
    if not rows:
        raise nothing_there(chosen, of)
    return [Tried(**dict(row)) for row in rows]
