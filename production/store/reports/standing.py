"""Where productions stand: counts, rate, expected end, who works on them, and the runs in hand.

No query here costs more because there are many runs.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from production.identity import is_alive
from production.model import Production, Status
from production.store.connection import Database, Row, text_us, utc_text

# Latest attempts in the database, by which the rates are judged.  Those of productions that have
# many more than others are among them, and jobs that last long; they are read in 0.02 s.
TAIL = 10_000
HOUR = 3600.0
ENOUGH = 20  # finished runs that make a rate
LONGEST = 32 * HOUR  # that is looked back


@dataclass(frozen=True)
class Worker:
    """A manager that has not said that it ended."""

    id: int
    production: int  # its id
    user: str
    host: str | None
    pid: int | None
    started: str | None
    beat_at: str | None  # its latest sign of life, by its own clock
    lease: int  # seconds
    alive: bool | None  # whether its process lives; None: cannot be seen from this host
    silence: float  # seconds since its latest sign of life, as far as the clocks agree

    @property
    def at_work(self) -> bool:
        """Whether it is to be counted on: it lives, or gave a sign of life within its lease."""
        return self.silence <= self.lease if self.alive is None else self.alive

    @property
    def place(self) -> str:
        """``anna on lxplus7``."""
        return f"{self.user} on {self.host or 'an unknown host'}"


@dataclass(frozen=True)
class Standing:
    """A production at this moment."""

    production: Production
    user: str | None  # who started it
    counts: Mapping[Status, int]  # statuses without runs are left out
    rate: float | None  # runs finished an hour; None: none of late
    expected_end: str | None  # UTC; None: nothing is left, or there is no rate
    workers: tuple[Worker, ...]

    @property
    def total(self) -> int:
        """All runs."""
        return sum(self.counts.values())

    @property
    def left(self) -> int:
        """Runs that will be finished, or tried, without anybody's doing."""
        return self.total - self.count(Status.FINISHED) - self.count(Status.ERROR)

    @property
    def finished(self) -> float:
        """The part of the runs that is finished, 0 … 1."""
        return self.count(Status.FINISHED) / self.total if self.total else 0.0

    @property
    def at_work(self) -> tuple[Worker, ...]:
        """The managers that can be counted on."""
        return tuple(worker for worker in self.workers if worker.at_work)

    def count(self, status: Status) -> int:
        """How many runs stand at ``status``."""
        return self.counts.get(status, 0)


@dataclass(frozen=True)
class ActiveRun:
    """A run that a manager holds."""

    run: int
    datasets: tuple[str, ...]
    status: Status
    phase: str  # claimed, submitting (a job is about to be), submitted (it waits or runs)
    since: str | None  # UTC; of the claim, or of the submission
    attempt: int
    failures: int  # failed attempts since a user last intervened
    last_reason: str | None  # why the attempt before failed or was rolled back
    manager: int
    user: str
    manager_host: str | None
    batch: str | None
    job: str | None  # the batch system's id
    token: int | None  # that the attempt was claimed with; part of the job's name
    spool: str | None
    olog: str | None
    elog: str | None


@dataclass(frozen=True)
class Try:
    """An attempt as far as the rate goes; times are microseconds since 1970."""

    claimed: int
    stopped: int | None  # None: it lasts
    finished: bool


# --------------------------------------------------------------------------- productions


def standings(
    db: Database, of: Sequence[Production] | None = None, now: float | None = None
) -> list[Standing]:
    """Where the productions stand, by type and version; of all unless ``of`` names some."""
    wanted = "true" if of is None else "id IN (SELECT value FROM json_each(:ids))"
    ids = json.dumps([production.id for production in of or ()])
    with db.read():  # of one moment, and with one lock
        found = db.rows(
            "SELECT id, type, version, software, start, stop, base, user FROM productions "
            f"WHERE {wanted} ORDER BY type, version",
            {"ids": ids},
        )
        tally = db.rows("SELECT production, status, runs FROM tally WHERE runs > 0")
        tail = db.rows(_TAIL, (TAIL,))
        managers = db.rows(_MANAGERS)
    now = time.time() if now is None else now
    counts: dict[int, dict[Status, int]] = {row["id"]: {} for row in found}
    for row in tally:
        if row["production"] in counts:
            counts[row["production"]][Status(row["status"])] = row["runs"]
    tries, since = _tries(tail)
    working: dict[int, list[Worker]] = {}
    for worker in _workers(managers, now):
        working.setdefault(worker.production, []).append(worker)
    return [
        _standing(
            row,
            counts[row["id"]],
            rate(tries.get(row["id"], []), now, since),
            working.get(row["id"], []),
            now,
        )
        for row in found
    ]


def standing(db: Database, production: Production, now: float | None = None) -> Standing:
    """Where one production stands."""
    return standings(db, [production], now)[0]


def _standing(
    row: Row,
    counts: Mapping[Status, int],
    an_hour: float | None,
    working: Iterable[Worker],
    now: float,
) -> Standing:
    values = dict(row)
    user = values.pop("user")
    known = Standing(Production(**values), user, counts, an_hour, None, tuple(working))
    if not an_hour or not known.left:
        return known
    end = now + known.left / an_hour * HOUR
    # A rate may be so small that its end is in no calendar.
    text = utc_text(end) if end < _LAST else None
    return Standing(known.production, user, counts, an_hour, text, known.workers)


_LAST = datetime(9999, 1, 1, tzinfo=UTC).timestamp()


_TAIL = """
    SELECT production, claimed_us, stop_us, outcome FROM attempt
    WHERE id > (SELECT max(id) FROM attempt) - ?
      AND typeof(claimed_us) = 'integer' AND typeof(stop_us) IN ('integer', 'null')
"""


def _tries(rows: Sequence[Row]) -> tuple[dict[int, list[Try]], int | None]:
    """The latest attempts by production, and since when there are no others."""
    found: dict[int, list[Try]] = {}
    for production, claimed, stop, outcome in rows:
        found.setdefault(production, []).append(Try(claimed, stop, outcome == "finished"))
    # Attempts before these may have ended since; they are a few of very many.
    return found, min(row[1] for row in rows) if len(rows) == TAIL else None


def rate(tries: Sequence[Try], now: float, since: int | None = None) -> float | None:
    """Runs finished an hour.

    Over the last hour; over longer, when fewer than ENOUGH were finished, as far as the work goes
    back without a rest, and LONGEST at most.  ``since``: before, nothing is known (microseconds).
    None: nothing was finished.
    """
    seconds, end = HOUR, round(now * 1e6)
    while True:
        begin = max(end - round(seconds * 1e6), since or 0)
        at_that_time = [t for t in tries if t.stopped is None or t.stopped >= begin]
        finished = sum(t.finished for t in at_that_time)
        # Others may have been given up at the claim, or by a crash long before that was found out.
        work = (t.claimed for t in at_that_time if t.finished or t.stopped is None)
        first = min(work, default=end)
        if finished >= ENOUGH or first >= begin or seconds >= LONGEST:
            break
        seconds *= 2
    # What was done by an even rate in a second is told as that of a second.
    hours = max(end - max(first, begin), 1_000_000) / (HOUR * 1e6)
    return finished / hours if finished else None


# --------------------------------------------------------------------------- managers


_MANAGERS = """
    SELECT id, production, user, host, boot, pid, pid_start, started, beat_at, lease
    FROM manager WHERE stopped IS NULL AND production IS NOT NULL ORDER BY id
"""


def workers(db: Database, production: Production) -> list[Worker]:
    """The managers of a production that have not said that they ended, the dead among them."""
    found = _workers(db.rows(_MANAGERS), time.time())
    return [worker for worker in found if worker.production == production.id]


def _workers(rows: Sequence[Row], now: float) -> list[Worker]:
    """All managers that have not said that they ended, the dead among them."""
    return [
        Worker(
            *(row["id"], row["production"], row["user"], row["host"], row["pid"]),
            *(row["started"], row["beat_at"], row["lease"]),
            is_alive(row["boot"], row["pid"], row["pid_start"]),
            silence(row["beat_at"], now),
        )
        for row in rows
    ]


def silence(beat_at: str | None, now: float) -> float:
    """Seconds since that sign of life; endless when there was none."""
    moment = text_us(beat_at) if beat_at else None
    return max(now - moment / 1e6, 0.0) if isinstance(moment, int) else float("inf")


# --------------------------------------------------------------------------- runs in hand


def active_runs(db: Database, production: Production) -> list[ActiveRun]:
    """The runs of a production that managers hold, by number."""
    rows = db.rows(
        # Left to itself, SQLite might read all runs of the production.
        """
        SELECT r.run,
               (SELECT json_group_array(dataset) FROM datasets d WHERE d.run = r.run) AS datasets,
               r.status,
               CASE WHEN r.status = 'R' THEN 'submitted'
                    WHEN a.spool IS NULL THEN 'claimed' ELSE 'submitting' END AS phase,
               CASE WHEN r.status = 'R' THEN a.start ELSE a.claimed END AS since,
               r.attempt, r.failures, b.reason AS last_reason, r.manager, m.user,
               m.host AS manager_host, a.batch, a.job, a.token, a.spool, a.olog, a.elog
        FROM run r INDEXED BY run_by_manager
        JOIN manager m ON m.id = r.manager
        JOIN attempt a ON a.production = r.production AND a.run = r.run AND a.attempt = r.attempt
        LEFT JOIN attempt b
               ON b.production = r.production AND b.run = r.run AND b.attempt = r.attempt - 1
        WHERE r.manager IS NOT NULL AND r.production = ?
        ORDER BY r.run
        """,
        (production.id,),
    )
    return [
        ActiveRun(
            **{
                **dict(row),
                "datasets": tuple(json.loads(row["datasets"])),
                "status": Status(row["status"]),
            }
        )
        for row in rows
    ]
