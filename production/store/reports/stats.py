"""What the work has cost and brought: times, memory, waiting, throughput, sizes, in groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from production.model import Production
from production.store.choice import RunChoice
from production.store.connection import Database, utc_text
from production.store.reports.pieces import TRIED, WITHIN, named, pieces

# By what attempts can be grouped; a run counts for each dataset that it is in.
GROUPS: Mapping[str, str] = {
    "production": "NULL",
    "dataset": "d.dataset",
    "host": "a.host",
    "user": "m.user",
    "day": "substr(coalesce(a.stop, a.claimed), 1, 10)",
    "hour": "substr(coalesce(a.stop, a.claimed), 1, 13) || ':00'",
}
_HOURS: Mapping[str, float] = {"day": 24.0, "hour": 1.0}  # that a group lasts


def _span(begin: str, end: str, condition: str = "true") -> str:
    """Seconds between two times of an attempt, as far as they are known exactly."""
    return (
        f"CASE WHEN typeof(a.{begin}) = 'integer' AND typeof(a.{end}) = 'integer' "
        f"AND {condition} THEN max(a.{end} - a.{begin}, 0) / 1e6 END"
    )


_FINISHED = "a.outcome = 'finished'"
_WALL = _span("job_start_us", "job_stop_us")
_GOOD_WALL = _span("job_start_us", "job_stop_us", _FINISHED)
_CPU_WALL = _span("job_start_us", "job_stop_us", f"{_FINISHED} AND a.cpu_seconds IS NOT NULL")
_CPU = f"CASE WHEN {_GOOD_WALL} IS NOT NULL THEN a.cpu_seconds END"
_MEMORY = f"CASE WHEN {_FINISHED} THEN a.peak_memory END"
_WAITING = _span("start_us", "job_start_us")
_BYTES = (
    f"CASE WHEN {_FINISHED} AND r.status = 'F' AND r.attempt = a.attempt THEN "
    "(SELECT sum(size) FROM output o WHERE o.attempt = a.id) END"
)

# What one piece is asked for, and how the answers of two pieces become one.
_FIGURES: Mapping[str, tuple[str, str]] = {
    "runs": ("count(DISTINCT a.run)", "sum"),
    "finished": (f"count(DISTINCT CASE WHEN {_FINISHED} THEN a.run END)", "sum"),
    "attempts": ("count(*)", "sum"),
    "failed": ("count(CASE WHEN a.outcome = 'failed' THEN 1 END)", "sum"),
    "walls": (f"count({_GOOD_WALL})", "sum"),
    "wall": (f"total({_GOOD_WALL})", "sum"),
    "wall_max": (f"max({_GOOD_WALL})", "max"),
    "wall_all": (f"total({_WALL})", "sum"),
    "cpus": (f"count({_CPU})", "sum"),
    "cpu": (f"total({_CPU})", "sum"),
    "cpu_wall": (f"total({_CPU_WALL})", "sum"),
    "memories": (f"count({_MEMORY})", "sum"),
    "memory": (f"total({_MEMORY})", "sum"),
    "memory_max": (f"max({_MEMORY})", "max"),
    "waits": (f"count({_WAITING})", "sum"),
    "waiting": (f"total({_WAITING})", "sum"),
    "waiting_max": (f"max({_WAITING})", "max"),
    "bytes": (f"sum({_BYTES})", "sum"),
    "first": ("min(CASE WHEN typeof(a.start_us) = 'integer' THEN a.start_us END)", "min"),
    "last": (
        f"max(CASE WHEN typeof(a.stop_us) = 'integer' AND {_FINISHED} THEN a.stop_us END)",
        "max",
    ),
}


@dataclass(frozen=True)
class Stats:
    """Of the attempts of one production in one group; None: not known.

    Times, memory and bytes are those of finished attempts, means unless they say otherwise.
    """

    production: str
    group: str | None  # None: in no dataset, on no known host
    runs: int  # that were tried
    finished: int
    attempts: int
    failed: int  # attempts
    wall_seconds: float | None
    wall_max: float | None
    cpu_seconds: float | None
    efficiency: float | None  # CPU time by wall time
    useful: float | None  # wall time of finished attempts by that of all
    memory: float | None  # bytes
    memory_max: int | None  # bytes
    waiting_seconds: float | None  # of all jobs, in the batch system, before they started
    waiting_max: float | None
    # Runs finished: from the first submission to the last end, or in the whole hour or day.
    per_hour: float | None
    output_bytes: int | None  # of all outputs
    first: str | None  # submission
    last: str | None  # end of a finished attempt


def stats(db: Database, of: Sequence[Production], chosen: RunChoice, by: str) -> list[Stats]:
    """The statistics of each production and group, by their names."""
    condition, parameters = named(chosen)
    labels = {production.id: production.label for production in of}
    join = "LEFT JOIN datasets d ON d.run = r.run" if by == "dataset" else ""
    figures = ", ".join(f"{sql} AS {name}" for name, (sql, _) in _FIGURES.items())
    found: dict[tuple[str, str | None], dict[str, float | None]] = {}
    for piece in pieces(db, of):
        for row in db.rows(
            f"""
            SELECT {GROUPS[by]} AS key, {figures}
            FROM run r CROSS JOIN attempt a ON {TRIED}
            LEFT JOIN manager m ON m.id = a.manager {join}
            WHERE {WITHIN} AND {condition} GROUP BY key
            """,
            {**parameters, **piece.parameters},
        ):
            sums = found.setdefault((labels[piece.production], row["key"]), {})
            for name, (_, how) in _FIGURES.items():
                sums[name] = _merged(sums.get(name), row[name], how)
    order = sorted(found, key=lambda key: (key[0], key[1] is None, key[1] or ""))
    return [_stats(*key, found[key], _HOURS.get(by)) for key in order]


def _merged(one: float | None, other: float | None, how: str) -> float | None:
    if one is None or other is None:
        return other if one is None else one
    return {"sum": one + other, "min": min(one, other), "max": max(one, other)}[how]


def _stats(
    production: str, group: str | None, sums: Mapping[str, float | None], width: float | None
) -> Stats:
    first, last = sums["first"], sums["last"]
    hours = (last - first) / 3.6e9 if first is not None and last is not None else 0.0
    finished = int(sums["finished"] or 0)
    return Stats(
        production=production,
        group=group,
        runs=int(sums["runs"] or 0),
        finished=finished,
        attempts=int(sums["attempts"] or 0),
        failed=int(sums["failed"] or 0),
        wall_seconds=_ratio(sums["wall"], sums["walls"]),
        wall_max=sums["wall_max"],
        cpu_seconds=_ratio(sums["cpu"], sums["cpus"]),
        efficiency=_ratio(sums["cpu"], sums["cpu_wall"]),
        useful=_ratio(sums["wall"], sums["wall_all"]),
        memory=_ratio(sums["memory"], sums["memories"]),
        memory_max=_whole(sums["memory_max"]),
        waiting_seconds=_ratio(sums["waiting"], sums["waits"]),
        waiting_max=sums["waiting_max"],
        per_hour=finished / (width or hours) if hours > 0 else None,
        output_bytes=_whole(sums["bytes"]),
        first=None if first is None else utc_text(first / 1e6),
        last=None if last is None else utc_text(last / 1e6),
    )


def _ratio(one: float | None, other: float | None) -> float | None:
    return one / other if one is not None and other else None


def _whole(number: float | None) -> int | None:
    return None if number is None else int(number)
