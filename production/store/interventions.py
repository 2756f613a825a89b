"""What people do to runs with commands: what a hand edit of a production's view does as well."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass

from production.identity import Identity, is_alive
from production.model import Outcome, Production, Status
from production.store.choice import EVERY_RUN, RunChoice
from production.store.connection import Database, Row, now_us

# The latest failure decides, not an earlier one.
_REASON = """
    EXISTS (SELECT 1 FROM attempt a
            WHERE a.production = r.production AND a.run = r.run AND a.attempt =
                  (SELECT max(attempt) FROM attempt f
                   WHERE f.production = r.production AND f.run = r.run AND f.outcome = 'failed')
              AND instr(lower(a.reason), lower(?)) > 0)
"""


@dataclass(frozen=True)
class Asked:
    """A run that somebody wants to be released, and what became of it."""

    run: int
    released: bool
    why: str  # or why not


# --------------------------------------------------------------------------- retry


def standing_at(
    db: Database, production: Production, chosen: RunChoice, status: Status, reason: str = ""
) -> list[int]:
    """The chosen runs that stand at ``status``.

    With ``reason``, those whose latest failed attempt has that text in its reason, in upper or
    lower case.
    """
    condition, parameters = chosen.condition("r.run")
    because = _REASON if reason else "? = ''"
    rows = db.rows(
        f"SELECT run FROM run r WHERE production = ? AND status = ? AND {condition} "
        f"AND {because} ORDER BY run",
        (production.id, status, *parameters, reason),
    )
    return [row[0] for row in rows]


def retry(
    db: Database,
    production: Production,
    chosen: RunChoice = EVERY_RUN,
    status: Status = Status.ERROR,
    reason: str = "",
) -> list[int]:
    """Send the runs that ``standing_at`` finds back to N with a clean count of failures.

    Returns them.
    """
    with db.write() as tx:
        runs = standing_at(db, production, chosen, status, reason)
        tx.executemany(
            "UPDATE run SET status = 'N', failures = 0, not_before = NULL "
            "WHERE production = ? AND run = ?",
            [(production.id, run) for run in runs],
        )
        if runs:
            tx.execute("UPDATE productions SET stop = NULL WHERE id = ?", (production.id,))
    return runs


# --------------------------------------------------------------------------- release


def release(db: Database, production: Production, chosen: RunChoice, who: Identity) -> list[Asked]:
    """Return claims of one's own managers, and of dead ones, that have no job yet.

    What becomes of each chosen run; of those of datasets only if they are held.
    """
    alive = {row["id"]: _is_alive(row) for row in _holders(db, production)}
    with db.write() as tx:
        asked = [
            _release(tx, production, row, who, alive.get(row["manager"]))
            for row in _chosen(db, production, chosen)
        ]
    missing = sorted(set(chosen.runs) - {answer.run for answer in asked})
    where = f"{production.label}{', or not in that dataset' if chosen.datasets else ''}"
    return asked + [Asked(run, False, f"is not in {where}") for run in missing]


def _holders(db: Database, production: Production) -> list[Row]:
    return db.rows(
        "SELECT * FROM manager m WHERE EXISTS "
        "(SELECT 1 FROM run r WHERE r.manager = m.id AND r.production = ?)",
        (production.id,),
    )


def _is_alive(row: Row) -> bool | None:
    return False if row["stopped"] else is_alive(row["boot"], row["pid"], row["pid_start"])


def _chosen(db: Database, production: Production, chosen: RunChoice) -> list[Row]:
    condition, parameters = chosen.condition("r.run")
    return db.rows(
        f"""
        SELECT r.run, r.status, r.manager, a.id AS attempt, a.spool, m.user, m.host
        FROM run r LEFT JOIN manager m ON m.id = r.manager
        LEFT JOIN attempt a USING (production, run, attempt)
        WHERE r.production = ? AND {condition}
          AND (r.status IN ('C', 'R') OR r.run IN (SELECT value FROM json_each(?)))
        ORDER BY r.run
        """,
        (production.id, *parameters, json.dumps(list(chosen.runs))),
    )


def _release(
    tx: sqlite3.Connection, production: Production, row: Row, who: Identity, alive: bool | None
) -> Asked:
    """Release one run, or say why not."""
    holder = f"manager {row['manager']} ({row['user']} on {row['host']})"
    if row["manager"] is None:
        return Asked(row["run"], False, f"stands at {row['status']}: nobody holds it")
    if row["spool"] is not None and alive is False:
        why = f"has a job, and {holder} is gone: the next manager takes it over"
        return Asked(row["run"], False, why)
    if row["spool"] is not None:
        why = f"has a job: see production stop or kill --manager={row['manager']}"
        return Asked(row["run"], False, why)
    if row["user"] != who.user and alive is not False:
        return Asked(row["run"], False, f"is held by {holder}: see production recover")
    tx.execute(
        "UPDATE attempt SET outcome_code = ?, reason = ?, stop_us = ? WHERE id = ?",
        (Outcome.ROLLED_BACK, f"given back by {who.user}", now_us(), row["attempt"]),
    )
    tx.execute(  # with a new token: the manager finds out at its next write
        "UPDATE run SET status = 'N', token = token + 1, failures = 0, not_before = NULL, "
        "manager = NULL WHERE production = ? AND run = ?",
        (production.id, row["run"]),
    )
    return Asked(row["run"], True, f"was held by {holder}")
