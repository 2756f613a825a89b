"""What has failed, grouped by reason."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from production.model import Production, Status
from production.store.choice import RunChoice
from production.store.connection import Database, Row
from production.store.reports.pieces import TRIED, WITHIN, latest_attempts, named, pieces

_COLUMNS = """
    SELECT p.type || '_v' || p.version AS production, r.run, a.attempt, r.status,
           coalesce(a.reason, '') AS reason, a.stop, a.olog, a.elog
"""
_NUMBER = re.compile(r"(exit code |signal )?(?<![\w.])\d+(?:\.\d+)*(?![\w.]*\w)")


@dataclass(frozen=True)
class Failure:
    """A failed attempt."""

    production: str
    run: int
    attempt: int
    status: Status  # of the run, now
    reason: str
    stop: str | None
    olog: str | None
    elog: str | None


@dataclass(frozen=True)
class Kind:
    """Failed attempts of a production with the same reason."""

    reason: str  # # for numbers that differ, RUN for the run's own
    production: str
    runs: int
    attempts: int
    at_error: int  # runs that stand at E
    first: str | None
    last: str | None
    example: Failure  # the latest


def open_failures(db: Database, of: Sequence[Production], chosen: RunChoice) -> Iterator[Failure]:
    """The latest failure of each run that has failed and is not done since, nor sent back."""
    condition, parameters = named(chosen)
    for piece in pieces(db, of):
        yield from _failures(
            db.rows(
                f"""
                {_COLUMNS}
                FROM run r CROSS JOIN productions p ON p.id = r.production
                CROSS JOIN attempt a ON {TRIED}
                WHERE {WITHIN} AND {condition} AND r.failures > 0 AND r.status <> 'F'
                  AND a.attempt = (SELECT max(attempt) FROM attempt f
                                   WHERE f.production = r.production AND f.run = r.run
                                     AND f.outcome = 'failed')
                ORDER BY r.run
                """,
                {**parameters, **piece.parameters},
            )
        )


def all_failures(db: Database, of: Sequence[Production], chosen: RunChoice) -> Iterator[Failure]:
    """Every attempt that has ever failed."""
    condition, parameters = named(chosen)
    ids = {production.id for production in of}
    for last, end in latest_attempts(db):
        rows = db.rows(
            f"""
            {_COLUMNS}, a.production AS id
            FROM attempt a NOT INDEXED
            CROSS JOIN run r ON r.production = a.production AND r.run = a.run
            CROSS JOIN productions p ON p.id = a.production
            WHERE a.id > :last AND a.id <= :end AND a.outcome = 'failed' AND {condition}
            """,
            {**parameters, "last": last, "end": end},
        )
        yield from _failures(row for row in rows if row["id"] in ids)


def _failures(rows: Iterable[Row]) -> Iterator[Failure]:
    for row in rows:
        production, run, attempt, status, reason, stop, olog, elog = row[:8]
        yield Failure(production, run, attempt, Status(status), reason, stop, olog, elog)


def grouped(failures: Iterable[Failure]) -> list[Kind]:
    """By production and reason; those of the most runs first."""
    groups: dict[tuple[str, str], list[Failure]] = {}
    for failure in failures:
        groups.setdefault((failure.production, kind(failure)), []).append(failure)
    kinds = [_kind(reason, found) for (_, reason), found in groups.items()]
    return sorted(kinds, key=lambda k: (-k.runs, k.production, k.reason))


def _kind(reason: str, found: Sequence[Failure]) -> Kind:
    reasons = {failure.reason for failure in found}
    times = sorted(failure.stop for failure in found if failure.stop)
    return Kind(
        reason=reasons.pop() if len(reasons) == 1 else reason,
        production=found[0].production,
        runs=len({failure.run for failure in found}),
        attempts=len(found),
        at_error=len({failure.run for failure in found if failure.status is Status.ERROR}),
        first=times[0] if times else None,
        last=times[-1] if times else None,
        example=max(found, key=lambda failure: (failure.stop or "", failure.run)),
    )


def kind(failure: Failure) -> str:
    """The reason without what differs from run to run, so that equal troubles are equal texts.

    Numbers become #, but for exit codes and signals; those within words, as in ADC0, stay.
    """
    own = re.sub(rf"(?<!\d)(?<!exit code )(?<!signal )0*{failure.run}(?!\d)", "RUN", failure.reason)
    own = re.sub(rf"\b(attempt|a){failure.attempt}\b", r"\1N", own)
    return _NUMBER.sub(lambda match: match[0] if match[1] else "#", own)
