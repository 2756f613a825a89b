"""Taking over a database of the 2014 or the 2016 layout, with nothing lost and nothing doubled.

2014: ``datasets(run, dataset, quality)`` (the wiki calls the last one ``qual``), ``productions``,
and a real table ``alcapana_vN`` or ``rootana_vN`` for each production, without keys.
2016: ``R15bdatasets(run, dataset, tranche, quality, geometry)`` besides.

What becomes of their rows: F runs are finished attempts with their paths, user, times (kept as
they stand: local time of the laboratory) and modules text; C and R runs belonged to a program
that no longer runs, so they are N again, with what is known in their history.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from production.errors import ImportRefused
from production.model import Production, Status
from production.store import datasets
from production.store.connection import Database, Row, utc_now
from production.store.productions import insert, keep_modules

_TABLE = re.compile(r"([A-Za-z][A-Za-z0-9_]*?)_v(\d+)")
_PRODUCTIONS = {"type", "version", "software", "start", "stop"}
_FIXED = {"run", "status", "user", "start", "stop", "olog", "elog", "modules"}
# Where a table has a run twice, the row that came further counts; the others are history.
_ORDER = {"N": 0, "C": 1, "R": 2, "F": 3}


@dataclass(frozen=True)
class OldProduction:
    """A production and its runs, as an old database has them."""

    production: Production
    outputs: tuple[str, ...]
    rows: tuple[dict[str, object], ...]


@dataclass(frozen=True)
class OldDatabase:
    """All that an old database holds."""

    path: Path
    labels: tuple[datasets.Label, ...]
    productions: tuple[OldProduction, ...]


# --------------------------------------------------------------------------- reading the old file


def read(path: Path) -> OldDatabase:
    """Read an old database as a whole; it is not changed.  Raises ImportRefused."""
    try:
        path.stat()
    except OSError as error:
        raise ImportRefused(where=path, what=error.strerror) from None
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        connection.row_factory = sqlite3.Row
        try:
            return _read(connection, path)
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise ImportRefused(where=path, what=f"it cannot be read as a database ({error})") from None


def _read(connection: sqlite3.Connection, path: Path) -> OldDatabase:
    tables = {
        row[0]: _columns(connection, row[0])
        for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
    }
    labelled = [n for n, columns in tables.items() if {"run", "dataset"} <= set(columns)]
    if not labelled or _PRODUCTIONS - set(tables.get("productions", ())):
        what = "it has neither the layout of 2014 nor that of 2016 (datasets, productions)"
        raise ImportRefused(where=path, what=what)
    if "attempt" in tables:
        raise ImportRefused(where=path, what="it is a database of this program, not an old one")
    labels = [label for name in labelled for label in _labels(connection, name, path)]
    known = {
        (row["type"], row["version"]): row
        for row in connection.execute("SELECT * FROM productions")
    }
    productions = [
        _production(connection, name, tables[name], row, path)
        for (type_, version), row in sorted(known.items())
        if (name := f"{type_}_v{version}") in tables
    ]
    productions += [
        OldProduction(_described(row), (), ())
        for (type_, version), row in sorted(known.items())
        if f"{type_}_v{version}" not in tables
    ]
    for name in tables:
        match = _TABLE.fullmatch(name)
        if match and (match[1], int(match[2])) not in known:
            raise ImportRefused(
                where=f"{path}, table {name}", what="table productions does not mention it"
            )
    productions.sort(key=lambda old: old.production.base is not None)  # bases first
    return OldDatabase(path, tuple(dict.fromkeys(labels)), tuple(productions))


def _columns(connection: sqlite3.Connection, table: str) -> list[str]:
    quoted = table.replace('"', '""')
    return [row["name"] for row in connection.execute(f'PRAGMA table_info("{quoted}")')]


def _labels(connection: sqlite3.Connection, table: str, path: Path) -> Iterator[datasets.Label]:
    campaign = table.removesuffix("datasets") or None  # R15bdatasets: beam time R15b
    for row in connection.execute(f'SELECT * FROM "{table}"'):
        fields = dict(row)
        if not isinstance(fields["run"], int) or not fields["dataset"]:
            raise ImportRefused(
                where=f"{path}, table {table}",
                what=f"a row without run number or dataset: {fields}",
            )
        tranche = fields.get("tranche")
        yield datasets.Label(
            fields["run"],
            fields["dataset"],
            None if tranche is None else int(tranche),
            fields.get("quality") or fields.get("qual") or None,
            fields.get("geometry") or None,
            campaign,
        )


def _described(row: Row) -> Production:
    base = row["base"] if "base" in row.keys() else None  # noqa: SIM118 - a Row is no dict
    return Production(
        0, row["type"], row["version"], row["software"] or "", row["start"], row["stop"], base
    )


def _production(
    connection: sqlite3.Connection, table: str, columns: Sequence[str], row: Row, path: Path
) -> OldProduction:
    runs = [dict(found) for found in connection.execute(f'SELECT * FROM "{table}"')]
    for run in runs:
        if not isinstance(run["run"], int) or run["status"] not in _ORDER:
            raise ImportRefused(
                where=f"{path}, table {table}",
                what=f"run {run['run']} has status {run['status']!r}; N, C, R and F are known",
            )
    outputs = tuple(column for column in columns if column not in _FIXED)
    return OldProduction(_described(row), outputs, tuple(runs))


# --------------------------------------------------------------------------- writing


def take_over(db: Database, old: OldDatabase) -> list[str]:
    """Enter everything in one transaction; returns what was done, a line each.

    A production that is there already with the same tag and start is passed over, so an import
    may be repeated; one that differs is refused.
    """
    said = []
    with db.write() as tx:
        users: dict[str, int] = {}
        new, changed = datasets.write(tx, old.labels)
        said.append(f"datasets: {new} new, {changed} changed")
        for entry in old.productions:
            wanted = entry.production
            present = tx.execute(
                "SELECT software, start FROM productions WHERE type = ? AND version = ?",
                (wanted.type, wanted.version),
            ).fetchone()
            if present is None:
                said.append(_enter(tx, entry, users))
            elif tuple(present) == (wanted.software, wanted.start):
                said.append(f"{wanted.label}: is there already")
            else:
                raise ImportRefused(
                    where=old.path, what=f"a different {wanted.label} is in {db.path} already"
                )
    return said


def _enter(tx: sqlite3.Connection, old: OldProduction, users: dict[str, int]) -> str:
    wanted = old.production
    base_type = _base_type(tx, wanted)
    id_ = insert(tx, wanted, base_type=base_type, recipe=None, outputs=old.outputs)
    attempts: dict[int, list[dict[str, object]]] = {}
    for row in sorted(old.rows, key=lambda row: (row["run"], _ORDER[str(row["status"])])):
        attempts.setdefault(int(str(row["run"])), []).append(row)
    for run, rows in attempts.items():
        tried = [row for row in rows if row["status"] != "N"]
        status = Status.FINISHED if rows[-1]["status"] == "F" else Status.NEW
        tx.execute(
            "INSERT INTO run (production, run, status, attempt, token) VALUES (?, ?, ?, ?, ?)",
            (id_, run, status, len(tried), len(tried)),
        )
        for number, row in enumerate(tried, start=1):
            _enter_attempt(tx, (id_, run, number), row, old.outputs, _user(tx, row, users))
    return f"{wanted.label}: {len(attempts)} runs"


def _base_type(tx: sqlite3.Connection, wanted: Production) -> str | None:
    """Old databases give the base's version only; its type is the one that was never derived."""
    if wanted.base is None:
        return None
    row = tx.execute(
        "SELECT type FROM productions WHERE version = ? AND base IS NULL AND type <> ?",
        (wanted.base, wanted.type),
    ).fetchone()
    return row["type"] if row else None


def _user(tx: sqlite3.Connection, row: dict[str, object], users: dict[str, int]) -> int:
    """The manager entry that stands for all that this user did with the old program."""
    name = str(row["user"] or "unknown")
    if name not in users:
        users[name] = int(
            tx.execute(
                "INSERT INTO manager (user, stopped) VALUES (?, ?) RETURNING id", (name, utc_now())
            ).fetchone()[0]
        )
    return users[name]


def _enter_attempt(
    tx: sqlite3.Connection,
    key: tuple[int, int, int],
    row: dict[str, object],
    outputs: Sequence[str],
    manager: int,
) -> None:
    finished = row["status"] == "F"
    modules = row.get("modules")
    id_ = tx.execute(
        """
        INSERT INTO attempt (production, run, attempt, manager, outcome, reason, start, stop,
                             modules, olog, elog)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id
        """,
        (
            *key,
            manager,
            "finished" if finished else "rolled back",
            None if finished else f"had status {row['status']} when it was imported",
            row.get("start"),
            row.get("stop"),
            keep_modules(tx, str(modules)) if modules else None,
            row.get("olog"),
            row.get("elog"),
        ),
    ).fetchone()[0]
    tx.executemany(
        "INSERT INTO output (attempt, name, path) VALUES (?, ?, ?)",
        [(id_, name, row[name]) for name in outputs if row[name]],
    )
