"""Taking over a database of the 2014 or the 2016 layout, with nothing lost and nothing doubled.

2014: ``datasets(run, dataset, quality)`` (the wiki calls the last one ``qual``), ``productions``,
and a real table ``alcapana_vN`` or ``rootana_vN`` for each production, without keys.
2016: ``R15bdatasets(run, dataset, tranche, quality, geometry)`` besides.

What becomes of their rows: F runs are finished attempts with their paths, user, times (kept as
they stand: local time of the laboratory) and modules text; C and R runs belonged to a program
that no longer runs, so they are N again, with what is known in their history.  So is what a
roll-back of the old program left in N rows (it forgot stop, olog and elog).
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from production.errors import ImportRefused
from production.model import Outcome, Production, Status
from production.store import datasets
from production.store.connection import Database, Row, utc_now
from production.store.productions import insert, keep_modules
from production.store.views import FIXED_COLUMNS, NAME
from production.units import counted

_TABLE = re.compile(r"([A-Za-z][A-Za-z0-9_]*?)_v(\d+)")
_PRODUCTIONS = {"type", "version", "software", "start", "stop"}
_FIXED = {"run", "status", "user", "start", "stop", "olog", "elog", "modules"}
# Where a table has a run twice, one row counts; the others are history.
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
    if not path.is_file():
        raise ImportRefused(where=path, what="it is not a file")
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        connection.row_factory = sqlite3.Row
        connection.text_factory = _text
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
    labelled = [
        name
        for name, columns in tables.items()
        if name.endswith("datasets") and {"run", "dataset"} <= set(columns)
    ]
    if not labelled or _PRODUCTIONS - set(tables.get("productions", ())):
        what = "it has neither the layout of 2014 nor that of 2016 (datasets, productions)"
        raise ImportRefused(where=path, what=what)
    if "attempt" in tables:
        raise ImportRefused(where=path, what="it is a database of this program, not an old one")
    labels = [label for name in labelled for label in _labels(connection, name, path)]
    listed = _listed(connection, path)
    for name, columns in tables.items():
        match = _TABLE.fullmatch(name)
        if match and "status" in columns and (match[1], int(match[2])) not in listed:
            raise ImportRefused(
                where=f"{path}, table {name}", what="table productions does not mention it"
            )
    productions = [
        _production(connection, row, tables.get(f"{type_}_v{version}", ()), path)
        for (type_, version), row in sorted(listed.items())
    ]
    productions.sort(key=lambda old: old.production.base is not None)  # bases first
    return OldDatabase(path, tuple(dict.fromkeys(labels)), tuple(productions))


def _text(data: bytes) -> str:
    """Text as it was typed: UTF-8, or what editors wrote before."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _listed(connection: sqlite3.Connection, path: Path) -> dict[tuple[str, int], Row]:
    """The rows of table productions by type and version."""
    listed: dict[tuple[str, int], Row] = {}
    for row in connection.execute("SELECT DISTINCT * FROM productions"):
        type_, version = row["type"], row["version"]
        trouble = None
        if (
            not isinstance(type_, str)
            or not isinstance(version, int)
            or not NAME.fullmatch(f"{type_}_v{version}")
        ):
            trouble = f"type {type_!r} with version {version!r} is no production"
        elif (type_, version) in listed:
            trouble = f"{type_} version {version} stands there twice, with different contents"
        if trouble:
            raise ImportRefused(where=f"{path}, table productions", what=trouble)
        listed[type_, version] = row
    return listed


def _columns(connection: sqlite3.Connection, table: str) -> list[str]:
    quoted = table.replace('"', '""')
    return [row["name"] for row in connection.execute(f'PRAGMA table_info("{quoted}")')]


def _labels(connection: sqlite3.Connection, table: str, path: Path) -> Iterator[datasets.Label]:
    campaign = table.removesuffix("datasets") or None  # R15bdatasets: beam time R15b
    for row in connection.execute(f'SELECT * FROM "{table}"'):
        fields = dict(row)
        tranche = fields.get("tranche")
        if (
            not isinstance(fields["run"], int)
            or not fields["dataset"]
            or not isinstance(tranche, int | None)
        ):
            raise ImportRefused(
                where=f"{path}, table {table}",
                what=f"a row without run number or dataset, or with a strange tranche: {fields}",
            )
        yield datasets.Label(
            fields["run"],
            fields["dataset"],
            tranche,
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
    connection: sqlite3.Connection, row: Row, columns: Sequence[str], path: Path
) -> OldProduction:
    """A production with the rows of its table, whose ``columns`` are none when it is not there."""
    wanted = _described(row)
    if not columns:
        return OldProduction(wanted, (), ())
    where = f"{path}, table {wanted.label}"
    outputs = tuple(column for column in columns if column not in _FIXED)
    for column in outputs:
        if not NAME.fullmatch(column) or column in FIXED_COLUMNS:
            raise ImportRefused(where=where, what=f"column {column!r} is no name for an output")
    if not {"run", "status"} <= set(columns):
        raise ImportRefused(where=where, what="it has no columns run and status")
    # A row that stands there twice, word for word, is one.
    runs = [dict(found) for found in connection.execute(f'SELECT DISTINCT * FROM "{wanted.label}"')]
    for run in runs:
        if not isinstance(run["run"], int) or run["status"] not in _ORDER:
            raise ImportRefused(
                where=where,
                what=f"run {run['run']!r} has status {run['status']!r}; N, C, R and F are known",
            )
    return OldProduction(wanted, outputs, tuple(runs))


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
                said.append(_enter(tx, entry, _base_type(old, wanted), users))
            elif tuple(present) == (wanted.software, wanted.start):
                said.append(f"{wanted.label}: is there already")
            else:
                raise ImportRefused(
                    where=old.path, what=f"a different {wanted.label} is in {db.path} already"
                )
    return said


def _enter(
    tx: sqlite3.Connection, old: OldProduction, base_type: str | None, users: dict[str, int]
) -> str:
    wanted = old.production
    id_ = insert(tx, wanted, base_type=base_type, recipe=None, outputs=old.outputs)
    attempts: dict[int, list[dict[str, object]]] = {}
    for row in sorted(old.rows, key=_progress):
        attempts.setdefault(int(str(row["run"])), []).append(row)
    for run, rows in attempts.items():
        tried = [row for row in rows if row["status"] != "N" or _has_traces(row)]
        status = Status.FINISHED if rows[-1]["status"] == "F" else Status.NEW
        tx.execute(
            "INSERT INTO run (production, run, status, attempt, token) VALUES (?, ?, ?, ?, ?)",
            (id_, run, status, len(tried), len(tried)),
        )
        for number, row in enumerate(tried, start=1):
            _enter_attempt(tx, (id_, run, number), row, old.outputs, _user(tx, row, users))
    return f"{wanted.label}: {counted(len(attempts), 'run')}"


def _base_type(old: OldDatabase, wanted: Production) -> str | None:
    """Old databases give the base's version only; its type is the one that was never derived."""
    for entry in old.productions:
        base = entry.production
        if base.version == wanted.base and base.base is None and base.type != wanted.type:
            return base.type
    return None


def _progress(row: dict[str, object]) -> tuple[object, ...]:
    """Sorts the rows of a run such that the last one counts: who came further, or did it last."""
    return row["run"], _ORDER[str(row["status"])], str(row.get("stop") or "")


def _has_traces(row: dict[str, object]) -> bool:
    """Whether anybody ever worked on a run."""
    return any(value for column, value in row.items() if column not in {"run", "status"})


def _user(tx: sqlite3.Connection, row: dict[str, object], users: dict[str, int]) -> int:
    """The manager entry that stands for all that this user did with the old program."""
    name = str(row.get("user") or "unknown")
    if name not in users:
        users[name] = int(
            tx.execute(
                "INSERT INTO manager (user, stopped) VALUES (?, ?) RETURNING id", (name, utc_now())
            ).fetchone()[0]
        )
    return users[name]


def _time(value: object) -> str | None:
    """A time as it was: in the column, numbers would be microseconds."""
    return None if value is None else str(value)


def _enter_attempt(
    tx: sqlite3.Connection,
    key: tuple[int, int, int],
    row: dict[str, object],
    outputs: Sequence[str],
    manager: int,
) -> None:
    finished = row["status"] == "F"
    modules = row.get("modules") or ""
    id_ = tx.execute(
        """
        INSERT INTO attempt (production, run, attempt, manager, outcome_code, reason, start_us,
                             stop_us, modules, olog, elog)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id
        """,
        (
            *key,
            manager,
            Outcome.FINISHED if finished else Outcome.ROLLED_BACK,
            None if finished else f"had status {row['status']} when it was imported",
            _time(row.get("start")),
            _time(row.get("stop")),
            keep_modules(tx, _text(modules) if isinstance(modules, bytes) else str(modules))
            if modules
            else None,
            row.get("olog"),
            row.get("elog"),
        ),
    ).fetchone()[0]
    tx.executemany(
        "INSERT INTO output (attempt, name, path) VALUES (?, ?, ?)",
        [(id_, name, row[name]) for name in outputs if row[name]],
    )
