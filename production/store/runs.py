"""What a manager does to the runs of its production, each call one short transaction.

Every write names the claim's token and this manager; a write that finds that another manager has
the run changes nothing, and the claim comes back as lost.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from production.model import (
    Change,
    Claim,
    Failed,
    Finished,
    Intended,
    JobRecord,
    Orphan,
    Outcome,
    Production,
    Released,
    RunFilter,
    Status,
    Submitted,
    job_name,
)
from production.store import inputs
from production.store.connection import Database, Row, now_us, text_us, utc_now, utc_text
from production.store.productions import database_id, keep_modules
from production.store.rests import Rests

# The datasets and qualities that have unclaimed runs: one step in the index for each, where
# DISTINCT or a comparison of both at once would read all runs of a dataset.
_NEXT_DATASET = """
    SELECT dataset, quality FROM unclaimed
    WHERE production = ? AND dataset > ? ORDER BY dataset, quality LIMIT 1
"""
_NEXT_QUALITY = """
    SELECT dataset, quality FROM unclaimed
    WHERE production = ? AND dataset = ? AND quality > ? ORDER BY quality LIMIT 1
"""

_OUTCOMES: dict[type, Outcome] = {
    Finished: Outcome.FINISHED,
    Failed: Outcome.FAILED,
    Released: Outcome.ROLLED_BACK,
}

# The length in seconds of a rest whose end was set by a clock that is ahead of this one: its run
# has failed in the future.
_DOUBTFUL_REST = """
    CASE WHEN r.not_before > ? THEN
        (SELECT (julianday(r.not_before) - 2440587.5) * 86400.0 - a.stop_us / 1e6 FROM attempt a
         WHERE a.production = r.production AND a.run = r.run AND a.attempt = r.attempt
           AND a.stop_us > ?)
    END
"""


class RunStore:
    """One manager's view of one production."""

    def __init__(self, db: Database, production: Production, manager: int) -> None:
        self.db = db
        self.production = production
        self.manager = manager
        self._rests = Rests()
        self._appliers: dict[type, Callable[..., bool]] = {
            Intended: self._intend,
            Submitted: self._submitted,
            Finished: self._finish,
            Failed: self._fail,
            Released: self._release,
        }

    # ----------------------------------------------------------------- claiming

    def claim(self, count: int, wanted: RunFilter) -> list[Claim]:
        """Claim up to ``count`` unclaimed runs; nobody else can get the same ones."""
        self._rests.forget()
        if not self._candidates(1, wanted, utc_now()):
            return []  # no write lock taken for nothing

        def take(tx: sqlite3.Connection) -> list[Claim]:
            runs = self._candidates(count, wanted, utc_now())
            claimed = now_us()
            tx.executemany(
                """
                UPDATE run SET status = 'C', attempt = attempt + 1, token = token + 1, manager = ?,
                               not_before = NULL
                WHERE production = ? AND run = ?
                """,
                [(self.manager, self.production.id, run) for run in runs],
            )
            claims = [self._current(run) for run in runs]
            tx.executemany(
                "INSERT INTO attempt (production, run, attempt, token, manager, claimed_us) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (self.production.id, c.run, c.attempt, c.token, self.manager, claimed)
                    for c in claims
                ],
            )
            return claims

        return self.db.transact(take)

    def next_claim(self, wanted: RunFilter) -> Claim | None:
        """What ``claim`` would give for one run now; nothing is changed."""
        runs = self._candidates(1, wanted, utc_now())
        if not runs:
            return None
        last = self._current(runs[0])
        return replace(last, attempt=last.attempt + 1, token=last.token + 1)

    def has_waiting(self, wanted: RunFilter) -> bool:
        """Whether runs wait for the end of their back-off, to be claimed later."""
        return bool(self._candidates(1, wanted, "9999"))

    def at_error(self, limit: int) -> list[int]:
        """The first runs that stand at E."""
        rows = self.db.rows(
            # Left to itself, SQLite would read all runs of the production in their order.
            "SELECT run FROM run INDEXED BY run_at_error "
            "WHERE production = ? AND status = 'E' ORDER BY run LIMIT ?",
            (self.production.id, limit),
        )
        return [row[0] for row in rows]

    def waiting_for_base(self) -> int:
        """How many unclaimed runs have no input because the base has not finished them."""
        row = self.db.row(
            f"SELECT count(*) FROM run r WHERE production = ? AND status = 'N' "
            f"AND NOT ({self._base_condition()})",
            (self.production.id,),
        )
        return int(row[0]) if row else 0

    def _candidates(self, count: int, wanted: RunFilter, now: str) -> list[int]:
        """The first runs that can be claimed: by dataset, then by tranche, then by number."""
        runs: dict[int, None] = {}  # a run may be in two datasets
        for dataset, qualities in self._groups(wanted):
            for tranche in wanted.tranches or (None,):
                found: list[tuple[int, int]] = []
                for quality in qualities:
                    found += self._search(count, dataset, quality, tranche, now)
                runs.update(dict.fromkeys(run for _, run in sorted(found)))
                if len(runs) >= count:
                    return list(runs)[:count]
        return list(runs)

    def _groups(self, wanted: RunFilter) -> Iterator[tuple[str, Sequence[str]]]:
        """The datasets in question, each with its qualities."""
        if wanted.datasets and wanted.qualities:
            for dataset in wanted.datasets:
                yield dataset, wanted.qualities
            return
        if not (wanted.datasets or wanted.tranches or wanted.qualities):
            yield "", [""]  # runs without any label
        known: dict[str, list[str]] = {}
        id_ = self.production.id
        row = self.db.row(_NEXT_DATASET, (id_, ""))
        while row is not None:
            dataset, quality = row
            if not wanted.qualities or quality in wanted.qualities:
                known.setdefault(dataset, []).append(quality)
            row = self.db.row(_NEXT_QUALITY, (id_, dataset, quality)) or self.db.row(
                _NEXT_DATASET, (id_, dataset)
            )
        for dataset in wanted.datasets or known:
            yield dataset, known.get(dataset, [])

    def _search(
        self, count: int, dataset: str, quality: str, tranche: int | None, now: str
    ) -> list[tuple[int, int]]:
        """Tranche and number of runs that can be claimed, in order; follows the index."""
        part = "true" if tranche is None else "u.tranche = ?"
        sql = (
            # `run` and `datasets` decide, `unclaimed` only leads there: a row that was replaced
            # by hand fired no triggers.
            f"SELECT u.tranche, u.run, r.attempt, {_DOUBTFUL_REST} AS rest "
            f"FROM unclaimed u JOIN run r USING (production, run) "
            f"LEFT JOIN datasets d ON d.run = u.run AND d.dataset = u.dataset "
            f"WHERE u.production = ? AND u.dataset = ? AND u.quality = ? AND {part} "
            f"AND coalesce(d.dataset, '') = u.dataset AND coalesce(d.tranche, 0) = u.tranche "
            f"AND coalesce(d.quality, '') = u.quality "
            f"AND r.status = 'N' AND {self._base_condition()} "
            f"AND (coalesce(r.not_before, '') <= ? OR rest IS NOT NULL) "
            f"ORDER BY u.tranche, u.run LIMIT ?"
        )
        place = (self.production.id, dataset, quality, *(() if tranche is None else (tranche,)))
        limit = count + self._rests.lasting
        while True:
            rows = self.db.rows(sql, (now, now_us(), *place, now, limit))
            found = [
                (number, run)
                for number, run, attempt, rest in rows
                if rest is None or self._rests.is_over(run, attempt, rest)
            ]
            if len(found) >= count or len(rows) < limit:
                return found[:count]
            limit *= 4  # those that rest were in the way

    def _base_condition(self) -> str:
        """A derived production takes the runs that its base has finished."""
        if self.production.base is None:
            return "true"
        return (
            "EXISTS (SELECT 1 FROM productions p JOIN productions b "
            "ON b.type = p.base_type AND b.version = p.base "
            "JOIN run i ON i.production = b.id AND i.run = r.run "
            f"WHERE p.id = {self.production.id} AND i.status = 'F')"
        )

    def _current(self, run: int) -> Claim:
        row = self.db.row(
            "SELECT run, attempt, token, failures FROM run WHERE production = ? AND run = ?",
            (self.production.id, run),
        )
        assert row is not None  # noqa: S101 - found a moment ago, and runs stay
        return Claim(*row)

    # ----------------------------------------------------------------- changes of status

    def apply(self, changes: Sequence[Change]) -> list[Claim]:
        """Record all changes in one transaction; returns the claims that turned out lost."""
        if not changes:
            return []

        def record(tx: sqlite3.Connection) -> list[Claim]:
            # Of several changes of one claim the last decides: see _is_recorded.
            accepted = {
                change.claim: self._appliers[type(change)](tx, change)
                or self._is_recorded(tx, change)
                for change in changes
            }
            if any(isinstance(change, Finished) for change in changes):
                self._stop_when_done(tx)
            return [claim for claim, well in accepted.items() if not well]

        return self.db.transact(record)

    def _intend(self, tx: sqlite3.Connection, change: Intended) -> bool:
        if not self._holds(tx, change.claim):
            return False
        modules = None if change.modules is None else keep_modules(tx, change.modules)
        id_, files = self._attempt(tx, change.claim)
        # An attempt reads the same files when it is submitted again after a refusal.
        if files is None and change.inputs:
            files = inputs.keep(tx, change.claim.run, id_, change.inputs)
        self._update_attempt(
            tx,
            change.claim,
            inputs=files,
            batch=change.batch,
            spool=str(change.spool),
            modules=modules,
            olog=str(change.olog),
            elog=str(change.elog),
        )
        return True

    def _submitted(self, tx: sqlite3.Connection, change: Submitted) -> bool:
        if not self._move(tx, change.claim, "status = 'R'"):
            return False
        self._update_attempt(tx, change.claim, job=change.job, start_us=now_us())
        return True

    def _finish(self, tx: sqlite3.Connection, change: Finished) -> bool:
        if not self._move(tx, change.claim, "status = 'F', manager = NULL, failures = 0"):
            return False
        id_, _ = self._attempt(tx, change.claim)
        tx.executemany(
            "INSERT INTO output (attempt, name, path, size, digest) VALUES (?, ?, ?, ?, ?)",
            [
                (id_, o.name, str(o.path), o.size, bytes.fromhex(o.sha256))
                for o in change.record.outputs
            ],
        )
        self._update_attempt(
            tx,
            change.claim,
            outcome_code=Outcome.FINISHED,
            stop_us=now_us(),
            olog=str(change.olog),
            elog=str(change.elog),
            **_node_facts(change.record),
        )
        return True

    def _fail(self, tx: sqlite3.Connection, change: Failed) -> bool:
        moved = self._move(
            tx,
            change.claim,
            "status = CASE WHEN failures + 1 < :max THEN 'N' ELSE 'E' END, "
            "failures = failures + 1, manager = NULL, not_before = :not_before",
            max=change.max_attempts,
            not_before=utc_text(time.time() + change.wait),
        )
        if moved:
            facts = _node_facts(change.record) if change.record else {}
            facts["exit_code"] = change.exit_code
            self._update_attempt(
                tx,
                change.claim,
                outcome_code=Outcome.FAILED,
                reason=change.reason,
                stop_us=now_us(),
                **facts,
            )
        return moved

    def _release(self, tx: sqlite3.Connection, change: Released) -> bool:
        if not self._move(tx, change.claim, "status = 'N', manager = NULL"):
            return False
        self._update_attempt(
            tx,
            change.claim,
            outcome_code=Outcome.ROLLED_BACK,
            reason=change.reason,
            stop_us=now_us(),
        )
        return True

    def _is_recorded(self, tx: sqlite3.Connection, change: Change) -> bool:
        """Whether this very end of the hold stands already: a transaction may be done twice."""
        return type(change) in _OUTCOMES and bool(
            tx.execute(
                """
                SELECT 1 FROM run r JOIN attempt a USING (production, run, attempt)
                WHERE r.production = ? AND r.run = ? AND r.token = ? AND r.manager IS NULL
                  AND a.outcome_code = ?
                """,
                (
                    *(self.production.id, change.claim.run, change.claim.token),
                    _OUTCOMES[type(change)],
                ),
            ).fetchall()
        )

    def _holds(self, tx: sqlite3.Connection, claim: Claim) -> bool:
        return (
            tx.execute(
                "SELECT 1 FROM run WHERE production = ? AND run = ? AND token = ? AND manager = ?",
                (self.production.id, claim.run, claim.token, self.manager),
            ).fetchone()
            is not None
        )

    def _move(
        self, tx: sqlite3.Connection, claim: Claim, assignments: str, **values: object
    ) -> bool:
        """Change the run if the claim still holds."""
        changed = tx.execute(
            f"UPDATE run SET {assignments} WHERE production = :production AND run = :run "
            "AND token = :token AND manager = :manager",
            {
                "production": self.production.id,
                "run": claim.run,
                "token": claim.token,
                "manager": self.manager,
                **values,
            },
        ).rowcount
        return changed == 1

    def _attempt(self, tx: sqlite3.Connection, claim: Claim) -> tuple[int, int | None]:
        """The attempt's id, and the number of its list of inputs."""
        row = tx.execute(
            "SELECT id, inputs FROM attempt WHERE production = ? AND run = ? AND attempt = ?",
            (self.production.id, claim.run, claim.attempt),
        ).fetchone()
        return row["id"], row["inputs"]

    def _update_attempt(self, tx: sqlite3.Connection, claim: Claim, **values: object) -> None:
        columns = ", ".join(f"{column} = ?" for column in values)
        tx.execute(
            f"UPDATE attempt SET {columns} WHERE production = ? AND run = ? AND attempt = ?",
            (*values.values(), self.production.id, claim.run, claim.attempt),
        )

    def _stop_when_done(self, tx: sqlite3.Connection) -> None:
        tx.execute(
            """
            UPDATE productions SET stop = ? WHERE id = ? AND stop IS NULL AND NOT EXISTS
                (SELECT 1 FROM tally WHERE production = productions.id
                 AND status <> 'F' AND runs > 0)
            """,
            (utc_now(), self.production.id),
        )

    # ----------------------------------------------------------------- what others left behind

    def held(self) -> list[Claim]:
        """The runs that this manager holds according to the file."""
        rows = self.db.rows(
            "SELECT run, attempt, token, failures FROM run "
            "WHERE manager = ? AND production = ? ORDER BY run",
            (self.manager, self.production.id),
        )
        return [Claim(*row) for row in rows]

    def orphans(self, dead: int) -> list[Orphan]:
        """The runs of the dead manager ``dead``, as they would be after a take-over."""
        rows = self.db.rows(
            """
            SELECT r.run, r.attempt, r.token + 1 AS token, r.failures, r.status,
                   a.token AS named, a.job, a.spool, a.batch
            FROM run r JOIN attempt a USING (production, run, attempt)
            WHERE r.manager = ? AND r.production = ? ORDER BY r.run
            """,
            (dead, self.production.id),
        )
        database = database_id(self.db)
        return [_orphan(row, self.production.label, database) for row in rows]

    def take_over(
        self, dead: int, wanted: Callable[[Orphan], bool] = lambda _: True
    ) -> list[Orphan]:
        """Make those runs of the dead manager that are ``wanted`` this manager's own.

        Of this manager itself: those that it did not know to be its own.  One that changes while
        it is looked at stays where it is, to be looked at again.
        """
        chosen = {orphan for orphan in self.orphans(dead) if wanted(orphan)}
        if dead == self.manager and not chosen:
            return []

        def take(tx: sqlite3.Connection) -> list[Orphan]:
            tx.execute(
                "UPDATE manager SET stopped = coalesce(stopped, ?) WHERE id = ? AND id <> ?",
                (utc_now(), dead, self.manager),
            )
            taken = [orphan for orphan in self.orphans(dead) if orphan in chosen]
            tx.executemany(
                "UPDATE run SET manager = ?, token = token + 1 WHERE production = ? AND run = ?",
                [(self.manager, self.production.id, orphan.claim.run) for orphan in taken],
            )
            return taken

        return self.db.transact(take)


def _node_facts(record: JobRecord) -> dict[str, object]:
    return {
        "host": record.host,
        "job_start_us": text_us(record.start),
        "job_stop_us": text_us(record.stop),
        "exit_code": record.exit_code,
        "cpu_ms": None if record.cpu_seconds is None else round(record.cpu_seconds * 1000),
        "peak_memory": record.peak_memory,
    }


def _orphan(row: Row, label: str, database: str) -> Orphan:
    claim = Claim(row["run"], row["attempt"], row["token"], row["failures"])
    status, job, batch = Status(row["status"]), row["job"], row["batch"]
    if row["spool"] is None:
        return Orphan(claim, status, None, job, None, batch)
    # The job was named by the hold under which it was submitted.
    name = job_name(label, replace(claim, token=row["named"]), database)
    return Orphan(claim, status, name, job, Path(row["spool"]), batch)
