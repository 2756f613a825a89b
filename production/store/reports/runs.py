"""Runs as rows: which of them, with which columns, in which order, how many.

Without an order of the user's they come with what goes on first: running, claimed, failed for good,
then the others, those that were tried last first.  That order follows indices, so the first rows
are there at once, however many runs there are.  Any other order needs all runs that were asked for;
they are read in pieces, so that no manager waits for it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from production.errors import UsageError
from production.model import Production, Status
from production.store.choice import EVERY_RUN, RunChoice
from production.store.connection import Database, Row, text_us
from production.store.reports.pieces import PIECE, WITHIN, latest_attempts, pieces

# Of the latest attempt, unless it says otherwise.
COLUMNS: Mapping[str, str] = {
    "run": "r.run",
    "production": "p.type || '_v' || p.version",
    "dataset": "(SELECT group_concat(dataset, ',') FROM "
    "(SELECT dataset FROM datasets d WHERE d.run = r.run ORDER BY dataset))",
    "status": "r.status",
    "attempt": "r.attempt",
    "failures": "r.failures",
    "not_before": "r.not_before",
    "user": "m.user",
    "manager": "a.manager",
    "claimed": "a.claimed",
    "start": "a.start",
    "stop": "a.stop",
    "outcome": "a.outcome",
    "exit_code": "a.exit_code",
    "reason": "a.reason",
    "batch": "a.batch",
    "job": "a.job",
    "host": "a.host",
    "job_start": "a.job_start",
    "job_stop": "a.job_stop",
    "wall_seconds": "CASE WHEN typeof(a.job_start_us) = 'integer' AND "
    "typeof(a.job_stop_us) = 'integer' THEN (a.job_stop_us - a.job_start_us) / 1e6 END",
    "cpu_seconds": "a.cpu_seconds",
    "peak_memory": "a.peak_memory",
    "olog": "a.olog",
    "elog": "a.elog",
}
USUAL = (
    *("run", "production", "dataset", "status", "attempt", "user", "start", "stop"),
    *("host", "reason"),
)
_MOMENT = "coalesce(a.stop_us, a.start_us, a.claimed_us)"
_ATTEMPT = (
    "LEFT JOIN attempt a ON a.production = r.production AND a.run = r.run AND a.attempt = r.attempt"
)


@dataclass(frozen=True)
class RunQuery:
    """Which runs, what of them, in which order; what is empty does not restrict."""

    productions: Sequence[Production]
    chosen: RunChoice = EVERY_RUN
    statuses: frozenset[Status] = frozenset(Status)
    user: str | None = None  # who claimed it for its latest attempt
    reason: str = ""  # a part of the latest attempt's, in upper or lower case
    since: str | None = None  # UTC text; the latest attempt's latest change
    until: str | None = None
    columns: Sequence[str] = USUAL
    order: Sequence[str] = ()  # columns; -column: the largest first
    limit: int | None = None
    ids: str = field(init=False)  # of the productions, as JSON

    def __post_init__(self) -> None:
        """Raise UsageError for columns that there are not."""
        for name in (*self.columns, *(name.removeprefix("-") for name in self.order)):
            if name not in COLUMNS:
                raise UsageError(text=f"there is no column '{name}'. Columns: {', '.join(COLUMNS)}")
        object.__setattr__(self, "ids", json.dumps([p.id for p in self.productions]))


@dataclass(frozen=True)
class Found:
    """The rows, and whether the limit has kept others back."""

    rows: list[tuple[object, ...]]
    more: bool


def find(db: Database, query: RunQuery) -> Found:
    """The runs that are asked for."""
    rows = _Finder(db, query).rows()
    if query.order and not _is_as_found(query):
        found = _sorted(rows, query)
    else:
        found = list(islice(rows, None if query.limit is None else query.limit + 1))
    width = len(query.columns)
    more = query.limit is not None and len(found) > query.limit
    return Found([tuple(row)[:width] for row in found[: query.limit]], more)


def _is_as_found(query: RunQuery) -> bool:
    """Whether the runs of one production are wanted by number."""
    return query.order == ("run",) and len(query.productions) == 1 and not query.chosen


def _sorted(rows: Iterator[Row], query: RunQuery) -> list[Row]:
    """The first of ``rows`` in the wanted order; no more of them are kept than needed."""
    keep = None if query.limit is None else query.limit + 1
    best: list[Row] = []
    for row in rows:
        best.append(row)
        if keep is not None and len(best) >= 2 * keep + PIECE:
            best = _in_order(best, query)[:keep]
    return _in_order(best, query)[:keep]


def _in_order(rows: list[Row], query: RunQuery) -> list[Row]:
    for place, name in reversed(list(enumerate(query.order, len(query.columns)))):
        rows.sort(key=lambda row: _key(row[place]), reverse=name.startswith("-"))
        rows.sort(key=lambda row: row[place] is None)  # nothing comes last
    return rows


def _key(value: object) -> tuple[bool, float, str]:
    """Numbers before texts."""
    number = value if isinstance(value, int | float) else 0.0
    return isinstance(value, str), number, value if isinstance(value, str) else ""


class _Finder:
    """Reads the runs of a query, piece by piece."""

    def __init__(self, db: Database, query: RunQuery) -> None:
        self._db = db
        self._query = query
        names = (*query.columns, *(name.removeprefix("-") for name in query.order))
        columns = (f'{COLUMNS[name]} AS "{name}"' for name in names)
        self._select = f"SELECT {', '.join(columns)}, r.production, r.run"
        self._where, self._parameters = self._conditions()
        self._seen: set[tuple[int, int]] = set()  # what moves on meanwhile is not told twice
        there = db.rows("SELECT DISTINCT status FROM tally WHERE runs > 0")
        self._statuses = query.statuses & {Status(row[0]) for row in there}

    def rows(self) -> Iterator[Row]:
        """The runs in the order in which they are found."""
        statuses = self._statuses
        if self._query.chosen:
            yield from self._chosen()
            return
        if self._query.order == ("run",):
            yield from self._by_number("true")
            return
        for row in self._under_way(statuses):
            self._seen.add((row[-2], row[-1]))
            yield row
        for row in self._others(statuses):
            if (row[-2], row[-1]) not in self._seen:
                yield row

    def _under_way(self, statuses: frozenset[Status]) -> Iterator[Row]:
        """The first to look at; few of all."""
        if statuses & {Status.CLAIMED, Status.RUNNING}:
            yield from self._held()
        if Status.ERROR in statuses:
            yield from self._at_error()

    def _others(self, statuses: frozenset[Status]) -> Iterator[Row]:
        if Status.FINISHED in statuses:
            yield from self._by_time(statuses & {Status.NEW, Status.FINISHED})
            if Status.NEW in statuses:
                yield from self._by_number("r.status = 'N' AND r.attempt = 0")
        elif Status.NEW in statuses:
            yield from self._by_number("r.status = 'N'")

    def _conditions(self) -> tuple[str, dict[str, object]]:
        query = self._query
        conditions = [
            "r.production IN (SELECT value FROM json_each(:ids))",
            "r.status IN (SELECT value FROM json_each(:statuses))",
        ]
        if query.user is not None:
            conditions.append("m.user = :user")
        if query.reason:
            conditions.append("instr(lower(a.reason), lower(:reason)) > 0")
        for name, sign in (("since", ">="), ("until", "<")):
            if getattr(query, name) is not None:
                # An imported database has text for the times that it did not know exactly.
                conditions.append(
                    f"CASE typeof({_MOMENT}) WHEN 'integer' THEN {_MOMENT} {sign} :{name}_us "
                    f"ELSE {_MOMENT} {sign} :{name} END"
                )
        parameters: dict[str, object] = {
            "ids": query.ids,
            "statuses": json.dumps(sorted(query.statuses)),
            "user": query.user,
            "reason": query.reason,
            "since": query.since,
            "until": query.until,
            "since_us": text_us(query.since) if query.since else None,
            "until_us": text_us(query.until) if query.until else None,
        }
        return " AND ".join(conditions), parameters

    # ----------------------------------------------------------------- the ways to find runs

    def _held(self) -> Iterator[Row]:
        """Those of managers: running first."""
        yield from self._read(
            f"run r INDEXED BY run_by_manager {_ATTEMPT}",
            "r.manager IS NOT NULL",
            "r.status DESC, p.type, p.version, r.run",
        )

    def _at_error(self) -> Iterator[Row]:
        index = "INDEXED BY run_at_error"
        for piece in pieces(self._db, self._query.productions, index, "status = 'E'"):
            yield from self._read(
                f"run r {index} {_ATTEMPT}",
                f"r.status = 'E' AND {WITHIN}",
                "r.run",
                **piece.parameters,
            )

    def _by_number(self, condition: str) -> Iterator[Row]:
        for piece in pieces(self._db, self._query.productions):
            yield from self._read(
                f"run r {_ATTEMPT}", f"{WITHIN} AND {condition}", "r.run", **piece.parameters
            )

    def _by_time(self, statuses: frozenset[Status]) -> Iterator[Row]:
        """The latest claims first."""
        for last, end in latest_attempts(self._db):
            yield from self._read(
                # By id: SQLite would rather look through all attempts of the productions.
                "attempt a NOT INDEXED CROSS JOIN run r "
                "ON r.production = a.production AND r.run = a.run AND r.attempt = a.attempt",
                "r.status IN (SELECT value FROM json_each(:these)) "
                "AND a.id > :last AND a.id <= :end",
                "a.id DESC",
                last=last,
                end=end,
                these=json.dumps(sorted(statuses)),
            )

    def _chosen(self) -> Iterator[Row]:
        """Runs that are named, or of datasets: by production and number."""
        runs = self._named()
        for production in self._query.productions:
            for first in range(0, len(runs), PIECE):
                yield from self._read(
                    f"json_each(:runs) j CROSS JOIN run r ON r.run = j.value {_ATTEMPT}",
                    "r.production = :one",
                    "r.run",
                    one=production.id,
                    runs=json.dumps(runs[first : first + PIECE]),
                )

    def _named(self) -> list[int]:
        chosen = self._query.chosen
        if not chosen.datasets:
            return sorted(chosen.runs)
        rows = self._db.rows(
            "SELECT DISTINCT run FROM datasets WHERE dataset IN (SELECT value FROM json_each(?))",
            (json.dumps(list(chosen.datasets)),),
        )
        of_datasets = {row[0] for row in rows}
        return sorted(of_datasets & set(chosen.runs) if chosen.runs else of_datasets)

    # ----------------------------------------------------------------- reading

    def _read(self, source: str, condition: str, order: str, **parameters: object) -> list[Row]:
        """What ``source`` has, which calls a run r and its latest attempt a."""
        query = self._query
        most = -1  # no limit
        if query.limit is not None and (not query.order or _is_as_found(query)):
            most = query.limit + 1 + len(self._seen)
        return self._db.rows(
            f"{self._select} FROM {source} CROSS JOIN productions p ON p.id = r.production "
            f"LEFT JOIN manager m ON m.id = a.manager WHERE {self._where} AND {condition} "
            f"ORDER BY {order} LIMIT :most",
            {**self._parameters, **parameters, "most": most},
        )
