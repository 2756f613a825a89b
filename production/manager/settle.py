"""What is done with a run's files around its job; runs in the manager's lanes.

Nothing here touches the database or the manager's state: each function looks at or changes files
and says what was found.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from production.batch.base import BatchSystem
from production.errors import (
    CommandError,
    ProductionError,
    QueryFailed,
    RecordDamaged,
    SpoolTrouble,
    file_trouble,
)
from production.job import clean
from production.job.fence import REVOKED, STARTED, forestall, revoke, started_on
from production.job.orders import write_orders
from production.job.record import RECORD, read_record
from production.job.verdict import judge, lost, was_ended_from_outside
from production.manager.plan import MODULES_NAME
from production.manager.work import Work
from production.model import (
    Change,
    Failed,
    Finished,
    JobHandle,
    JobOrder,
    JobRecord,
    JobState,
    Released,
    Verdict,
)

_PUT_BACK = "put back into its queue to be started again"
# In all batch systems' words for the wrapper that found its attempt started before
# (sge_scripts/job.sh).
_STARTED_AGAIN = re.compile(r"with exit code 91\b")


@dataclass(frozen=True)
class Look:
    """What one look at all jobs has shown."""

    ended: Sequence[Work]  # have left their record
    gone: Sequence[Work]  # no record, and the batch system does not know them
    known: Sequence[Work]  # pending, held or running
    held: Collection[Work] = ()  # do not go on by themselves
    unstarted: Collection[Work] = ()  # of ``gone``
    pending: Collection[Work] = ()  # have not started
    hosts: Mapping[str, str] = field(default_factory=dict)  # nodes of others, by name
    killed: Collection[Work] = ()  # of ``ended``: from outside, and it is not known yet why
    requeued: Collection[Work] = ()  # of ``killed``: the batch system would start them again
    # Why jobs of ``gone`` and ``killed`` ended and those of ``held`` are, by name.
    reasons: Mapping[str, str] = field(default_factory=dict)
    unexplained: Collection[str] = ()  # by name, those about which the accounting did not answer
    asked: bool = True
    trouble: QueryFailed | None = None  # the batch system did not answer: nothing is known

    @property
    def answered(self) -> bool:
        """Whether the batch system was asked, and told."""
        return self.asked and self.trouble is None


def prepare(
    orders: Sequence[JobOrder], done: Path, modules: str | None
) -> list[ProductionError | None]:
    """Write down what each job is told; what went wrong for which.

    Before the intent to submit is recorded: a spool that somebody takes over then exists, so its
    fence can be closed, and a manager that comes back late finds it closed.
    """
    return [_prepare(order, done, modules) for order in orders]


def _prepare(order: JobOrder, done: Path, modules: str | None) -> ProductionError | None:
    frozen = order.spool / MODULES_NAME
    try:
        if modules is not None:
            order.spool.mkdir(parents=True, exist_ok=True)
            frozen.write_bytes(modules.encode())
        write_orders(order, done)
    except OSError as error:
        return file_trouble(frozen, error)
    except ProductionError as error:
        return error
    return None


def look(works: Sequence[Work], ask: bool) -> Look:
    """See which jobs have ended: one listing of records, and one query for the others."""
    marked = _done_marks(works)
    ended = [work for work in works if work.spool in marked]
    killed = [work for work in ended if _wants_a_reason(work)]
    others = [work for work in works if work.spool not in marked]
    if not ask or not (others or killed):
        return Look(ended, [], [], killed=frozenset(killed), asked=ask)
    try:
        states = _poll([*others, *killed])
    except (QueryFailed, CommandError) as error:
        trouble = error if isinstance(error, QueryFailed) else _as_query_failed(error)
        return Look(ended, [], [], killed=frozenset(killed), trouble=trouble)
    of: dict[JobState, list[Work]] = {state: [] for state in JobState}
    for work in others:
        of[states.get(work.name, JobState.GONE)].append(work)
    gone: list[Work] = []
    for work in of[JobState.GONE]:
        if not _shows_record(work):
            gone.append(work)
            continue
        ended.append(work)
        if _wants_a_reason(work):
            killed.append(work)
    held = of[JobState.HELD]
    known = [*of[JobState.PENDING], *of[JobState.RUNNING], *held]
    waiting = (JobState.PENDING, JobState.HELD)
    requeued = frozenset(work for work in killed if states.get(work.name) in waiting)
    told = _reasons([*gone, *killed, *held])
    reasons = {work.name: _PUT_BACK for work in requeued}
    reasons |= {name: why for name, why in told.items() if why is not None}
    for work in killed:  # what the accounting tells is how the second start ended
        if _STARTED_AGAIN.search(reasons.get(work.name, "")):
            reasons[work.name] = _PUT_BACK
    return Look(
        ended,
        gone,
        known,
        frozenset(held),
        unstarted=frozenset(work for work in gone if not _has_started(work)),
        pending=frozenset(of[JobState.PENDING]),
        hosts={work.name: started_on(work.spool) for work in of[JobState.RUNNING] if not work.host},
        killed=frozenset(killed),
        requeued=requeued,
        reasons=reasons,
        unexplained=frozenset(told.keys() - reasons.keys()),
    )


def _wants_a_reason(work: Work) -> bool:
    """Whether to ask the batch system why a job ended that left its record."""
    if work.why or work.adopted or not work.batch.accounting_lag:
        return False
    try:
        record = read_record(work.spool)
    except (RecordDamaged, SpoolTrouble):
        return False
    return record is not None and was_ended_from_outside(record)


def _poll(works: Sequence[Work]) -> dict[str, JobState]:
    states: dict[str, JobState] = {}
    for system, handles in by_system(works):
        states.update(system.poll(handles))
    return states


def _reasons(works: Sequence[Work]) -> dict[str, str | None]:
    reasons: dict[str, str | None] = {}
    for system, handles in by_system(works):
        reasons.update(system.reason_of(handles))
    return reasons


def by_system(works: Iterable[Work]) -> Iterable[tuple[BatchSystem, list[JobHandle]]]:
    """The jobs of each batch system."""
    systems: dict[str, tuple[BatchSystem, list[JobHandle]]] = {}
    for work in works:
        systems.setdefault(work.batch.name, (work.batch, []))[1].append(work.handle)
    return systems.values()


def _as_query_failed(error: CommandError) -> QueryFailed:
    return QueryFailed(system="of these jobs", what=str(error))


def _done_marks(works: Iterable[Work]) -> set[Path]:
    """The spools of all jobs that have announced their end."""
    marks: set[Path] = set()
    all_paths = {id(work.paths): work.paths for work in works}  # few, mostly one
    for done in {paths.done for paths in all_paths.values()}:
        with contextlib.suppress(OSError):  # they are only hints: the records decide
            marks.update(done.parent / entry.name for entry in done.iterdir())
    return marks


class StartedAfterAll(Exception):  # noqa: N818 - nothing is wrong
    """A job that was missed has only started now.

    Its manager was slow, not dead, when its run was taken over, or the filesystem was slow.
    """


def settle(work: Work, max_attempts: int, wait: float) -> Change:
    """How the attempt ended; its files are put in order accordingly.

    Raises SpoolTrouble when that cannot be found out now, and StartedAfterAll.
    """
    given_up = work.adopted and os.path.exists(work.spool / REVOKED)  # noqa: PTH110
    try:
        record = read_record(work.spool)
        if record is None and work.unstarted and not forestall(work.spool):
            raise StartedAfterAll
        never_started = record is None and revoke(work.spool)
        if record is None and not never_started:
            # A network filesystem may show only now what was written long ago.
            record = read_record(work.spool)
    except RecordDamaged as error:
        discard(work)
        return Failed(work.claim, str(error), wait, max_attempts)
    if never_started:
        discard(work)
        if work.job is None:
            return Released(work.claim, "its submission was not answered and left no job")
        if work.adopted:
            return Released(work.claim, "its manager was gone before its job started")
        reason = "the job vanished from the batch system before it started: was it cancelled?"
        if work.why:
            reason = f"the job never started; the batch system says: {work.why}"
        return Failed(work.claim, reason, wait, max_attempts)
    verdict = _verdict(work, record)
    if verdict.ok and record is not None:
        olog, elog = _file_logs(work)
        remove_inputs(work)
        return Finished(work.claim, record, olog, elog)
    discard(work)
    cancelled = work.adopted and record is not None and record.signal == signal.SIGTERM
    if given_up or cancelled:
        return Released(work.claim, "its manager was gone in the middle of its roll-back")
    return Failed(work.claim, verdict.reason, wait, max_attempts, verdict.exit_code, record)


def _verdict(work: Work, record: JobRecord | None) -> Verdict:
    elog = work.paths.logs(work.claim)[1]
    if record is None:
        return lost(elog, work.why)
    verdict = judge(record, work.paths.recipe.exit_codes, elog, work.why)
    if not verdict.ok:
        return verdict
    expected = {plan.name for plan in work.paths.outputs(work.claim)}
    found = {output.name: output for output in record.outputs}
    for name in sorted(expected):
        output = found.get(name)
        if output is None:
            return Verdict(False, f"the exit record does not mention output {name}")
        try:
            size = output.path.stat().st_size
        except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
            return Verdict(False, f"output {output.path} cannot be seen: {error.strerror}")
        except OSError as error:  # the file server stumbles, which tells nothing about the job
            raise SpoolTrouble(path=output.path, what=error.strerror or error) from None
        if size != output.size:
            what = f"output {output.path} has {size} bytes, the job wrote {output.size}"
            return Verdict(False, what)
    return verdict


def _file_logs(work: Work) -> tuple[Path, Path]:
    """Give the logs of a successful attempt their final names; harmless when done twice.

    In another user's directory they keep the names that they have.
    """
    current = work.paths.logs(work.claim)
    final = work.paths.final_logs(work.claim)
    for source, target in zip(current, final, strict=True):
        try:
            source.replace(target)
        except FileNotFoundError:
            continue
        except PermissionError:
            return current
        except OSError as error:
            raise SpoolTrouble(path=target, what=error.strerror or error) from None
    return final


def _has_started(work: Work) -> bool:
    return os.path.exists(work.spool / STARTED)  # noqa: PTH110 - pathlib's may raise


def _shows_record(work: Work) -> bool:
    """Whether the job has left its record, as far as can be seen now."""
    return os.path.exists(work.spool / RECORD)  # noqa: PTH110 - pathlib's may raise


def has_record(work: Work) -> bool:
    """Whether the job has left its record, sound or not; raises SpoolTrouble when nobody knows."""
    try:
        return read_record(work.spool) is not None
    except RecordDamaged:
        return True


def remove_inputs(work: Work) -> None:
    """Remove the attempt's raw files."""
    clean.remove_tree(work.paths.raw(work.claim))


def discard(work: Work) -> None:
    """Remove what an unsuccessful attempt left, but for its logs and its spool."""
    remove_inputs(work)
    clean.discard_outputs(work.spool, work.paths.outputs(work.claim))


def discard_spool(work: Work) -> None:
    """Remove the attempt's spool, when its outcome is recorded."""
    clean.discard_spool(work.spool, work.paths.done)
