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

import contextlib
import math
import time

from production.errors import Interrupted, StoreError
from production.identity import this_process
from production.manager import recovery
from production.manager.desk import Desk
from production.manager.intake import Intake
from production.manager.jobs import Jobs
from production.manager.steering import Steering
from production.manager.survey import Survey
from production.store import managers, requests
from production.store.runs import RunStore
from production.view.base import Snapshot, tell_of_waits

REPAIR_EVERY = 30.0  # seconds between looks at what is held by whom
SNAPSHOT_EVERY = 1.0  # seconds at least
SNAPSHOT_REST = 10.0  # times as long as one has computed, until the next one


class Manager:
    """One running manager of one production.

    ``run`` returns when nothing is left to do here, or raises: Interrupted after a signal,
    anything else for trouble that concerns all runs.  In each case what was begun is rolled back.
    """

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self._intake = Intake(desk)
        self._jobs = Jobs(desk)
        self._steering = Steering(desk, self.interrupt)
        self._survey = Survey(desk.db, desk.production)
        self._signum: int | None = None

    def run(self) -> None:
        """Work until nothing is left."""
        desk = self.desk
        db = desk.db
        db.check = self._check_interrupt
        db.patience, db.enduring = math.inf, True
        db.on_wait = tell_of_waits(desk.view)
        self._check_interrupt()
        who = managers.register(db, this_process(), desk.production.id, desk.settings.lease)
        desk.store = RunStore(db, desk.production, who)
        desk.detail(f"Registered as manager {who} with a lease of {desk.settings.lease} s")
        try:
            how = desk.settings
            requests.note_start(db, who, this_process(), how.filter, how.nproc, how.spacelim)
            recovery.sweep(desk)
            while True:
                self._check_interrupt()
                self._cycle()
                self._intake.advance()
                self._jobs.advance()
                desk.flush()
                if self._nothing_left():
                    break
                if desk.leaving:
                    recovery.leave(desk)
                    return
                desk.results.deliver(min(desk.due.values()) - time.monotonic(), self._beat_in_time)
            recovery.sweep(desk)
            managers.sign_off(db, who)
        except BaseException as error:
            recovery.roll_back(desk, error)
            raise

    def interrupt(self, signum: int) -> None:
        """Have the loop stop and roll back; for signal handlers."""
        self._signum = signum
        self.desk.results.put(lambda: None)

    def _check_interrupt(self) -> None:
        if self._signum is not None:
            raise Interrupted(self._signum)

    def _cycle(self) -> None:
        """What is done at intervals."""
        desk = self.desk
        self._beat_in_time()
        if self._is_due("repair", REPAIR_EVERY):
            recovery.let_go_of_lost(desk)
            recovery.repair(desk)
        if self._is_due("cycle", desk.settings.pause):
            self._steering.look()
            self._intake.look()
            self._jobs.look()
        if not desk.view.live:
            desk.wake_at("snapshot", None)  # a display may have switched itself off
        elif self._is_due("snapshot", SNAPSHOT_EVERY):
            began = time.thread_time()
            with contextlib.suppress(StoreError):  # what is recorded meets it as well, and waits
                desk.view.update(self._snapshot())
            rest = SNAPSHOT_REST * (time.thread_time() - began)
            desk.wake_at("snapshot", time.monotonic() + max(SNAPSHOT_EVERY, rest))

    def _nothing_left(self) -> bool:
        desk = self.desk
        return (
            not desk.works
            and not desk.lanes["files"].busy
            and not self._steering.busy
            and not desk.store.held()  # without knowing it: the next repair takes it in hand
            and (
                bool(desk.closing)
                or not (
                    desk.store.has_waiting(desk.settings.filter) or recovery.may_have_more(desk)
                )
            )
        )

    def _is_due(self, what: str, interval: float) -> bool:
        now = time.monotonic()
        if now < self.desk.due.get(what, 0.0):
            return False
        self.desk.due[what] = now + interval
        return True

    def _beat_in_time(self) -> None:
        """Give the sign of life when it is due, and let go of what was lost in the meantime.

        Before any result is looked at: after a long stop (SIGSTOP, a suspended host) the jobs that
        it is about may be somebody else's.
        """
        desk = self.desk
        if self._is_due("beat", min(desk.settings.lease / 3, 60.0)) and not managers.beat(
            desk.db, desk.store.manager
        ):
            recovery.let_go_of_lost(desk)

    def _snapshot(self) -> Snapshot:
        desk = self.desk
        return self._survey.snapshot(
            desk.works.values(),
            usage=self._intake.room.usage,
            spacelim=desk.settings.spacelim,
            manager=desk.store.manager,
            paused=desk.paused,
        )
