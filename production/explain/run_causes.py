"""Why one run stands where it stands.  Pure, like ``causes.py``, whose table of causes it uses."""

from __future__ import annotations

from collections.abc import Iterator

from production.explain import causes
from production.explain.causes import Finding
from production.explain.facts import Facts
from production.explain.taken import NO_LABEL, is_outside, name_of, takes, what_is_taken
from production.model import JobState, Status
from production.store.connection import text_us
from production.store.reports.facts import Asked, RunFacts
from production.store.reports.standing import ActiveRun, Worker, silence
from production.units import counted
from production.view.tables import duration, to_the_second


def of_run(facts: Facts, run: RunFacts) -> list[Finding]:
    """Why the run is not done, or that it is; the first reason is the one to begin with."""
    if run.status is None:
        return list(_not_there(facts, run))
    if run.status is Status.FINISHED:
        what = f"Run {run.run} is finished: attempt {run.attempt}, by {run.user or 'unknown'}"
        when = f", {to_the_second(run.stop)} UTC" if run.stop else ""
        return [Finding("finished", what + when)]
    if run.status is Status.ERROR:
        return list(_failed(facts, run))
    if run.status is Status.NEW:
        return list(_new(facts, run))
    return list(_held(facts, run))


def _not_there(facts: Facts, run: RunFacts) -> Iterator[Finding]:
    label = facts.standing.production.label
    what = f"Run {run.run} does not belong to {label}"
    if not run.labels:
        yield Finding(
            "not_in_production",
            f"{what}, and is in no dataset",
            f"production datasets add NAME {run.run}; then, with sqlite3: "
            f"INSERT INTO {label} (run) VALUES ({run.run})",
        )
        return
    places = ", ".join(_place(label.dataset, label.quality) for label in run.labels)
    base = f" or {facts.base.production.label} did not have it" if facts.base else ""
    yield Finding(
        "not_in_production",
        f"{what}. It is in {places}: it was entered after the production was started, or its "
        f"quality was not chosen then{base}",
        f"With sqlite3: INSERT INTO {label} (run) VALUES ({run.run})",
    )


def _failed(facts: Facts, run: RunFacts) -> Iterator[Finding]:
    failed = run.failures or run.attempt
    why = f", the last one: {run.reason}" if run.reason else ""
    yield Finding(
        "attempts_used_up",
        f"Run {run.run} stands at E after {counted(failed, 'failed attempt')}{why}",
        f"See production logs {run.run} {facts.options}; when the cause is mended: production "
        f"retry {run.run} {facts.options}",
    )


# --------------------------------------------------------------------------- at N


def _new(facts: Facts, run: RunFacts) -> Iterator[Finding]:
    """Of the run itself first, then what is in the way of all runs."""
    own = [*_base(facts, run), *_back_off(facts, run), *_labels(facts, run)]
    yield from own
    common = list(causes.nobody(facts))
    if facts.standing.at_work:
        common += [*causes.obstacles(facts), *causes.limits(facts)]
    yield from common
    if not own and not common:
        willing = [
            worker
            for worker in facts.standing.at_work
            if any(takes(facts.takes(worker), label) for label in run.labels or [NO_LABEL])
        ]
        names = ", ".join(name_of(worker) for worker in willing)
        yield Finding(
            "claimable",
            f"Nothing is in the way of run {run.run}: it can be claimed, by dataset, tranche "
            f"and number, by {names}",
            "Its turn comes; or start a manager for its dataset: run_production.py "
            f"{facts.options} --dataset={run.labels[0].dataset if run.labels else 'SET'}",
        )


def _base(facts: Facts, run: RunFacts) -> Iterator[Finding]:
    if facts.base is None or run.base is Status.FINISHED:
        return
    production = facts.base.production
    if run.base is None:
        yield Finding(
            "waiting_for_base",
            f"Run {run.run} is not in {production.label}, whose outputs are its input",
            f"production explain {run.run} {facts.options_of(production)}",
        )
        return
    yield Finding(
        "waiting_for_base",
        f"Run {run.run} waits until {production.label} has finished it; there it stands at "
        f"{run.base}",
        f"production explain {run.run} {facts.options_of(production)}",
    )


def _back_off(facts: Facts, run: RunFacts) -> Iterator[Finding]:
    moment = text_us(run.not_before) if run.not_before else None
    if isinstance(moment, int) and moment > facts.now * 1e6:
        # The clock of the host where it failed may be ahead.
        failed = text_us(run.stop) if run.stop else None
        since = max(failed / 1e6, facts.now) if isinstance(failed, int) else facts.now
        left = duration(moment / 1e6 - since)
        yield Finding(
            "back_off",
            f"Run {run.run} rests after its attempt {run.attempt} has failed, for another {left}: "
            f"{run.reason}",
            "It is tried again by itself",
        )


def _labels(facts: Facts, run: RunFacts) -> Iterator[Finding]:
    if not run.labels:
        if not is_outside(facts, NO_LABEL):
            return
        yield Finding(
            "no_dataset",
            f"Run {run.run} is in no dataset, so a manager takes it only when it does not choose",
            f"production datasets add NAME {run.run} --quality=gold",
        )
        return
    if all(is_outside(facts, label) for label in run.labels):
        places = ", ".join(_place(label.dataset, label.quality) for label in run.labels)
        first = run.labels[0]
        part = f" --tranche={first.tranche}" if first.tranche and facts.by_default.tranches else ""
        yield Finding(
            "outside",
            f"Run {run.run} is in {places}: {what_is_taken(facts)}",
            f"run_production.py {facts.options} --dataset={first.dataset}{part} "
            f"--quality={first.quality or 'any'}",
        )


def _place(dataset: str, quality: str | None) -> str:
    return f"{dataset} ({f'quality {quality}' if quality else 'no quality'})"


# --------------------------------------------------------------------------- at C and R


def _held(facts: Facts, run: RunFacts) -> Iterator[Finding]:
    found = facts.worker_of(run.run)
    if found is None:  # it has moved on since
        return
    active, worker = found
    if worker is None:
        yield Finding(
            "dead_manager",
            f"Run {run.run} is held by manager {active.manager} (of {active.user}), which has "
            "ended",
            f"The next manager that works on it takes it over: run_production.py {facts.options}",
        )
        return
    yield from causes.of_worker(facts, worker)
    if not worker.at_work:
        return
    yield from causes.steered(facts, worker)
    if active.phase == "claimed":
        yield from _claimed(facts, active, worker)
    else:
        yield from _with_job(facts, active, worker)


def _claimed(facts: Facts, active: ActiveRun, worker: Worker) -> Iterator[Finding]:
    yield from causes.space(facts)
    yield from causes.limits(facts)
    before = f" Its attempt before: {active.last_reason}." if active.last_reason else ""
    asked = facts.asked.get(worker.id, Asked())
    waits = "" if asked.paused else ", or it waits for a free place among its jobs"
    yield Finding(
        "fetching",
        f"Run {active.run} was claimed by {name_of(worker)}{_since(facts, active)}: its input is "
        f"being brought from tape or fetched{waits}.{before}",
        f"To give it to others: production release {active.run} {facts.options}",
    )


def _with_job(facts: Facts, active: ActiveRun, worker: Worker) -> Iterator[Finding]:
    job = f"The job of run {active.run}"
    if active.job:
        job += f" ({active.batch} {active.job})"
    of = f"{_since(facts, active)}, by {name_of(worker)}"
    state = facts.around.jobs.get(active.run)
    if facts.around.batch_trouble:
        yield Finding(
            "batch_silent",
            f"{job} was submitted{of}. {facts.around.batch_trouble}",
            "Managers ask it again by themselves",
        )
    elif state is JobState.HELD:
        reason = facts.around.reasons.get(active.run, "")
        patience = duration(facts.around.defaults.hold_timeout)
        yield Finding(
            "held_jobs",
            f"{job} is held by the batch system{f': {reason}' if reason else ''}",
            "Release it there (qrls, scontrol release, bresume, condor_release); otherwise its "
            f"manager cancels it after {patience}, and the run is tried again",
        )
    elif state is JobState.PENDING:
        yield Finding(
            "queued",
            f"{job} waits for its turn in the batch system; submitted{of}",
            f"Its turn comes by itself. To another queue: production queue QUEUE {facts.options}",
        )
    elif state is JobState.RUNNING:
        log = f"production logs {active.run} -f {facts.options}"
        yield Finding("running", f"{job} runs; submitted{of}", f"Watch it: {log}")
    elif state is JobState.GONE:
        yield Finding(
            "vanished",
            f"{job} is unknown to the batch system: it has ended, or was lost; submitted{of}",
            "Its manager finds out how it ended, within a minute",
        )
    else:
        yield Finding("submitted", f"{job} is in the batch system; submitted{of}")


def _since(facts: Facts, active: ActiveRun) -> str:
    """``4.0s ago``, of the phase that the run is in."""
    seconds = silence(active.since, facts.now)
    return f" {duration(seconds)} ago" if active.since else ""
