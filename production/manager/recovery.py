"""The way back: what a manager undoes when it is stopped, and repairs after one that was killed."""

from __future__ import annotations

import contextlib
import shutil
import time
from typing import TYPE_CHECKING

from production.errors import (
    BatchError,
    CommandError,
    Interrupted,
    ProductionError,
    SpoolTrouble,
)
from production.job.fence import revoke
from production.job.record import RECORD
from production.manager import settle
from production.manager.work import Phase, Work
from production.model import Change, Finished, Orphan, Released, Status, Submitted
from production.store import managers

if TYPE_CHECKING:
    from production.manager.loop import Manager

STOP_SECONDS = 10.0  # how long a roll-back waits for transfers and a running submission to end
LOCK_SECONDS = 20.0  # and for the database


# --------------------------------------------------------------------------- repair


def repair(manager: Manager) -> None:
    """Take over the runs of managers that are dead."""
    others = managers.holders(manager.db, manager.production.id, manager.store.manager)
    for dead in manager.lease_watch.dead(others):
        orphans = manager.store.take_over(dead.id)
        if orphans:
            manager.say(
                f"Repairing runs {[orphan.claim.run for orphan in orphans]}: their manager "
                f"(user {dead.user}, process {dead.pid} on {dead.host}) is gone",
                level="warning",
            )
        for orphan in orphans:
            _adopt(manager, orphan)


def _adopt(manager: Manager, orphan: Orphan) -> None:
    """Go on with an orphan where its manager left it."""
    paths = manager.paths if orphan.spool is None else manager.paths.of_spool(orphan.spool)
    work = Work(
        orphan.claim,
        paths,
        manager.rooms.open_batch(orphan.batch) if orphan.batch else manager.rooms.batch,
        orphan.job_name or "",
    )
    manager.works[work.run] = work
    if orphan.job_name is None:
        manager.release(work, "its manager is gone")
        return
    work.adopted = True
    work.job = orphan.job_id
    # Without an id the job may or may not exist: it is looked up by its name.
    work.submitted = orphan.status is Status.RUNNING
    work.move(Phase.RUNNING if work.submitted else Phase.SUBMITTING)
    manager.say(f"Adopted run: {work.run} (job {work.job or work.name})")


def sweep(manager: Manager) -> None:
    """Remove directories of attempts that are over, left by a manager that was killed."""
    for run, attempt, directory in manager.paths.leftovers():
        row = manager.db.row(
            "SELECT outcome FROM attempt WHERE production = ? AND run = ? AND attempt = ?",
            (manager.production.id, run, attempt),
        )
        if row is not None and row["outcome"] is not None:
            shutil.rmtree(directory, ignore_errors=True)
            with contextlib.suppress(OSError):
                (manager.paths.done / directory.name).unlink()


# --------------------------------------------------------------------------- roll back


def roll_back(manager: Manager, cause: BaseException) -> None:
    """Cancel this manager's jobs, return its unfinished runs, remove partial files.

    Finished runs stay finished; a job that ended well while it was being cancelled counts.
    What cannot be undone now (database locked, batch system silent) is said, stays recorded, and
    is repaired by the next manager that starts.
    """
    if isinstance(cause, Interrupted):
        manager.say(f"User cancelling jobs... ({cause.fields['signal']})")
    elif not isinstance(cause, ProductionError):
        manager.say("ERROR: There was an uncaught exception. Aborting...", level="error")
    manager.db.check = lambda: None
    manager.db.patience = LOCK_SECONDS
    stuck = _stop_lanes(manager)
    cancelled = _cancel(manager)
    works = list(manager.works.values())
    try:
        _record(manager, works, stuck or not cancelled)
        managers.sign_off(manager.db, manager.store.manager)
    except ProductionError as error:
        manager.say(
            f"{error} Runs {[work.run for work in works]} could not be returned now; the next "
            "manager that starts repairs them.",
            level="error",
        )


def _stop_lanes(manager: Manager) -> bool:
    """End transfers and wait for what runs beside the loop; True when work on jobs hangs."""
    for work in manager.works.values():
        work.stop.set()
    deadline = time.monotonic() + STOP_SECONDS
    lanes = [lane for name, lane in manager.lanes.items() if name != "probe"]
    while any(lane.busy for lane in lanes) and time.monotonic() < deadline:
        with contextlib.suppress(Exception):  # the roll-back has one cause already
            manager.results.deliver(0.1)
    return manager.lanes["batch"].busy or manager.lanes["files"].busy


def _cancel(manager: Manager) -> bool:
    """Delete the jobs; False when the batch system did not do it."""
    works = [work for work in manager.works.values() if work.name and _may_have_job(work)]
    done = True
    for system in {work.batch.name: work.batch for work in works}.values():
        handles = [work.handle for work in works if work.batch is system]
        for handle in handles:
            manager.say(f"Cancelling job {handle.id or handle.name}")
        try:
            system.cancel(handles)
        except (BatchError, CommandError) as error:
            manager.say(f"{error} The jobs go on.", level="error")
            done = False
    return done


def _may_have_job(work: Work) -> bool:
    return work.phase in {Phase.SUBMITTING, Phase.RUNNING, Phase.ENDING} and work.spool.is_dir()


def _record(manager: Manager, works: list[Work], uncertain: bool) -> None:
    """Return what was not finished, keep what was."""
    changes: list[Change] = []
    for work in works:
        try:
            changes.extend(_last_change(work, uncertain))
        except SpoolTrouble as error:  # of this run; the others are rolled back all the same
            manager.say(str(error), level="error")
    lost = set(manager.store.apply(changes))
    ended = [change for change in changes if change.claim not in lost]
    released = [change.claim.run for change in ended if isinstance(change, Released)]
    kept = [change.claim.run for change in ended if isinstance(change, Finished)]
    for run in kept:
        manager.say(f"Finished run: {run}")
    over = {change.claim for change in ended if not isinstance(change, Submitted)}
    for work in works:
        if work.claim in over:
            settle.discard_spool(work)
    left = [work.run for work in works if work.claim not in over and work.claim not in lost]
    manager.say(f"Aborting runs: {released}")
    if left:
        manager.say(
            f"Runs {left} could not be cancelled; the next manager that starts takes them over",
            level="warning",
        )


def _last_change(work: Work, uncertain: bool) -> list[Change]:
    """How a run that is given up now is recorded; nothing when it is left to the next manager."""
    if (work.spool / RECORD).exists():
        change = settle.settle(work, max_attempts=1, wait=0.0)
        if isinstance(change, Finished):
            submission = Submitted(work.claim, work.job or work.name)
            return [change] if work.submitted else [submission, change]
    elif uncertain and _may_have_job(work):
        return []
    if work.spool.is_dir():
        revoke(work.spool)
    settle.discard(work)
    return [Released(work.claim, "rolled back")]
