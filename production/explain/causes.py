"""From facts to causes, in words, each with its remedy.  Pure: asks nobody anything.

CAUSES is the table of all that can be found; docs/commands.md tells it as well.  Those of one
run are in ``run_causes.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from production.explain.facts import Facts
from production.explain.taken import (
    ANY_TRANCHE,
    in_words,
    is_outside,
    name_of,
    takes,
    what_is_taken,
)
from production.model import JobState, Status
from production.store.reports.facts import MOST, Asked, Group, Label
from production.store.reports.standing import Worker
from production.units import counted
from production.view.tables import duration, to_the_second

# What can be found, in the order in which it is told.  The names stay as they are.
CAUSES = {
    "not_in_production": "the run does not belong to the production",
    "no_runs": "the production has no runs",
    "finished": "all is done",
    "attempts_used_up": "runs have failed as often as they may",
    "dead_manager": "a manager is gone, and still holds runs",
    "host_down": "a manager gives no sign of life; its host may be down",
    "stopped_manager": "a manager's process lives, and gives no sign of life",
    "no_manager": "nobody works on the production",
    "stopping": "a manager was asked to end",
    "paused": "a manager was asked to begin nothing new",
    "space": "the space is used up to the limit",
    "space_unknown": "the space cannot be found out",
    "batch_silent": "the batch system does not answer",
    "held_jobs": "the batch system holds jobs back",
    "queued": "jobs wait for their turn in the batch system",
    "running": "jobs run",
    "submitted": "jobs are in the batch system",
    "vanished": "the batch system does not know a job any more",
    "fetching": "claimed runs wait for their input, or for a free place",
    "limits": "a manager has as many jobs as it may",
    "waiting_for_base": "the base has not finished the runs",
    "back_off": "runs rest after a failure",
    "no_dataset": "runs are in no dataset",
    "outside": "no manager takes the runs",
    "claimable": "runs can be claimed now",
}


@dataclass(frozen=True)
class Finding:
    """One cause, and what to do about it."""

    cause: str  # of CAUSES
    what: str
    remedy: str = ""  # "": nothing need be done


Teller = Callable[[Facts], Iterator[Finding]]


def of_production(facts: Facts) -> list[Finding]:
    """Why nothing goes on, or what does, in the order of CAUSES."""
    standing = facts.standing
    if not standing.total:
        return [Finding("no_runs", f"{standing.production.label} has no runs")]
    tellers: list[Teller] = [_done, _at_error]
    if standing.left:
        tellers += [managers, obstacles, jobs, _claims, limits, _base, _resting, _groups]
    return [finding for teller in tellers for finding in teller(facts)]


# --------------------------------------------------------------------------- the end


def _done(facts: Facts) -> Iterator[Finding]:
    standing = facts.standing
    if standing.left or standing.count(Status.ERROR):
        return
    since = standing.production.stop
    when = f" since {to_the_second(since)}" if since else ""
    yield Finding("finished", f"All is finished{when}: {_runs(standing.total)}")


def _at_error(facts: Facts) -> Iterator[Finding]:
    count = facts.standing.count(Status.ERROR)
    if not count:
        return
    example = f", such as run {facts.at_error[0]}: {facts.at_error[1]}" if facts.at_error else ""
    yield Finding(
        "attempts_used_up",
        f"{_are(count, 'run')} at E, having failed as often as allowed{example}",
        f"See production failures {facts.options}; when the cause is mended: production retry "
        f"{facts.options}",
    )


# --------------------------------------------------------------------------- managers


def managers(facts: Facts) -> Iterator[Finding]:
    """Who is at work, and who only seems to be."""
    for worker in facts.standing.workers:
        yield from of_worker(facts, worker)
    yield from nobody(facts)


def nobody(facts: Facts) -> Iterator[Finding]:
    """Whether there is anybody to do what is left."""
    if not facts.standing.at_work:
        yield Finding(
            "no_manager",
            f"{_are(facts.standing.left, 'run')} left, and no manager is at work",
            f"Start one: run_production.py {facts.options}",
        )


def of_worker(facts: Facts, worker: Worker) -> Iterator[Finding]:
    """What is wrong with one that has not said that it ended."""
    claims, held = facts.held_by(worker)
    name = name_of(worker)
    holds = f"It holds {counted(claims, 'claim')} and {counted(held, 'job')}"
    silent = duration(worker.silence) if worker.silence < _EVER else "ever"
    if worker.at_work and worker.silence > worker.lease:
        yield Finding(
            "stopped_manager",
            f"{name} lives, but has given no sign of life for {silent}: it is stopped, or waits "
            f"for the database. {holds}",
            f"On its terminal: fg; or kill -CONT {worker.pid}",
        )
    if worker.at_work or not claims + held:
        return
    if worker.alive is False:
        yield Finding(
            "dead_manager",
            f"{name} is gone. {holds}",
            f"The next manager that works on it takes them over: run_production.py {facts.options}"
            f"; claims are given back at once by: production recover {facts.options}",
        )
    else:
        lease = duration(worker.lease)
        yield Finding(
            "host_down",
            f"{name} has given no sign of life for {silent}: its host may be down or cut off. "
            f"{holds}",
            f"A manager at work takes them over when it has seen no sign of life for {lease}; or, "
            f"without one: production recover --watch={round(worker.lease / 60) + 1}m "
            f"{facts.options}",
        )


_EVER = 100 * 365 * 86400.0


# --------------------------------------------------------------------------- obstacles


def obstacles(facts: Facts) -> Iterator[Finding]:
    """What keeps managers at work from beginning anything."""
    for worker in facts.standing.at_work:
        yield from steered(facts, worker)
    yield from space(facts)
    if facts.around.batch_trouble:
        yield Finding(
            "batch_silent",
            facts.around.batch_trouble,
            "Managers ask it again by themselves; jobs that run go on",
        )


def steered(facts: Facts, worker: Worker) -> Iterator[Finding]:
    """What users have asked of a manager."""
    asked = facts.asked.get(worker.id, Asked())
    if asked.stopping:
        yield Finding(
            "stopping",
            f"{name_of(worker)} was asked to end, and begins nothing more",
            f"When it has ended: run_production.py {facts.options}",
        )
    elif asked.paused:
        yield Finding(
            "paused",
            f"{name_of(worker)} was asked to pause, and begins nothing new",
            f"production resume --manager={worker.id} {facts.options}",
        )


def space(facts: Facts) -> Iterator[Finding]:
    """Whether there is room, as the one who asks sees it."""
    around = facts.around
    if around.space_trouble:
        yield Finding(
            "space_unknown",
            around.space_trouble,
            "Nothing is fetched until it can be found out; look closer with: production doctor",
        )
    if around.usage is None:
        return
    chosen = [facts.asked.get(w.id, Asked()).spacelim for w in facts.standing.at_work]
    limit = min((c for c in chosen if c is not None), default=around.defaults.spacelim)
    if around.usage.fraction >= limit:
        yield Finding(
            "space",
            f"Disk space is short: {around.usage.fraction:.0%} of it is used "
            f"({around.usage.source}), the limit is {limit:.0%}. Nothing new is fetched until "
            "there is room; running jobs go on",
            f"Remove or move files; or allow more: production set spacelim=95% {facts.options}",
        )


# --------------------------------------------------------------------------- jobs and claims


def jobs(facts: Facts) -> Iterator[Finding]:
    """What the batch system says of the jobs, or that there are some."""
    around = facts.around
    with_job = [active.run for active in facts.active if active.phase != "claimed"]
    by_state: dict[JobState | None, list[int]] = {}
    for run in with_job:
        by_state.setdefault(around.jobs.get(run), []).append(run)
    if held := by_state.get(JobState.HELD):
        reason = around.reasons.get(held[0], "")
        why = f", such as that of run {held[0]}{f': {reason}' if reason else ''}"
        patience = duration(around.defaults.hold_timeout)
        yield Finding(
            "held_jobs",
            f"Held by the batch system: {counted(len(held), 'job')}{why}",
            "Release them there (qrls, scontrol release, bresume, condor_release); otherwise "
            f"managers cancel them after {patience}, and their runs are tried again",
        )
    if pending := by_state.get(JobState.PENDING):
        queues = sorted({asked.queue for asked in facts.asked.values() if asked.queue})
        moved = f"; as users have asked, in queue {', '.join(queues)}" if queues else ""
        yield Finding(
            "queued",
            f"Waiting in the batch system: {counted(len(pending), 'job')}{moved}",
            f"Their turn comes by itself. To another queue: production queue QUEUE {facts.options}",
        )
    if running := by_state.get(JobState.RUNNING):
        yield Finding("running", f"Running: {counted(len(running), 'job')}")
    if unknown := by_state.get(None):
        yield Finding("submitted", f"In the batch system: {counted(len(unknown), 'job')}")
    if gone := by_state.get(JobState.GONE):
        yield Finding(
            "vanished",
            f"Unknown to the batch system: {counted(len(gone), 'job')}, such as that of run "
            f"{gone[0]}. Ended, or lost",
            "A manager at work finds out how they ended, within a minute",
        )


def _claims(facts: Facts) -> Iterator[Finding]:
    claimed = [active for active in facts.active if active.phase == "claimed"]
    if claimed:
        yield Finding(
            "fetching",
            f"Claimed, and waiting for input from the archive or for a free place among the jobs: "
            f"{_runs(len(claimed))}",
        )


def limits(facts: Facts) -> Iterator[Finding]:
    """Whether managers have as many jobs as they may."""
    for worker in facts.standing.at_work:
        _, held = facts.held_by(worker)
        asked = facts.asked.get(worker.id, Asked()).nproc
        told = "" if asked else " by default"
        if held and held >= (asked or facts.around.defaults.nproc):
            yield Finding(
                "limits",
                f"{name_of(worker)} has {counted(held, 'job')}, as many as it may{told}",
                f"production set nproc={2 * held} --manager={worker.id} {facts.options}",
            )


# --------------------------------------------------------------------------- runs at N


def _base(facts: Facts) -> Iterator[Finding]:
    if not facts.waiting_for_base or facts.base is None:
        return
    base = facts.base
    left, error = base.left, base.count(Status.ERROR)
    yield Finding(
        "waiting_for_base",
        f"{_are(facts.waiting_for_base, 'run')} not finished yet by {base.production.label}, whose "
        f"outputs are the input; there {_are(left, 'run')} left, and {error} at E",
        f"production explain {facts.options_of(base.production)}",
    )


def _resting(facts: Facts) -> Iterator[Finding]:
    if facts.resting:
        until = to_the_second(facts.resting_until)
        yield Finding(
            "back_off",
            f"{_are(facts.resting, 'run')} resting after a failure, the first until {until} UTC",
            "They are tried again by themselves. Why they failed: production failures "
            f"{facts.options}",
        )


def _groups(facts: Facts) -> Iterator[Finding]:
    """The runs that can be claimed: of what managers choose by default, and of the rest."""
    labels = {group: Label(group.dataset, ANY_TRANCHE, group.quality) for group in facts.groups}
    outside = [group for group in facts.groups if is_outside(facts, labels[group])]
    inside = [group for group in facts.groups if group not in outside]
    most = facts.new - (facts.waiting_for_base or 0)
    ready = min(sum(group.runs for group in inside), most)
    many = any(group.runs >= MOST for group in inside)
    if many or ready < most:  # else they are the same runs, in other datasets as well
        yield from (_outside(facts, group) for group in outside)
    ready -= facts.resting
    if ready <= 0:
        return
    what = f"{'More than ' if many else ''}{_runs(ready)} can be claimed"
    idle = [
        worker
        for worker in facts.standing.at_work
        if not sum(facts.held_by(worker))
        and any(takes(facts.takes(worker), labels[group]) for group in inside)
    ]
    if not facts.standing.at_work:
        yield Finding("claimable", what)
    elif idle:
        yield Finding(
            "claimable",
            f"{what}, but {name_of(idle[0])}, which takes {in_words(facts.takes(idle[0]))}, holds "
            "none: something keeps it",
            "Its messages tell",
        )
    else:
        yield Finding("claimable", f"{what}, when a manager has a free place")


def _outside(facts: Facts, group: Group) -> Finding:
    count = f"{'More than ' if group.runs >= MOST else ''}{_are(group.runs, 'run')}"
    if not group.dataset:
        return Finding(
            "no_dataset",
            f"{count} in no dataset, so a manager takes them only when it does not choose",
            f"run_production.py {facts.options} --quality=any; or put them into one: sqlite3, or "
            "production datasets import FILE.csv",
        )
    return Finding(
        "outside",
        f"{count} of dataset {group.dataset} and of {_quality(group.quality)}: "
        f"{what_is_taken(facts)}",
        f"run_production.py {facts.options} --dataset={group.dataset} "
        f"--quality={group.quality or 'any'}",
    )


def _quality(quality: str) -> str:
    return f"quality {quality}" if quality else "no quality"


def _runs(count: int) -> str:
    return counted(count, "run")


def _are(count: int, what: str) -> str:
    return counted(count, f"{what} is", f"{what}s are")
