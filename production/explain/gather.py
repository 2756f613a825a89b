"""Gathers the facts: from the bookkeeping, the configuration, the space, and the batch system."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from production import commands
from production import config as configuration
from production.batch.base import open_batch
from production.config import Configuration
from production.errors import ProbeFailed, ProductionError
from production.explain.facts import Facts, Surroundings
from production.model import Claim, JobHandle, JobState, Production, Status, job_name
from production.space.probe import open_probe
from production.store import productions
from production.store.connection import Database
from production.store.reports import facts as known
from production.store.reports.standing import ActiveRun, active_runs, standing


def from_database(db: Database, production: Production, option: str, run: int | None) -> Facts:
    """What the bookkeeping tells; ``option``: see Facts.database."""
    now = time.time()
    with db.read():  # of one moment, and with one lock
        stands = standing(db, production, now)
        base = known.base_of(db, production)
        groups = tuple(known.groups(db, production))
        rest, until = known.resting(db, production, now)
        new = stands.count(Status.NEW)
        return Facts(
            now=now,
            database=option,
            standing=stands,
            active=tuple(active_runs(db, production)),
            asked=known.asked(db, [worker.id for worker in stands.workers]),
            groups=groups,
            base=standing(db, base, now) if base else None,
            waiting_for_base=known.waiting_for_base(db, production, new, groups),
            resting=rest,
            resting_until=until,
            at_error=known.at_error(db, production),
            around=Surroundings(),
            run=None if run is None else known.of_run(db, production, base, run),
        )


def with_configuration(facts: Facts, config: Configuration) -> Facts:
    """With the defaults of managers."""
    return replace(facts, around=replace(facts.around, defaults=config.defaults))


def with_surroundings(facts: Facts, config: Configuration, database: str) -> Facts:
    """With what the space probe and the batch systems say now, which may take seconds.

    ``database``: its uuid, for the names of jobs.
    """
    if not facts.standing.left:
        return facts
    around = facts.around
    if not commands.answers(config.data):
        # Who looks for jobs, whose spools are there, would wait for ever as well.
        what = f"it does not answer within {commands.SHOWN:g} s; is its file server up?"
        trouble = str(ProbeFailed(where=config.data, what=what))
        return replace(facts, around=replace(around, space_trouble=trouble))
    try:
        probe = open_probe(config.space, config.data)
        around = replace(around, usage=probe.probe().fullest)
    except ProbeFailed as error:
        around = replace(around, space_trouble=str(error))
    label = facts.standing.production.label
    only = None if facts.run is None else facts.run.run
    wanted = [a for a in facts.active if a.spool and a.batch and only in {None, a.run}]
    for system in sorted({str(active.batch) for active in wanted}):
        chosen = [active for active in wanted if active.batch == system]
        around = _with_jobs(around, system, chosen, config, label, database)
    return replace(facts, around=around)


def _with_jobs(
    around: Surroundings,
    system: str,
    chosen: Sequence[ActiveRun],
    config: Configuration,
    label: str,
    database: str,
) -> Surroundings:
    handles = {active.run: _handle(active, label, database) for active in chosen}
    try:
        with closing(open_batch(system, config.batch.options.get(system, {}))) as batch:
            states = batch.poll(list(handles.values()))
            held = [h for h in handles.values() if states.get(h.name) is JobState.HELD]
            reasons = batch.reason_of(held) if held else {}
    except ProductionError as error:
        return replace(around, batch_trouble=str(error))
    found = {
        active.run: state
        for active in chosen
        if (state := states.get(handles[active.run].name, JobState.GONE)) is not JobState.GONE
        or _can_be_missed(active)
    }
    why = {run: why for run, h in handles.items() if (why := reasons.get(h.name))}
    return replace(around, jobs={**around.jobs, **found}, reasons={**around.reasons, **why})


def _can_be_missed(active: ActiveRun) -> bool:
    """Whether a job that the batch system does not know has ended or was lost.

    Not one that is about to be submitted; nor one of the local machine that nobody has seen start,
    for it may wait for its turn in the memory of its manager.
    """
    if active.phase == "submitting":
        return False
    started = os.path.join(active.spool or "", "started")  # noqa: PTH118
    return active.batch != "local" or os.path.exists(started)  # noqa: PTH110 - may not raise


def _handle(active: ActiveRun, label: str, database: str) -> JobHandle:
    claim = Claim(active.run, active.attempt, active.token or 0)
    return JobHandle(job_name(label, claim, database), Path(active.spool or ""), active.job)


def gather(
    db: Database,
    production: Production,
    *,
    option: str,
    run: int | None,
    config: Path | None,
    ask: bool,
) -> Facts:
    """All of it.  ``ask``: the space and the batch system, too, not the database alone."""
    facts = from_database(db, production, option, run)
    try:
        loaded = configuration.load(config, db.path)
        facts = with_configuration(facts, loaded)
        if ask:
            facts = with_surroundings(facts, loaded, productions.database_id(db))
    except ProductionError as error:
        facts = replace(facts, around=replace(facts.around, config_trouble=str(error)))
    return facts
