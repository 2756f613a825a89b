"""What happened when: the numbers behind the plots.

Attempts are counted in bins of time, and read in pieces.  Times that an imported database does not
tell exactly are left out.
"""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from production.model import Production
from production.store.connection import Database
from production.store.reports.pieces import TRIED, WITHIN, latest_attempts, pieces

STEPS = 500  # of a curve, about
BARS = 240  # at most, unless even the widest bins are more
HOUR = 3_600_000_000  # microseconds, as all times here that are integers
WIDTHS = (HOUR, 6 * HOUR, 24 * HOUR, 7 * 24 * HOUR, 28 * 24 * HOUR)

# What an attempt goes through: from when to when.
PHASES: Mapping[str, tuple[str, str]] = {
    "claimed: tape and transfer": ("a.claimed_us", "coalesce(a.start_us, a.stop_us)"),
    "jobs in the batch system": ("a.start_us", "a.stop_us"),
    "of these on a node, where known": ("a.job_start_us", "coalesce(a.job_stop_us, a.stop_us)"),
}


@dataclass(frozen=True)
class Curve:
    """Numbers at moments; in between they are anything from one to the next."""

    name: str
    moments: tuple[float, ...]  # seconds since 1970
    values: tuple[float, ...]


@dataclass(frozen=True)
class Bars:
    """What there was in each of some spans of time, those with nothing left out."""

    name: str
    begins: tuple[float, ...]  # seconds since 1970
    width: float  # seconds
    values: tuple[float, ...]


def progress(db: Database, of: Sequence[Production]) -> list[Curve]:
    """Runs of each production that are finished now: how many were at each moment."""
    span = _span(db, of)
    if span is None:
        return []
    width = _step(span)
    which = "r.status = 'F' AND r.attempt = a.attempt"
    found = _binned(db, of, "a.stop_us", which, width)
    return [_sums(p.label, found[p.id], width) for p in of if found[p.id]]


def throughput(db: Database, of: Sequence[Production]) -> list[Bars]:
    """Runs of each production finished an hour; an attempt that was in vain later counts, too."""
    span = _span(db, of)
    if span is None:
        return []
    few = [width for width in WIDTHS if (span[1] - span[0]) // width < BARS]
    width = few[0] if few else WIDTHS[-1]
    found = _binned(db, of, "a.stop_us", "a.outcome = 'finished'", width)
    return [_rates(p.label, found[p.id], width) for p in of if found[p.id]]


def occupancy(db: Database, of: Sequence[Production]) -> list[Curve]:
    """How many runs were in each of PHASES, of all these productions together."""
    span = _span(db, of)
    if span is None:
        return []
    width = _step(span)
    curves = []
    for name, (begin, end) in PHASES.items():
        change: Counter[int] = Counter()
        for counts in _binned(db, of, begin, "true", width).values():
            change.update(counts)
        for counts in _binned(db, of, end, f"typeof({begin}) = 'integer'", width).values():
            change.subtract(counts)
        if change:
            curves.append(_sums(name, change, width))
    return curves


def wall_times(db: Database, of: Sequence[Production]) -> dict[tuple[str, str], Sequence[float]]:
    """Seconds on the node of all finished attempts, by production and dataset ("": in none).

    A run in two datasets counts in both.
    """
    labels = {production.id: production.label for production in of}
    found: dict[tuple[str, str], array[float]] = {}
    for piece in pieces(db, of):
        for dataset, seconds in db.rows(
            f"""
            SELECT coalesce(d.dataset, ''), max(a.job_stop_us - a.job_start_us, 0) / 1e6
            FROM run r CROSS JOIN attempt a ON {TRIED}
            LEFT JOIN datasets d ON d.run = r.run
            WHERE {WITHIN} AND a.outcome = 'finished'
              AND typeof(a.job_start_us) = 'integer' AND typeof(a.job_stop_us) = 'integer'
            """,
            piece.parameters,
        ):
            key = (labels[piece.production], dataset)
            found.setdefault(key, array("d")).append(seconds)
    return {key: found[key] for key in sorted(found)}


# --------------------------------------------------------------------------- counting


def _span(db: Database, of: Sequence[Production]) -> tuple[int, int] | None:
    """From the first claim to the last thing that happened to an attempt; None: nothing has."""
    moments: list[int] = []
    for last, end in latest_attempts(db):
        (row,) = db.rows(
            """
            SELECT min(a.claimed_us), max(max(a.claimed_us, coalesce(a.start_us, 0),
                                              coalesce(a.stop_us, 0)))
            FROM attempt a
            WHERE a.id > :last AND a.id <= :end AND typeof(a.claimed_us) = 'integer'
              AND typeof(a.start_us) <> 'text' AND typeof(a.stop_us) <> 'text'
              AND a.production IN (SELECT value FROM json_each(:ids))
            """,
            {"last": last, "end": end, "ids": _ids(of)},
        )
        moments += [moment for moment in row if moment is not None]
    return (min(moments), max(moments)) if moments else None


def _step(span: tuple[int, int]) -> int:
    """The width of the bins of a curve: a second at least."""
    return max((span[1] - span[0]) // STEPS, 1_000_000)


def _binned(
    db: Database, of: Sequence[Production], moment: str, which: str, width: int
) -> dict[int, Counter[int]]:
    """How many attempts of each production have ``moment`` in each bin, as far as ``which``."""
    found = {production.id: Counter[int]() for production in of}
    for last, end in latest_attempts(db):
        for production, place, count in db.rows(
            f"""
            SELECT a.production, {moment} / :width AS place, count(*)
            FROM attempt a CROSS JOIN run r ON r.production = a.production AND r.run = a.run
            WHERE a.id > :last AND a.id <= :end AND typeof({moment}) = 'integer' AND {which}
              AND a.production IN (SELECT value FROM json_each(:ids))
            GROUP BY a.production, place
            """,
            {"last": last, "end": end, "ids": _ids(of), "width": width},
        ):
            found[production][place] += count
    return found


def _ids(of: Sequence[Production]) -> str:
    return json.dumps([production.id for production in of])


def _sums(name: str, counts: Mapping[int, int], width: int) -> Curve:
    """How many there were at the end of each bin, beginning with none before the first."""
    first, last = min(counts), max(counts)
    bins = range(first, last + 1)
    sums = accumulate((counts.get(place, 0) for place in bins), initial=0)
    moments = [place * width / 1e6 for place in range(first, last + 2)]
    return Curve(name, tuple(moments), tuple(map(float, sums)))


def _rates(name: str, counts: Mapping[int, int], width: int) -> Bars:
    places = sorted(counts)
    return Bars(
        name=name,
        begins=tuple(place * width / 1e6 for place in places),
        width=width / 1e6,
        values=tuple(counts[place] * HOUR / width for place in places),
    )
