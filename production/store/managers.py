"""The living and the dead: registration, heartbeat, and who has stopped giving signs of life.

A manager is dead when its process is gone, which can be seen on the same boot of the same host,
or when its heartbeat has not changed for the length of its lease.  That length is measured by
the observer's own clock from the moment when the observer first saw that beat, so the clocks of
two hosts need not agree.  Time in which the observer did not look counts for little: what kept it
from looking (a file server that is away) may have kept the other from giving a sign of life.
"""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass, field

from production.identity import Identity, is_alive
from production.store.connection import Database, utc_now

LEASE = 600  # seconds without a sign of life after which a manager counts as dead
# Seconds that count as observed between two looks, or half of the lease where that is more: with
# the 20 s before that a lease of a minute leaves, an outage of any length is not the end of it.
LOOK = 30.0


@dataclass(frozen=True)
class Holder:
    """A manager that holds runs of a production and has not ended."""

    id: int
    user: str
    host: str
    pid: int
    beat: int
    lease: int
    alive: bool | None  # None: cannot be seen from this host


def register(db: Database, who: Identity, production: int, lease: int = LEASE) -> int:
    """Enter a manager; returns its id."""
    now = utc_now()

    def enter(tx: sqlite3.Connection) -> int:
        id_ = tx.execute(
            """
            INSERT INTO manager (user, host, boot, pid, pid_start, production, started, lease,
                                 beat_at)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
            """,
            (who.user, who.host, who.boot, who.pid, who.pid_start, production, now, lease, now),
        ).lastrowid
        assert id_ is not None  # noqa: S101 - an INSERT has one
        return id_

    return db.transact(enter)


def beat(db: Database, manager: int) -> bool:
    """Give a sign of life, which renews all claims of this manager at once.

    False when another manager has taken this one for dead in the meantime: some of its runs may
    be in other hands.  The manager counts as living again.
    """

    def renew(tx: sqlite3.Connection) -> bool:
        row = tx.execute("SELECT stopped FROM manager WHERE id = ?", (manager,)).fetchone()
        tx.execute(
            "UPDATE manager SET beat = beat + 1, beat_at = ?, stopped = NULL WHERE id = ?",
            (utc_now(), manager),
        )
        return row is not None and row["stopped"] is None

    return db.transact(renew)


def sign_off(db: Database, manager: int) -> None:
    """Record that the manager has ended."""
    sql = "UPDATE manager SET stopped = ? WHERE id = ?"
    db.transact(lambda tx: tx.execute(sql, (utc_now(), manager)))


def holders(db: Database, production: int, besides: int) -> list[Holder]:
    """The managers that hold runs of the production, besides this one."""
    rows = db.rows(
        """
        SELECT id, user, host, boot, pid, pid_start, beat, lease, stopped FROM manager m
        WHERE id <> ? AND EXISTS
            (SELECT 1 FROM run r WHERE r.manager = m.id AND r.production = ?)
        """,
        (besides, production),
    )
    return [
        Holder(
            row["id"],
            row["user"],
            row["host"],
            row["pid"],
            row["beat"],
            row["lease"],
            False if row["stopped"] else is_alive(row["boot"], row["pid"], row["pid_start"]),
        )
        for row in rows
    ]


@dataclass
class LeaseWatch:
    """Remembers for how long each manager has given no sign of life while somebody looked."""

    _seen: dict[int, tuple[int, float]] = field(default_factory=dict)  # beat, seconds of silence
    _beating: set[int] = field(default_factory=set)
    _looked: float = field(default_factory=time.monotonic)

    def dead(self, holders: list[Holder]) -> list[Holder]:
        """Those of ``holders`` that are gone or have outlived their lease."""
        now = time.monotonic()
        since, self._looked = now - self._looked, now
        dead = []
        for holder in holders:
            beat, silence = self._seen.get(holder.id, (None, 0.0))
            if beat == holder.beat:
                silence += min(since, max(holder.lease / 2, LOOK))
            else:
                silence = 0.0
                if beat is not None:
                    self._beating.add(holder.id)
            self._seen[holder.id] = (holder.beat, silence)
            if holder.alive is False or silence > holder.lease:
                dead.append(holder)
        return dead

    def undecided(self, holders: list[Holder]) -> list[Holder]:
        """Those that cannot be seen from here and have given no sign of life since we look."""
        return [h for h in holders if h.alive is None and h.id not in self._beating]
