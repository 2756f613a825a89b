"""The second half of the corridor: submits jobs, watches them, finds out how they ended."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from production.errors import BatchError, ProductionError, SpoolTrouble
from production.manager import settle
from production.manager.plan import plan_job
from production.manager.rest import Rest
from production.manager.work import WITH_JOB, Phase, Work
from production.model import Change, Intended, JobOrder, Released, Submitted

if TYPE_CHECKING:
    from production.manager.loop import Manager


class Jobs:
    """Up to nproc jobs at a time."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._query_rest = Rest()
        self._submit_rest = Rest()

    def advance(self) -> None:
        """Each turn: submit what is ready, all with one call."""
        manager = self._manager
        with_job = sum(work.phase in WITH_JOB for work in manager.works.values())
        free = manager.settings.nproc - with_job
        if free <= 0 or self._submit_rest.resting or manager.lanes["batch"].busy:
            return
        ready = [work for work in manager.works.values() if work.phase is Phase.READY]
        if works := ready[:free]:
            self._submit(works)

    # ----------------------------------------------------------------- submit

    def _submit(self, works: Sequence[Work]) -> None:
        manager = self._manager
        orders: dict[int, JobOrder] = {}
        for work in works:
            order = plan_job(work.paths, work.claim, work.inputs, manager.job)
            orders[work.run] = order
            work.move(Phase.SUBMITTING)
            manager.say(f"Submitting run: {work.run}")
            manager.record(
                Intended(
                    work.claim,
                    order.name,
                    work.batch.name,
                    order.spool,
                    manager.job.modules_text,
                    order.stdout,
                    order.stderr,
                )
            )
        manager.flush()  # the intent must stand before the batch system hears of the jobs
        held = [work for work in works if manager.works.get(work.run) is work]
        manager.lanes["batch"].do(
            lambda: settle.submit(
                manager.rooms.batch,
                [orders[work.run] for work in held],
                manager.paths.done,
                manager.job.modules_text,
            ),
            lambda result: self._submitted(held, result),
        )

    def _submitted(self, works: Sequence[Work], result: Any) -> None:
        if isinstance(result, BatchError):
            # Perhaps the jobs were accepted: they are looked up by name from now on.
            if self._submit_rest.begin(self._manager.settings.pause):
                self._manager.warn(result, "Will try again later.")
            return
        if isinstance(result, BaseException):
            raise result
        self._submit_rest.over()
        for work, answer in zip(works, result, strict=True):
            if work.phase is not Phase.SUBMITTING:
                continue
            if isinstance(answer, ProductionError):
                self._manager.fail(work, str(answer))
            else:
                work.job = answer
                self._record_submission(work)

    def _record_submission(self, work: Work) -> None:
        if not work.submitted:
            work.submitted = True
            self._manager.record(Submitted(work.claim, work.job or work.name))
        if work.phase is Phase.SUBMITTING:
            work.move(Phase.RUNNING)

    # ----------------------------------------------------------------- watch

    def look(self) -> None:
        """Once a cycle, for all jobs at once: which left a record, which does the system know."""
        manager = self._manager
        works = [work for work in manager.works.values() if work.phase in WITH_JOB]
        if works and not manager.lanes["batch"].busy:
            ask = not self._query_rest.resting
            manager.lanes["batch"].do(lambda: settle.look(works, ask), self._looked)

    def _looked(self, result: Any) -> None:
        if isinstance(result, BaseException):
            raise result
        if result.trouble is not None:
            if self._query_rest.begin(self._manager.settings.pause):
                self._manager.say(str(result.trouble), level="warning")
        elif result.asked:
            self._query_rest.over()
        for work in result.ended:
            self._settle(work)
        now = time.monotonic()
        for work in result.gone:
            # Its exit record may still be on its way through a network filesystem.
            work.missing_since = work.missing_since or now
            if now - work.missing_since >= self._manager.settings.record_grace:
                self._settle(work)
        for work in result.known:
            work.missing_since = None
            if work.phase is Phase.SUBMITTING:  # the answer to its submission never came
                self._record_submission(work)

    # ----------------------------------------------------------------- settle

    def _settle(self, work: Work) -> None:
        """Find out how the attempt ended, put its files in order, record it."""
        if work.phase not in WITH_JOB or work.stop.is_set():
            return  # lost, or already being settled
        manager = self._manager
        work.move(Phase.ENDING)
        manager.lanes["files"].do(
            lambda: settle.settle(work, manager.settings.max_attempts, manager.wait_after(work)),
            lambda result: self._settled(work, result),
        )

    def _settled(self, work: Work, result: Change | BaseException) -> None:
        if isinstance(result, SpoolTrouble):  # tells nothing about the job: look again later
            if work.trouble != str(result):
                work.trouble = str(result)
                self._manager.say(work.trouble, level="warning")
            work.move(Phase.RUNNING if work.submitted else Phase.SUBMITTING)
            return
        if isinstance(result, BaseException):
            raise result
        if not isinstance(result, Released):
            self._record_submission(work)
        self._manager.conclude(work, result)
