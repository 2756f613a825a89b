"""The second half of the corridor: submits jobs, watches them, finds out how they ended."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from production.batch.base import Answer
from production.errors import (
    BatchError,
    CommandError,
    NoSpaceLeft,
    SpoolTrouble,
    SubmissionRefused,
    TooManyFailures,
)
from production.manager import settle
from production.manager.desk import Desk
from production.manager.plan import plan_job
from production.manager.rest import Rest
from production.manager.throttle import FailureWatch, RateLimit
from production.manager.work import WITH_JOB, Phase, Work
from production.model import Change, Failed, Finished, Intended, Released, Submitted
from production.units import counted


def _is_open(answer: Answer) -> bool:
    """Whether it is not known what became of a job that was submitted."""
    return isinstance(answer, BatchError) and not isinstance(answer, SubmissionRefused)


def _accounting_time(work: Work, look: settle.Look) -> float:
    """Seconds in which the accounting may tell how a job ended, longer while it does not answer."""
    return work.batch.accounting_lag * (_SILENT if work.name in look.unexplained else 1)


# Seconds; one question a minute is no load, and people wait for a batch system that is back.
_LONGEST_QUERY_REST = 60.0
_SILENT = 5  # a run does not wait for ever for an accounting that is broken
# Jobs with one submission: so that the first ones start while the others are being prepared.
MOST_AT_ONCE = 1000


class Jobs:
    """Up to nproc jobs at a time."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._query_rest = Rest(_LONGEST_QUERY_REST)
        self._submit_rest = Rest()
        self._rate = RateLimit(desk.settings.max_submit_rate)
        self._failures = FailureWatch(desk.settings.max_failures)

    def advance(self) -> None:
        """Each turn: send what is ready on its way, as many as may have a job."""
        desk = self._desk
        desk.wake_at("submit", None)
        if desk.paused or desk.closing:
            return
        busy = sum(work.phase in {Phase.PREPARING, *WITH_JOB} for work in desk.works.values())
        free = desk.settings.nproc - busy
        # While a submission is under way the next ones gather, to go with one call.
        if free > 0 and not self._submit_rest.resting and not desk.lanes["batch"].busy:
            ready = [work for work in desk.works.values() if work.phase is Phase.READY]
            wanted = len(ready[: min(free, MOST_AT_ONCE)])
            if works := ready[: self._rate.allowed(wanted)]:
                self._rate.take(len(works))
                self._prepare(works)
            if len(works) < wanted:
                desk.wake_at("submit", self._rate.next)

    # ----------------------------------------------------------------- submit

    def _prepare(self, works: Sequence[Work]) -> None:
        desk = self._desk
        orders = []
        for work in works:
            work.move(Phase.PREPARING)
            work.order = plan_job(work.paths, work.claim, work.inputs, desk.job)
            orders.append(work.order)
        desk.lanes["files"].do(
            lambda: settle.prepare(orders, desk.paths.done, desk.job.modules_text),
            lambda result: self._prepared(works, result),
        )

    def _prepared(self, works: Sequence[Work], result: Any) -> None:
        if isinstance(result, BaseException):
            raise result
        for work, trouble in zip(works, result, strict=True):
            if work.phase is not Phase.PREPARING or work.stop.is_set():
                continue  # given up in the meantime
            if trouble is None and self._is_out_of_date(work):
                self._put_off(work)
            elif trouble is None:
                self._intend(work)
            elif isinstance(trouble, NoSpaceLeft):
                self._desk.no_room(work, trouble)
            else:
                self._desk.fail(work, str(trouble))
        self._desk.flush()  # the intent must stand before the batch system hears of the jobs
        self._submit([work for work in works if work.phase is Phase.SUBMITTING])

    def _is_out_of_date(self, work: Work) -> bool:
        """Whether something was asked for while its orders were being written."""
        desk = self._desk
        order = work.order
        moved = order is not None and order.requirements != desk.job.requirements
        return moved or desk.paused or bool(desk.closing)

    def _put_off(self, work: Work) -> None:
        """A job that was not submitted: later, or not at all."""
        work.move(Phase.READY)
        if self._desk.closing:
            self._desk.release(work, self._desk.closing)

    def _intend(self, work: Work) -> None:
        order = work.order
        assert order is not None  # noqa: S101 - planned a moment ago
        work.move(Phase.SUBMITTING)
        self._desk.say(f"Submitting run: {work.run}")
        self._desk.record(
            Intended(
                work.claim,
                batch=work.batch.name,
                spool=order.spool,
                modules=self._desk.job.modules_text,
                olog=order.stdout,
                elog=order.stderr,
                inputs=work.read,
            )
        )

    def _submit(self, works: Sequence[Work]) -> None:
        desk = self._desk
        held = [work for work in works if desk.works.get(work.run) is work]
        orders = [work.order for work in held if work.order is not None]
        if orders:
            desk.lanes["batch"].do(
                lambda: desk.rooms.batch.submit(orders),
                lambda result: self._submitted(held, result),
            )

    def _submitted(self, works: Sequence[Work], result: list[Answer] | BaseException) -> None:
        if isinstance(result, BaseException):
            raise result
        desk = self._desk
        troubles = [answer for answer in result if _is_open(answer)]
        accepted = sum(isinstance(answer, str) for answer in result)
        jobs = counted(len(works), "job")
        desk.detail(f"{desk.rooms.batch.name} accepted {accepted} of {jobs}")
        if any(isinstance(answer, str) for answer in result) or not troubles:
            self._submit_rest.over()
        elif self._submit_rest.begin(desk.settings.pause):
            desk.say(f"{str(troubles[0]).rstrip('.')}. Will try again later.", level="warning")
        for work, answer in zip(works, result, strict=True):
            if work.phase is not Phase.SUBMITTING or _is_open(answer):
                continue  # perhaps it was accepted: it is looked up by its name from now on
            if answer is None:
                self._put_off(work)
            elif isinstance(answer, NoSpaceLeft):
                desk.no_room(work, answer)
            elif isinstance(answer, BatchError):
                desk.fail(work, str(answer))
                self._count_failure(work, str(answer))
            else:
                desk.space_rest.over()
                work.job, work.order = answer, None
                self._record_submission(work)

    def _record_submission(self, work: Work) -> None:
        def recorded() -> None:
            work.submitted = True

        if not work.submitted:
            self._desk.record(Submitted(work.claim, work.job or work.name), recorded)
        if work.phase is Phase.SUBMITTING:
            work.move(Phase.RUNNING)

    # ----------------------------------------------------------------- watch

    def look(self) -> None:
        """Once a cycle, for all jobs at once: which left a record, which does the system know."""
        desk = self._desk
        works = [work for work in desk.works.values() if work.phase in WITH_JOB]
        if works and not desk.lanes["batch"].busy:
            ask = not self._query_rest.resting
            desk.lanes["batch"].do(lambda: settle.look(works, ask), self._looked)

    def _looked(self, result: Any) -> None:
        if isinstance(result, BaseException):
            raise result
        if result.trouble is not None:
            if self._query_rest.begin(self._desk.settings.pause):
                self._desk.say(str(result.trouble), level="warning")
        elif result.asked:
            self._query_rest.over()
            self._desk.detail(_told(result), about="jobs")
        now = time.monotonic()
        for work in (*result.ended, *result.gone):
            if result.answered:  # the accounting's time counts only while it can be asked
                work.missing_since = work.missing_since or now
            work.met_full_disk |= self._desk.disk_is_full
            work.why = work.given_up or result.reasons.get(work.name, work.why)
        self._cancel(result.requeued)  # they would only find that they were started before
        for work in result.ended:
            since = now if work.missing_since is None else work.missing_since
            waits = work in result.killed and not work.why
            known_now = result.answered and now - since >= _accounting_time(work, result)
            if not waits or known_now:
                self._settle(work)
        for work in result.gone:
            work.unstarted = work in result.unstarted
            # Its exit record may still be on its way through a network filesystem, and its
            # accounting on its way to a file or database.
            grace = self._desk.settings.record_grace
            if work.submitted and not work.why:
                grace = max(grace, _accounting_time(work, result))
            if now - work.missing_since >= grace:
                self._settle(work)
        self._cancel(
            [w for w in result.held if self._is_overdue(w, result.reasons.get(w.name, "held"))]
        )
        for work in result.known:
            work.missing_since = None
            if work not in result.held:
                work.held_since = None
            if work.pending and work not in result.pending and work.phase is Phase.RUNNING:
                work.since = now  # it has waited until now
            work.pending = work in result.pending
            work.host = work.host or result.hosts.get(work.name, "")
            if work.phase is Phase.SUBMITTING:  # the answer to its submission never came
                self._record_submission(work)

    def _is_overdue(self, work: Work, why: str) -> bool:
        """A held job is told of, waited for so long, and then cancelled: nobody may ever come."""
        desk = self._desk
        now = time.monotonic()
        if work.held_since is None:
            work.held_since = now
            patience = desk.settings.hold_timeout
            what = f"Run {work.run}: its job {work.job or work.name} is {why}"
            desk.say(
                f"{what}. It is cancelled unless it goes on in {patience:.0f} s", level="warning"
            )
        elif now - work.held_since >= desk.settings.hold_timeout:
            work.held_since = now  # once more when this does not help
            work.given_up = f"{why}; it was cancelled after {desk.settings.hold_timeout:.0f} s"
            return True
        return False

    def _cancel(self, works: Iterable[Work]) -> None:
        own = [work for work in works if not work.stop.is_set()]  # and was not lost meanwhile
        for system, handles in settle.by_system(own):
            self._desk.lanes["batch"].do(partial(system.cancel, handles), self._cancelled)

    def _cancelled(self, result: Any) -> None:
        if isinstance(result, BatchError | CommandError):
            self._desk.warn(result, "Will try again later.")
        elif isinstance(result, BaseException):
            raise result

    # ----------------------------------------------------------------- settle

    def _settle(self, work: Work) -> None:
        """Find out how the attempt ended, put its files in order, record it."""
        if work.phase not in WITH_JOB or work.stop.is_set():
            return  # lost, or already being settled
        desk = self._desk
        work.move(Phase.ENDING)
        desk.lanes["files"].do(
            lambda: settle.settle(work, desk.settings.max_attempts, desk.wait_after(work)),
            lambda result: self._settled(work, result),
        )

    def _settled(self, work: Work, result: Change | BaseException) -> None:
        # Either tells nothing about the job: look again later.
        if isinstance(result, SpoolTrouble | settle.StartedAfterAll):
            if isinstance(result, settle.StartedAfterAll):
                work.missing_since = None
            elif work.trouble != str(result):
                work.trouble = str(result)
                self._desk.say(work.trouble, level="warning")
            work.move(Phase.RUNNING if work.submitted else Phase.SUBMITTING)
            return
        if isinstance(result, BaseException):
            raise result
        if isinstance(result, Failed) and work.met_full_disk:
            result = Released(result.claim, f"the disk was full: {result.reason}")
        if not isinstance(result, Released):
            self._record_submission(work)
        self._desk.conclude(work, result)
        if isinstance(result, Finished):
            self._failures.count(ok=True)
        elif isinstance(result, Failed):
            self._count_failure(work, result.reason)

    def _count_failure(self, work: Work, reason: str) -> None:
        """When too many jobs fail, it is most likely for a reason that the next ones share."""
        desk = self._desk
        self._failures.count(ok=False)
        if not self._failures.verdict or desk.closing:
            return
        trouble = TooManyFailures(what=self._failures.verdict, run=work.run, reason=reason)
        desk.trouble = trouble
        desk.warn(trouble, "Jobs that run go on.")
        desk.close("too many jobs have failed")


def _told(look: settle.Look) -> str:
    """How many jobs are where, by what the batch system and the spool tell."""
    running = len(look.known) - len(look.pending) - len(look.held)
    counts = {
        "pending": len(look.pending),
        "held": len(look.held),
        "running": running,
        "ended": len(look.ended),
        "gone without a record": len(look.gone),
    }
    return f"Jobs: {', '.join(f'{count} {where}' for where, count in counts.items() if count)}"
