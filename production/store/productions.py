"""Productions: starting the next version, finding one, and the modules texts."""

from __future__ import annotations

import hashlib
import socket
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from production.errors import UnknownProduction, UsageError
from production.identity import current_user
from production.model import Production, RunFilter, Status
from production.store.connection import Database, Row, utc_now
from production.store.views import view_statements

_COLUMNS = "id, type, version, software, start, stop, base, base_type"


@dataclass(frozen=True)
class NewProduction:
    """What a production is started with."""

    type: str
    software: str  # the software tag
    recipe: str  # text of the recipe file
    outputs: tuple[str, ...]  # names, in the recipe's order
    base: Production | None = None


def start(db: Database, new: NewProduction, wanted: RunFilter) -> tuple[Production, int]:
    """Start the next version: the production, its runs and its view, all at once or not at all.

    All datasets take part; only the quality of ``wanted`` decides.  A derived production takes
    the runs of its base.  Returns the production and the number of its runs.
    """
    with db.write() as tx:
        version = next_version(db, new.type)
        id_ = insert(
            tx,
            Production(
                0,
                new.type,
                version,
                new.software,
                utc_now(),
                None,
                new.base.version if new.base else None,
            ),
            base_type=new.base.type if new.base else None,
            recipe=new.recipe,
            outputs=new.outputs,
            user=current_user(),
            host=socket.gethostname(),
        )
        quality, parameters = quality_condition("d", wanted.qualities)
        if new.base:
            source = "FROM run r LEFT JOIN datasets d USING (run) WHERE r.production = ?"
            parameters = [new.base.id, *parameters]
        else:
            source = "FROM datasets d WHERE true"
        runs = tx.execute(
            f"INSERT INTO run (production, run) SELECT DISTINCT {id_}, run {source} AND {quality} "
            "ORDER BY run",
            parameters,
        ).rowcount
        if not runs:
            qualities = ", ".join(wanted.qualities) or "any"
            place = new.base.label if new.base else "the datasets"
            raise UsageError(
                text=f"no runs of quality {qualities} in {place}: a production without runs is "
                "not started (production datasets list; --quality=any takes all)"
            )
    return find(db, new.type, version), runs


def insert(
    tx: sqlite3.Connection,
    production: Production,
    *,
    base_type: str | None,
    recipe: str | None,
    outputs: Sequence[str],
    user: str | None = None,
    host: str | None = None,
) -> int:
    """Record a production and make its view, within a transaction; returns its id."""
    id_ = tx.execute(
        """
        INSERT INTO productions
            (type, version, software, start, stop, base, base_type, user, host, recipe)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
        """,
        (
            production.type,
            production.version,
            production.software,
            production.start,
            production.stop,
            production.base,
            base_type,
            user,
            host,
            recipe,
        ),
    ).lastrowid
    assert id_ is not None  # noqa: S101 - an INSERT has one
    for statement in view_statements(production.label, id_, outputs):
        tx.execute(statement)
    return id_


def quality_condition(table: str, qualities: Sequence[str]) -> tuple[str, list[object]]:
    """SQL that is true for rows of ``table`` with one of ``qualities``; none restricts nothing."""
    if not qualities:
        return "true", []
    return f"{table}.quality IN ({', '.join('?' * len(qualities))})", list(qualities)


def find(db: Database, type_: str, version: int | None = None) -> Production:
    """The production of that version, or the newest of its type.  Raises UnknownProduction."""
    if version is None:
        row = db.row(
            f"SELECT {_COLUMNS} FROM productions WHERE type = ? ORDER BY version DESC LIMIT 1",
            (type_,),
        )
    else:
        row = db.row(
            f"SELECT {_COLUMNS} FROM productions WHERE type = ? AND version = ?", (type_, version)
        )
    if row is None:
        raise UnknownProduction(what=_unknown(db, type_, version))
    return _production(row)


def _unknown(db: Database, type_: str, version: int | None) -> str:
    versions = db.rows("SELECT version FROM productions WHERE type = ? ORDER BY 1", (type_,))
    if not versions:
        types = [row[0] for row in db.rows("SELECT DISTINCT type FROM productions ORDER BY 1")]
        others = f", only of {', '.join(types)}" if types else ""
        return (
            f"No {type_} production exists yet{others}. Start the first one with: "
            f"run_production.py --production={type_} --new=TAG"
        )
    known = ", ".join(str(row[0]) for row in versions)
    return f"There is no {type_} production with version {version}. Existing versions: {known}"


def list_all(db: Database) -> list[tuple[Production, dict[Status, int]]]:
    """Every production with the number of its runs in each status."""
    found = db.rows(f"SELECT {_COLUMNS} FROM productions ORDER BY type, version")
    return [(_production(row), counts(db, row["id"])) for row in found]


def recipe_text(db: Database, production: Production) -> str | None:
    """The text of the recipe that the production was started with; None for an imported one."""
    row = db.row("SELECT recipe FROM productions WHERE id = ?", (production.id,))
    return row["recipe"] if row else None


def next_version(db: Database, type_: str) -> int:
    """The version that ``--new`` would start now."""
    row = db.row(
        "SELECT coalesce(max(version), 0) + 1 AS next FROM productions WHERE type = ?", (type_,)
    )
    return int(row["next"]) if row else 1


def first_run(db: Database, base: Production | None, wanted: RunFilter) -> int | None:
    """The run that a new production would begin with, as ``RunStore.claim`` takes them."""
    quality, parameters = quality_condition("d", wanted.qualities)
    source, conditions = "datasets d", [quality]
    if base is not None:
        source = "run r LEFT JOIN datasets d USING (run)"
        conditions.append("r.production = ? AND r.status = 'F'")
        parameters.append(base.id)
    order: list[str] = []
    ranked: list[object] = []
    for column, otherwise, chosen in (
        ("d.dataset", "''", wanted.datasets),
        ("d.tranche", "0", wanted.tranches),
    ):
        if chosen:  # in the order in which they were given
            conditions.append(f"{column} IN ({', '.join('?' * len(chosen))})")
            parameters.extend(chosen)
            whens = (f"WHEN ? THEN {rank}" for rank in range(len(chosen)))
            order.append(f"CASE {column} {' '.join(whens)} END")
            ranked.extend(chosen)
        else:
            order.append(f"coalesce({column}, {otherwise})")
    row = db.row(
        f"SELECT run FROM {source} WHERE {' AND '.join(conditions)} "
        f"ORDER BY {', '.join(order)}, run LIMIT 1",
        [*parameters, *ranked],
    )
    return row["run"] if row else None


def database_id(db: Database) -> str:
    """What tells this database apart in job names and directories."""
    row = db.row("SELECT value FROM meta WHERE key = 'uuid'")
    return str(row["value"]) if row else ""


def counts(db: Database, production: int) -> dict[Status, int]:
    """How many runs stand where; statuses without runs are left out."""
    rows = db.rows(
        "SELECT status, runs FROM tally WHERE production = ? AND runs > 0", (production,)
    )
    return {Status(row[0]): row[1] for row in rows}


def outputs(db: Database, production: int, run: int) -> dict[str, Path]:
    """The recorded outputs of a finished run, by name; empty when it is not finished."""
    rows = db.rows(
        """
        SELECT o.name, o.path FROM run r
        JOIN attempt a USING (production, run, attempt)
        JOIN output o ON o.attempt = a.id
        WHERE r.production = ? AND r.run = ? AND r.status = 'F'
        """,
        (production, run),
    )
    return {row["name"]: Path(row["path"]) for row in rows}


def keep_modules(tx: sqlite3.Connection, text: str) -> int:
    """The id of a modules text, stored once however often it is used."""
    digest = hashlib.sha256(text.encode()).hexdigest()
    tx.execute(
        "INSERT INTO modules (sha256, text) VALUES (?, ?) ON CONFLICT (sha256) DO NOTHING",
        (digest, text),
    )
    return int(tx.execute("SELECT id FROM modules WHERE sha256 = ?", (digest,)).fetchone()[0])


def _production(row: Row) -> Production:
    return Production(
        row["id"],
        row["type"],
        row["version"],
        row["software"],
        row["start"],
        row["stop"],
        row["base"],
    )
