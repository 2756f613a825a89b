"""From an output back to all that it came from: the provenance of one attempt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from production.errors import NotRecorded
from production.model import Claim, InputFile, Production, RecordedFile, job_name
from production.store import inputs, productions
from production.store.connection import Database, Row

LATEST = "~"  # sorts after all times


@dataclass(frozen=True)
class Provenance:
    """One attempt at a run with all that is recorded of it; None: not known, or not so far."""

    production: Production
    base_type: str | None
    recipe: str | None  # text of the recipe that the production was started with
    run: int
    status: str  # of the run, now
    attempt: int | None  # None: the run was never tried
    outcome: str | None  # None: it lasts
    reason: str | None
    redone: int | None  # number of a later attempt that finished as well
    user: str | None
    manager_host: str | None
    pid: int | None
    claimed: str | None
    start: str | None  # submitted
    stop: str | None  # outcome known
    batch: str | None
    job_name: str | None
    job: str | None
    host: str | None  # the node
    job_start: str | None
    job_stop: str | None
    exit_code: int | None
    cpu_seconds: float | None
    peak_memory: int | None  # bytes
    modules_sha256: str | None
    modules: str | None  # the text
    inputs: tuple[InputFile, ...]  # from archives
    outputs: tuple[RecordedFile, ...]
    logs: tuple[RecordedFile, ...]
    base: Provenance | None  # what made the inputs


def of_run(db: Database, production: Production, run: int) -> Provenance:
    """The attempt that made the run's outputs, else the latest.  Raises NotRecorded."""
    row = db.row("SELECT 1 FROM run WHERE production = ? AND run = ?", (production.id, run))
    if row is None:
        raise NotRecorded(what=f"There is no run {run} in {production.label}")
    number = _finished(db, production, run) or db.row(
        "SELECT max(attempt) FROM attempt WHERE production = ? AND run = ?", (production.id, run)
    )
    return _provenance(db, production, run, number[0] if number else None)


def of_file(db: Database, names: Sequence[Path]) -> Provenance:
    """The latest attempt that has recorded a file (output or log) under one of ``names``.

    Paths have no index, so this reads all of them once.  Raises NotRecorded.
    """
    marks = ", ".join("?" * len(names))
    paths = [str(name) for name in names]
    row = db.row(
        f"""
        SELECT p.type, p.version, a.run, a.attempt
        FROM attempt a JOIN productions p ON p.id = a.production
        WHERE a.id IN (SELECT attempt FROM output WHERE path IN ({marks}))
           OR a.olog IN ({marks}) OR a.elog IN ({marks})
        ORDER BY a.id DESC LIMIT 1
        """,
        [*paths, *paths, *paths],
    )
    if row is None:
        raise NotRecorded(what=f"No production has recorded a file {names[0]}")
    production = productions.find(db, row["type"], row["version"])
    return _provenance(db, production, row["run"], row["attempt"])


def _finished(db: Database, production: Production, run: int, before: str = LATEST) -> Row | None:
    """The latest attempt that had finished the run at the time ``before``, as (number, id)."""
    return db.row(
        """
        SELECT attempt, id FROM attempt
        WHERE production = ? AND run = ? AND outcome = 'finished' AND coalesce(stop, '') <= ?
        ORDER BY attempt DESC LIMIT 1
        """,
        (production.id, run, before),
    )


def _provenance(db: Database, production: Production, run: int, number: int | None) -> Provenance:
    row = db.row(
        """
        SELECT p.base_type, p.recipe, r.status, a.id, a.attempt, a.outcome, a.reason, m.user,
               m.host AS manager_host, m.pid, a.claimed, a.start, a.stop, a.batch, a.token,
               a.spool, a.job, a.host, a.job_start, a.job_stop, a.exit_code, a.cpu_seconds,
               a.peak_memory, t.sha256 AS modules_sha256, t.text AS modules, a.olog, a.elog,
               a.inputs
        FROM run r JOIN productions p ON p.id = r.production
        LEFT JOIN attempt a ON a.production = r.production AND a.run = r.run AND a.attempt = ?
        LEFT JOIN manager m ON m.id = a.manager
        LEFT JOIN modules t ON t.id = a.modules
        WHERE r.production = ? AND r.run = ?
        """,
        (number, production.id, run),
    )
    assert row is not None  # noqa: S101 - found a moment ago, and runs with attempts stay
    facts = dict(row)
    id_, olog, elog, files = (facts.pop(name) for name in ("id", "olog", "elog", "inputs"))
    token, spool = facts.pop("token"), facts.pop("spool")
    claim = Claim(run, row["attempt"], token) if spool else None
    latest = _finished(db, production, run)
    return Provenance(
        production=production,
        run=run,
        redone=latest["attempt"] if latest and number and latest["attempt"] > number else None,
        inputs=inputs.of_list(db, files),
        outputs=_outputs(db, id_),
        logs=tuple(
            RecordedFile(name, Path(path))
            for name, path in (("olog", olog), ("elog", elog))
            if path
        ),
        base=_base(db, production, run, row),
        job_name=job_name(production.label, claim, productions.database_id(db)) if claim else None,
        **facts,
    )


def _outputs(db: Database, attempt: int | None) -> tuple[RecordedFile, ...]:
    rows = db.rows(
        "SELECT name, path, size, sha256 FROM output WHERE attempt = ? ORDER BY name", (attempt,)
    )
    return tuple(RecordedFile(row[0], Path(row[1]), row[2], row[3]) for row in rows)


def _base(db: Database, production: Production, run: int, row: Row) -> Provenance | None:
    """What had made the inputs by the time of this attempt.

    The base may have been done again since: then its present outputs are not what was read.
    """
    if production.base is None or row["base_type"] is None:
        return None
    base = productions.find(db, row["base_type"], production.base)
    then = row["start"] or row["claimed"] or LATEST
    made = _finished(db, base, run, then) or _finished(db, base, run)
    return None if made is None else _provenance(db, base, run, made["attempt"])
