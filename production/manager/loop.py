"""The manager: moves runs along the corridor, one change of status = one short transaction.

::

    claim ──► stage ──► fetch ──► ready ──► submit ──► watch ──► settle ──► recorded
      N→C                                     C→R                             R→F, N or E
    ╰──────────── intake ──────────────╯  ╰──────────── jobs ────────────╯

One thread owns the database and all state here.  Transfers, batch commands and file handling run
in lanes beside it and hand their results back, so nothing that hangs holds up the rest.  What
becomes of runs is collected and recorded in one transaction a turn.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from production.errors import Interrupted, ProductionError, SpoolTrouble
from production.manager import recovery, settle
from production.manager.intake import Intake
from production.manager.jobs import Jobs
from production.manager.lanes import Lane, Results
from production.manager.paths import Paths
from production.manager.plan import JobSettings
from production.manager.rest import LONGEST_WAIT
from production.manager.settings import Rooms, Settings
from production.manager.work import Phase, Work
from production.model import Change, Failed, Production, Released, Status
from production.store import managers, productions
from production.store.connection import Database
from production.store.identity import this_process
from production.store.runs import RunStore
from production.view.base import RunLine, Snapshot, View

REPAIR_EVERY = 30.0  # seconds between looks for dead managers
SNAPSHOT_EVERY = 1.0  # seconds


class Manager:
    """One running manager of one production.

    ``run`` returns when nothing is left to do here, or raises: Interrupted after a signal,
    anything else for trouble that concerns all runs.  In each case what was begun is rolled back.
    """

    def __init__(
        self,
        db: Database,
        base: Production | None,
        paths: Paths,
        job: JobSettings,
        rooms: Rooms,
        settings: Settings,
        view: View,
    ) -> None:
        self.db = db
        self.production = paths.production
        self.base = base
        self.paths = paths
        self.job = job
        self.rooms = rooms
        self.settings = settings
        self.view = view
        self.works: dict[int, Work] = {}
        self.results = Results()
        self.lanes = {
            name: Lane(name, self.results) for name in ("transfer", "batch", "files", "probe")
        }
        self.intake = Intake(self)
        self.jobs = Jobs(self)
        self.lease_watch = managers.LeaseWatch()
        self.store: RunStore
        self._signum: int | None = None
        self._changes: list[tuple[Change, Callable[[], None]]] = []
        self._due: dict[str, float] = {}

    # ----------------------------------------------------------------- the loop

    def run(self) -> None:
        """Work until nothing is left."""
        self.db.check = self._check_interrupt
        self.db.patience = math.inf
        self.db.on_wait = lambda: self.say(
            "The database is locked by somebody else's session; waiting", level="warning"
        )
        self._check_interrupt()
        who = managers.register(self.db, this_process(), self.production.id, self.settings.lease)
        self.store = RunStore(self.db, self.production, who)
        try:
            recovery.sweep(self)
            while True:
                self._check_interrupt()
                self._cycle()
                self.intake.advance()
                self.jobs.advance()
                self.flush()
                if self._nothing_left():
                    break
                self.results.deliver(min(self._due.values()) - time.monotonic())
            managers.sign_off(self.db, who)
        except BaseException as error:
            recovery.roll_back(self, error)
            raise

    def interrupt(self, signum: int) -> None:
        """Have the loop stop and roll back; for signal handlers."""
        self._signum = signum
        self.results.put(lambda: None)

    def say(self, text: str, *, level: str = "info") -> None:
        """Tell the user."""
        self.view.message(text, level=level)

    def warn(self, trouble: ProductionError, outlook: str) -> None:
        """Tell the user of trouble that concerns more than one run, and what is done about it."""
        self.say(f"{str(trouble).rstrip('.')}. {outlook}", level="warning")

    def wake_at(self, what: str, when: float | None) -> None:
        """Have the loop turn at ``when`` (monotonic) at the latest; None: no more for ``what``."""
        self._due.pop(what, None)
        if when is not None:
            self._due[what] = when

    def _check_interrupt(self) -> None:
        if self._signum is not None:
            raise Interrupted(self._signum)

    def _cycle(self) -> None:
        """What is done at intervals."""
        if self._is_due("beat", min(self.settings.lease / 3, 60.0)):
            self._beat()
        if self._is_due("repair", max(REPAIR_EVERY, self.settings.pause)):
            recovery.repair(self)
        if self._is_due("cycle", self.settings.pause):
            self.intake.look()
            self.jobs.look()
        if self.view.live and self._is_due("snapshot", SNAPSHOT_EVERY):
            self.view.update(self._snapshot())

    def _nothing_left(self) -> bool:
        return (
            not self.works
            and not self.lanes["files"].busy
            and not self.store.next_due(self.settings.filter)
        )

    def _is_due(self, what: str, interval: float) -> bool:
        now = time.monotonic()
        if now < self._due.get(what, 0.0):
            return False
        self._due[what] = now + interval
        return True

    def _beat(self) -> None:
        if managers.beat(self.db, self.store.manager):
            return
        still_mine = {claim.run: claim.token for claim in self.store.held()}
        for work in list(self.works.values()):
            if still_mine.get(work.run) != work.claim.token:
                self._drop(work)

    def _snapshot(self) -> Snapshot:
        now = time.monotonic()
        lines = tuple(
            RunLine(w.run, w.phase.value, now - w.since, w.done, w.total, w.job or "")
            for w in self.works.values()
        )
        return Snapshot(
            self.production, self.counts(), self.intake.usage, self.settings.spacelim, lines
        )

    def counts(self) -> dict[Status, int]:
        """Where the production's runs stand."""
        return productions.counts(self.db, self.production.id)

    # ----------------------------------------------------------------- recording

    def record(self, change: Change, then: Callable[[], None] = lambda: None) -> None:
        """Have ``change`` recorded with the others of this turn; ``then`` if it was accepted."""
        self._changes.append((change, then))

    def flush(self) -> None:
        """Record what has been collected, which may lead to more."""
        while self._changes:
            changes, self._changes = self._changes, []
            lost = set(self.store.apply([change for change, _ in changes]))
            for change, then in changes:
                if change.claim in lost:
                    self._drop(self.works.get(change.claim.run))
                else:
                    then()

    def _drop(self, work: Work | None) -> None:
        """Let go of a run that somebody else has taken over, and touch nothing that is theirs."""
        if work is not None:
            self.say(f"Run {work.run} was taken over by somebody else", level="warning")
            work.stop.set()
            del self.works[work.run]

    # ----------------------------------------------------------------- how attempts end

    def fail(self, work: Work, reason: str) -> None:
        """End an attempt that got into trouble before its job ran."""
        self._give_up(work, self.failure(work, reason))

    def release(self, work: Work, reason: str) -> None:
        """Return a claim that has no job, without blame."""
        self._give_up(work, Released(work.claim, reason))

    def failure(self, work: Work, reason: str) -> Failed:
        """The change that ends an attempt as failed."""
        return Failed(work.claim, reason, self.wait_after(work), self.settings.max_attempts)

    def wait_after(self, work: Work) -> float:
        """Seconds before a run that fails now is tried again."""
        first = self.settings.back_off
        return float(min(first * 2**work.claim.failures, max(first, LONGEST_WAIT)))

    def _give_up(self, work: Work, change: Change) -> None:
        work.move(Phase.ENDING)
        work.stop.set()
        # Behind a transfer of this run that is being stopped, so that no file appears afterwards.
        self.lanes["transfer"].do(
            lambda: None,
            lambda _: self._tidy(lambda: settle.discard(work), lambda: self.conclude(work, change)),
        )

    def conclude(self, work: Work, change: Change) -> None:
        """Record how the attempt ended, tell the user, and remove the spool."""

        def recorded() -> None:
            if isinstance(change, Failed):
                last = work.claim.failures + 1 >= change.max_attempts
                again = "no attempts left" if last else f"next try in {change.wait:.0f} s"
                self.say(f"Failed run: {work.run}: {change.reason} ({again})", level="warning")
            elif isinstance(change, Released):
                self.say(f"Released run: {work.run}: {change.reason}")
            else:
                self.say(f"Finished run: {work.run}")
            self.works.pop(work.run, None)
            self.intake.may_claim = True
            self._tidy(lambda: settle.discard_spool(work))

        self.record(change, recorded)

    def _tidy(self, action: Callable[[], None], then: Callable[[], None] = lambda: None) -> None:
        """Remove files; one that cannot be removed is worth a word, not a failure."""

        def done(result: Any) -> None:
            if isinstance(result, SpoolTrouble):
                self.say(str(result), level="warning")
            elif isinstance(result, BaseException):
                raise result
            then()

        self.lanes["files"].do(action, done)
