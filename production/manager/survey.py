"""A production as displays show it: what the database says, and what one manager knows better."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from production.manager.work import Phase, Work
from production.model import Production, Status, Usage
from production.store import productions
from production.store.connection import Database, text_us
from production.store.reports.runs import RunQuery, find
from production.store.reports.standing import ActiveRun, Standing, active_runs, standing
from production.view.base import ManagerLine, RunLine, Snapshot

LOOK_EVERY = 10.0  # seconds between two looks at more than the counts
LOOK_REST = 10.0  # times as long as a look in between has computed, until the next one
MOST_ASKED = 200  # spools that are looked into again at a time
MOST_FAILED = 200  # failed runs that are shown
_FAILED = ("run", "dataset", "attempt", "user", "stop", "reason", "olog", "elog")


class Survey:
    """What is known of a production; asks the database as seldom as will do.

    ``host_of`` tells where the job of a spool runs, "" when it has not started yet; without it, it
    is not known of the jobs of others whether they wait or run.
    """

    def __init__(
        self,
        db: Database,
        production: Production,
        every: float = LOOK_EVERY,
        host_of: Callable[[Path], str] | None = None,
    ) -> None:
        self._db = db
        self._production = production
        self._every = every
        self._host_of = host_of
        self._hosts: dict[str, str] = {}  # by spool; "" where the job waits
        self._looked: float | None = None  # monotonic
        self._rests_until = 0.0  # monotonic; runs are looked at before only if all is
        self._standing: Standing
        self._active: Mapping[int, ActiveRun] = {}
        self._failed: list[RunLine] = []

    def snapshot(
        self,
        own: Iterable[Work] = (),
        *,
        usage: Usage | None,
        spacelim: float,
        manager: int | None = None,
        paused: bool = False,
    ) -> Snapshot:
        """The production now; ``own`` are the runs that ``manager`` holds."""
        now = time.monotonic()
        works = list(own)
        if self._looked is None or now - self._looked >= self._every:
            self._look()
            self._looked = now
        elif now >= self._rests_until and any(not self._knows(work) for work in works):
            self._look_at_runs()
        self._look_into_spools()
        lines = [self._complete(_line(work, now)) for work in works]
        held = {line.run for line in lines}
        wall = time.time()
        lines += [
            self._others(run, wall)
            for run in self._active.values()
            # What it has let go of since the last look is in nobody's hands as far as is known.
            if run.run not in held and run.manager != manager
        ]
        held = {line.run for line in lines}
        lines += [line for line in self._failed if line.run not in held]
        return Snapshot(
            self._production,
            productions.counts(self._db, self._production.id),
            usage,
            spacelim,
            tuple(lines),
            self._standing.rate,
            self._managers(),
            manager,
            paused,
        )

    # ----------------------------------------------------------------- the database

    def _look(self) -> None:
        self._look_at_runs()
        self._standing = standing(self._db, self._production)
        query = RunQuery(
            (self._production,),
            statuses=frozenset({Status.ERROR}),
            columns=_FAILED,
            limit=MOST_FAILED,
        )
        wall = time.time()
        found = find(self._db, query).rows
        self._failed = [_failed(dict(zip(_FAILED, row, strict=True)), wall) for row in found]

    def _look_at_runs(self) -> None:
        began = time.thread_time()
        self._active = {run.run: run for run in active_runs(self._db, self._production)}
        spools = {run.spool for run in self._active.values()}
        self._hosts = {spool: host for spool, host in self._hosts.items() if spool in spools}
        self._rests_until = time.monotonic() + LOOK_REST * (time.thread_time() - began)

    def _look_into_spools(self) -> None:
        """Find hosts: for jobs that are new, and for those that waited when last asked for."""
        if self._host_of is None:
            return
        with_job = (run.spool for run in self._active.values() if run.status is Status.RUNNING)
        new = [spool for spool in with_job if spool and spool not in self._hosts]
        waiting = [spool for spool, host in self._hosts.items() if not host]
        for spool in (*new, *waiting[:MOST_ASKED]):
            self._hosts.pop(spool, None)
            self._hosts[spool] = self._host_of(Path(spool))  # the last in turn

    def _knows(self, work: Work) -> bool:
        known = self._active.get(work.run)
        return known is not None and known.attempt == work.claim.attempt

    def _managers(self) -> tuple[ManagerLine, ...]:
        holds: dict[int, int] = {}
        for run in self._active.values():
            holds[run.manager] = holds.get(run.manager, 0) + 1
        return tuple(
            ManagerLine(w.id, w.user, w.host or "?", holds.get(w.id, 0))
            for w in self._standing.at_work
        )

    # ----------------------------------------------------------------- one run

    def _complete(self, line: RunLine) -> RunLine:
        """What only the database knows of a run of one's own."""
        known = self._active.get(line.run)
        if known is None or known.attempt != line.attempt:
            return line
        return replace(
            line,
            dataset=",".join(known.datasets),
            user=known.user,
            reason=known.last_reason or "",
            logs=_logs(known.olog, known.elog),
        )

    def _others(self, run: ActiveRun, wall: float) -> RunLine:
        phase, words = run.phase, ""
        if run.status is Status.RUNNING:
            job = f"job {run.job}"
            host = self._hosts.get(run.spool or "")
            phase = "submitted" if host is None else "running" if host else "queued"
            words = f"on {host}, {job}" if host else job
        return RunLine(
            run.run,
            phase,
            _seconds(run.since, wall),
            detail=words,
            dataset=",".join(run.datasets),
            attempt=run.attempt,
            user=run.user,
            reason=run.last_reason or "",
            logs=_logs(run.olog, run.elog),
        )


def _line(work: Work, now: float) -> RunLine:
    """A run of one's own."""
    phase, words = work.phase.value, work.waits_for
    if work.phase is Phase.RUNNING:
        job = f"job {work.job}" if work.job else ""
        phase = "queued" if work.pending else "running"
        words = ", ".join(text for text in (f"on {work.host}" if work.host else "", job) if text)
    elif work.phase is Phase.CLAIMED and not words:
        words = "waiting for its tape" if work.waits_since else "waiting for its transfer"
    elif work.phase is Phase.READY and not words:
        words = "waiting for a job"
    return RunLine(
        work.run, phase, now - work.since, work.done, work.total, words, attempt=work.claim.attempt
    )


def _failed(row: Mapping[str, object], wall: float) -> RunLine:
    return RunLine(
        int(str(row["run"])),
        "error",
        _seconds(row["stop"], wall),
        detail=str(row["reason"] or ""),
        dataset=str(row["dataset"] or ""),
        attempt=int(str(row["attempt"])),
        user=str(row["user"] or ""),
        logs=_logs(row["olog"], row["elog"]),
    )


def _seconds(since: object, wall: float) -> float:
    """How long ago, as far as the clocks agree; 0 where an old database does not tell."""
    moment = text_us(since) if isinstance(since, str) else None
    return max(wall - moment / 1e6, 0.0) if isinstance(moment, int) else 0.0


def _logs(*names: object) -> tuple[Path, ...]:
    return tuple(Path(str(name)) for name in names if name)
