"""The way back: what a manager undoes when it is stopped, and repairs after one that was killed."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from production.errors import (
    BatchError,
    CommandError,
    Interrupted,
    ProductionError,
    SpoolTrouble,
)
from production.job import clean
from production.job.fence import has_gone, revoke
from production.manager import settle
from production.manager.desk import Desk
from production.manager.work import Phase, Work
from production.model import Change, Finished, Orphan, Released, Status, Submitted
from production.store import managers, recorded

STOP_SECONDS = 10.0  # how long a roll-back waits for transfers and a running submission to end
LOCK_SECONDS = 20.0  # and for the database
STUCK_SECONDS = 1.0  # and for one that was being waited for already
_ASKING = frozenset({"probe", "stage", "notify"})  # lanes that leave nothing behind


# --------------------------------------------------------------------------- repair


def repair(desk: Desk) -> None:
    """Take over the runs of managers that are dead."""
    _adopt_forgotten(desk)
    others = managers.holders(desk.db, desk.production.id, desk.store.manager)
    for dead in desk.lease_watch.dead(others):
        orphans = desk.store.take_over(dead.id, lambda orphan: _is_within_reach(desk, orphan))
        _say_what_must_wait(desk, dead)
        if orphans:
            desk.say(
                f"Repairing runs {[orphan.claim.run for orphan in orphans]}: their manager "
                f"(user {dead.user}, process {dead.pid} on {dead.host}) is gone",
                level="warning",
            )
        for orphan in orphans:
            _adopt(desk, orphan)


def _adopt_forgotten(desk: Desk) -> None:
    """Take in hand what this manager holds and does not know of.

    When the end of a transaction meets an I/O error it may have been recorded all the same.
    """
    for orphan in desk.store.take_over(
        desk.store.manager, lambda orphan: orphan.claim.run not in desk.works
    ):
        _adopt(desk, orphan)


def _adopt(desk: Desk, orphan: Orphan) -> None:
    """Go on with an orphan where its manager left it."""
    paths = desk.paths if orphan.spool is None else desk.paths.of_spool(orphan.spool)
    work = Work(
        orphan.claim,
        paths,
        desk.rooms.open_batch(orphan.batch) if orphan.batch else desk.rooms.batch,
        orphan.job_name or "",
    )
    desk.take(work)
    if orphan.job_name is None:
        desk.release(work, "its manager is gone")
        return
    work.adopted = True
    work.job = orphan.job_id
    # Without an id the job may or may not exist: it is looked up by its name.
    work.submitted = orphan.status is Status.RUNNING
    work.move(Phase.RUNNING if work.submitted else Phase.SUBMITTING)
    desk.say(f"Adopted run: {work.run} (job {work.job or work.name})")


def _is_within_reach(desk: Desk, orphan: Orphan) -> bool:
    """Whether this account can finish or undo what the dead manager has begun.

    Without a job there is nothing but the claim.  Else the spool must be writable, or be cleared
    away already, and its batch system must be known here.
    """
    if orphan.job_name is None or orphan.spool is None:
        return True
    try:
        desk.rooms.open_batch(orphan.batch or "")
    except ProductionError:
        return False
    gone = not os.path.exists(orphan.spool)  # noqa: PTH110 - pathlib's may raise
    return os.access(orphan.spool.parent if gone else orphan.spool, os.R_OK | os.W_OK | os.X_OK)


def _say_what_must_wait(desk: Desk, dead: managers.Holder) -> None:
    # One that only seemed to be dead may have claimed more in the meantime.
    left = [o.claim.run for o in desk.store.orphans(dead.id) if not _is_within_reach(desk, o)]
    if left and dead.id not in desk.said_to_wait:
        desk.said_to_wait.add(dead.id)
        desk.say(
            f"Runs {left} were left by a manager of user {dead.user} on {dead.host}; their files "
            f"are closed to you, so they wait until {dead.user} starts a manager",
            level="warning",
        )


def may_have_more(desk: Desk) -> bool:
    """Whether runs are held by managers elsewhere that may turn out to be dead.

    A living manager gives a sign of life once a minute, so this takes no longer than a lease.
    """
    others = managers.holders(desk.db, desk.production.id, desk.store.manager)
    undecided = desk.lease_watch.undecided(others)
    for holder in undecided:
        if holder.id not in desk.said_to_wait:
            desk.said_to_wait.add(holder.id)
            desk.say(
                f"Waiting for a sign of life of the manager of user {holder.user} on "
                f"{holder.host}, which holds runs"
            )
    return bool(undecided)


def sweep(desk: Desk) -> None:
    """Remove directories of attempts that are over.

    A manager that was killed has left them, or one that was stopped while it filled them, and
    found out afterwards that its claim was lost.
    """
    left: list[tuple[int, int, Path]] = []
    with contextlib.suppress(OSError):  # what cannot be seen now is swept away another time
        left.extend(desk.paths.leftovers())
    for run, attempt, directory in left:
        if recorded.outcome(desk.db, desk.production, run, attempt):
            clean.remove_tree(directory)
    with contextlib.suppress(OSError):
        for _, _, mark in desk.paths.stale_marks():
            mark.unlink()


# --------------------------------------------------------------------------- roll back


def roll_back(desk: Desk, cause: BaseException) -> None:
    """Cancel this manager's jobs, return its unfinished runs, remove partial files.

    Finished runs stay finished; a job that ended well while it was being cancelled counts.
    What cannot be undone now (database locked, batch system silent) is said, stays recorded, and
    is repaired by the next manager that starts.
    """
    if isinstance(cause, Interrupted):
        desk.say(f"User cancelling jobs... ({cause.fields['signal']})", level="report")
    elif not isinstance(cause, ProductionError):
        desk.say("ERROR: There was an uncaught exception. Aborting...", level="error")
    desk.db.check = lambda: None
    desk.db.patience = STUCK_SECONDS if desk.db.waiting else LOCK_SECONDS
    works = list(desk.works.values())
    try:
        stuck = _stop_lanes(desk)
        let_go_of_lost(desk)
        cancelled = _cancel(desk)
        desk.flush()
        works = list(desk.works.values())
        if left := _record(desk, works, stuck or not cancelled):
            desk.say(
                f"Runs {left} could not be cancelled; the next manager that starts takes them over",
                level="warning",
            )
        managers.sign_off(desk.db, desk.store.manager)
    except Exception as error:  # noqa: BLE001 - whatever it is, it must not hide the cause
        desk.say(
            f"{error} Runs {[work.run for work in works]} could not be returned now, and those "
            "of their jobs that run go on; the next manager that starts takes them over.",
            level="error",
        )


def leave(desk: Desk) -> None:
    """End at once: runs without a job are returned, jobs are left to the next manager.

    A job that has ended by now is recorded.  What cannot be done now is as after a crash.
    """
    desk.db.patience = LOCK_SECONDS
    try:
        _stop_lanes(desk)
        let_go_of_lost(desk)
        desk.flush()
        if left := _record(desk, list(desk.works.values()), uncertain=True):
            what = f"Jobs of runs {left} go on; the next manager that starts takes them over"
            desk.say(what, level="report")
        managers.sign_off(desk.db, desk.store.manager)
    except ProductionError as error:
        desk.say(f"{error} The next manager that starts repairs what is left.", level="error")


def let_go_of_lost(desk: Desk) -> None:
    """Others may have taken runs over after a long stop (SIGSTOP, a suspended host).

    And people give runs back, which do not wait until something is to be written about them.
    """
    held = {claim.run: claim.token for claim in desk.store.held()}
    for work in list(desk.works.values()):
        if held.get(work.run) != work.claim.token:
            desk.drop(work)


def _stop_lanes(desk: Desk) -> bool:
    """End transfers and wait for what runs beside the loop; True when work on jobs hangs."""
    for work in desk.works.values():
        work.stop.set()
    deadline = time.monotonic() + STOP_SECONDS
    lanes = [lane for name, lane in desk.lanes.items() if name not in _ASKING]
    while any(lane.busy for lane in lanes) and time.monotonic() < deadline:
        with contextlib.suppress(Exception):  # the roll-back has one cause already
            desk.results.deliver(0.1)
    return desk.lanes["batch"].busy or desk.lanes["files"].busy


def _cancel(desk: Desk) -> bool:
    """Delete the jobs; False when the batch system did not do it."""
    works = [work for work in desk.works.values() if work.name and _may_have_job(work)]
    done = True
    for system in {work.batch.name: work.batch for work in works}.values():
        handles = [work.handle for work in works if work.batch is system]
        for handle in handles:
            desk.say(f"Cancelling job {handle.id or handle.name}")
        try:
            system.cancel(handles)
        except (BatchError, CommandError) as error:
            desk.say(f"{error} The jobs go on.", level="error")
            done = False
    return done


def _may_have_job(work: Work) -> bool:
    if work.phase not in {Phase.SUBMITTING, Phase.RUNNING, Phase.ENDING}:
        return False
    try:
        work.spool.stat()
    except FileNotFoundError:
        return not has_gone(work.spool)
    except OSError:
        return True  # not known now: when the fence is to be closed, that tells
    return True


def _record(desk: Desk, works: list[Work], uncertain: bool) -> list[int]:
    """Return what was not finished, keep what was; the runs that are left as they are."""
    changes: list[Change] = []
    for work in works:
        try:
            changes.extend(_last_change(work, uncertain))
        except SpoolTrouble as error:  # of this run; the others are rolled back all the same
            desk.say(str(error), level="error")
    lost = set(desk.store.apply(changes))
    ended = [change for change in changes if change.claim not in lost]
    released = [change.claim.run for change in ended if isinstance(change, Released)]
    kept = [change.claim.run for change in ended if isinstance(change, Finished)]
    for run in kept:
        desk.say(f"Finished run: {run}")
    over = {change.claim for change in ended if not isinstance(change, Submitted)}
    for work in works:
        if work.claim in over:
            with contextlib.suppress(SpoolTrouble):  # the next start sweeps it away
                settle.discard_spool(work)
    left = [work.run for work in works if work.claim not in over and work.claim not in lost]
    desk.say(f"Aborting runs: {released}", level="report")
    return left


def _last_change(work: Work, uncertain: bool) -> list[Change]:
    """How a run that is given up now is recorded; nothing when it is left to the next desk."""
    if _may_have_job(work):
        if uncertain and not settle.has_record(work):
            return []
        revoke(work.spool)
        # Only now: a job may have ended well in the last moment.
        if settle.has_record(work):
            change = settle.settle(work, max_attempts=1, wait=0.0)
            if isinstance(change, Finished):
                submission = Submitted(work.claim, work.job or work.name)
                return [change] if work.submitted else [submission, change]
    settle.discard(work)
    return [Released(work.claim, "rolled back")]
