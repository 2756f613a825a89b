"""Which managers hold runs, and taking back what dead ones have left."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from production.identity import Identity, is_alive
from production.model import Orphan, Production, Released
from production.store import managers
from production.store.connection import Database, Row
from production.store.managers import Holder, LeaseWatch
from production.store.runs import RunStore

GLANCE = 2.0  # seconds between two looks for signs of life


@dataclass(frozen=True)
class Holding:
    """A manager that holds runs of a production."""

    holder: Holder
    production: Production
    started: str | None
    beat_at: str | None  # by its own clock
    claims: int  # runs without a job
    jobs: int  # runs with one, or for which one is about to be submitted


@dataclass(frozen=True)
class TakenBack:
    """What became of a manager's runs."""

    returned: Sequence[int]  # back at N
    left: Sequence[int]  # have a job: for the next manager to adopt
    kept: Sequence[int]  # were wanted, and stay with a manager that may live


def holdings(db: Database, productions: Sequence[Production]) -> list[Holding]:
    """Who holds runs of these productions."""
    rows = db.rows(
        """
        SELECT m.*, r.production AS of, sum(a.spool IS NULL) AS claims,
               sum(a.spool IS NOT NULL) AS jobs
        FROM run r JOIN manager m ON m.id = r.manager
        JOIN attempt a USING (production, run, attempt)
        WHERE r.manager IS NOT NULL AND r.production IN (SELECT value FROM json_each(?))
        GROUP BY m.id, r.production
        """,
        (json.dumps([production.id for production in productions]),),
    )
    by_id = {production.id: production for production in productions}
    return [
        Holding(
            _holder(row),
            by_id[row["of"]],
            row["started"],
            row["beat_at"],
            row["claims"],
            row["jobs"],
        )
        for row in rows
    ]


def _holder(row: Row) -> Holder:
    alive = False if row["stopped"] else is_alive(row["boot"], row["pid"], row["pid_start"])
    return Holder(row["id"], row["user"], row["host"], row["pid"], row["beat"], row["lease"], alive)


def states(watch: LeaseWatch, found: Sequence[Holding]) -> dict[int, bool | None]:
    """Whether each manager lives, as far as ``watch`` has seen; None: not known yet."""
    holders = [holding.holder for holding in found]
    dead = {holder.id for holder in watch.dead(holders)}
    undecided = {holder.id for holder in watch.undecided(holders)}
    return {
        holder.id: False if holder.id in dead else None if holder.id in undecided else True
        for holder in holders
    }


def watch(
    db: Database, productions: Sequence[Production], seconds: float, manager: int | None = None
) -> tuple[list[Holding], dict[int, bool | None]]:
    """Who holds runs and lives, seen as long as is wanted and needed; of one manager, or all."""
    seen = LeaseWatch()
    deadline = time.monotonic() + seconds
    while True:
        found = [
            holding for holding in holdings(db, productions) if manager in {None, holding.holder.id}
        ]
        living = states(seen, found)
        left = deadline - time.monotonic()
        if None not in living.values() or left <= 0:
            return found, living
        time.sleep(min(GLANCE, left))


def take_back(db: Database, holding: Holding, who: Identity) -> TakenBack:
    """Return a dead manager's claims without a job to N.

    Its runs with jobs stay its own.  It is marked as stopped, so the next manager need not wait
    for its lease to adopt them.
    """
    return _take(db, holding, who, lambda orphan: orphan.job_name is None, forced=False)


def take_by_force(
    db: Database, holding: Holding, who: Identity, may_take: Callable[[Orphan], bool]
) -> TakenBack:
    """Take runs from a manager that may live; claims without a job return to N.

    Marking it as stopped would not do: with its next sign of life it would count as living again.
    So the runs with jobs that ``may_take`` become those of ``who``, under new tokens, who signs
    off at once.  They are adopted as those of ``who``; what the manager still writes is refused.
    """
    return _take(
        db, holding, who, lambda orphan: orphan.job_name is None or may_take(orphan), forced=True
    )


def _take(
    db: Database,
    holding: Holding,
    who: Identity,
    wanted: Callable[[Orphan], bool],
    *,
    forced: bool,
) -> TakenBack:
    store = RunStore(db, holding.production, managers.register(db, who, holding.production.id))
    try:
        # One that lives may have come to a job since it was looked at: then once more.
        taken = [orphan for _ in range(2) for orphan in store.take_over(holding.holder.id, wanted)]
        returned = [orphan.claim for orphan in taken if orphan.job_name is None]
        left = sorted(orphan.claim.run for orphan in taken if orphan.job_name is not None)
        store.apply([Released(claim, f"taken back by {who.user}") for claim in returned])
        others = [orphan.claim.run for orphan in store.orphans(holding.holder.id)]
    finally:  # if it cannot be recorded, the end of this process shows as well
        managers.sign_off(db, store.manager)
    runs = [claim.run for claim in returned]
    return TakenBack(runs, left, others) if forced else TakenBack(runs, left + others, [])
