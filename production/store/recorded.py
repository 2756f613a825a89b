"""What the bookkeeping says that there is on disk, read piece by piece.

Each piece is a query of its own that is read to its end, so that managers never wait for an audit.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from production.model import Claim, Production, RecordedFile, RecordedRun
from production.store.choice import RunChoice
from production.store.connection import Database, Row
from production.store.views import FIXED_COLUMNS

PIECE = 2000  # runs read at once


@dataclass(frozen=True)
class Held:
    """An attempt that goes on: its files may appear at any moment."""

    claim: Claim
    spool: Path | None  # None: nothing was prepared for its job yet


@dataclass(frozen=True)
class Recording:
    """Who has recorded a path as an output."""

    production: str  # alcapana_v4
    run: int
    status: str  # of the run, now
    attempt: int
    counts: bool  # the run is finished, by that attempt


def output_names(db: Database, production: Production) -> list[str]:
    """The outputs that each run of the production should have."""
    rows = db.rows("SELECT name FROM pragma_table_info(?)", (production.label,))
    return [row[0] for row in rows if row[0] not in FIXED_COLUMNS]


def finished_runs(
    db: Database, production: Production, chosen: RunChoice, piece: int = PIECE
) -> Iterator[RecordedRun]:
    """The finished runs among the chosen ones, by number."""
    condition, parameters = chosen.condition("r.run")
    last = -1
    while True:
        rows = db.rows(
            f"""
            SELECT r.run, r.attempt, a.id, a.olog, a.elog
            FROM run r JOIN attempt a USING (production, run, attempt)
            WHERE r.production = ? AND r.status = 'F' AND r.run > ? AND {condition}
            ORDER BY r.run LIMIT ?
            """,
            (production.id, last, *parameters, piece),
        )
        if not rows:
            return
        outputs = _outputs(db, [row["id"] for row in rows])
        for row in rows:
            logs = tuple(Path(row[name]) for name in ("olog", "elog") if row[name])
            yield RecordedRun(row["run"], row["attempt"], tuple(outputs[row["id"]]), logs)
        last = rows[-1]["run"]


def _outputs(db: Database, attempts: list[int]) -> dict[int, list[RecordedFile]]:
    found: dict[int, list[RecordedFile]] = {id_: [] for id_ in attempts}
    for row in db.rows(
        "SELECT attempt, name, path, size, sha256 FROM output "
        "WHERE attempt IN (SELECT value FROM json_each(?)) ORDER BY attempt, name",
        (json.dumps(attempts),),
    ):
        found[row[0]].append(RecordedFile(row[1], Path(row[2]), row[3], row[4]))
    return found


def bytes_with_checksum(db: Database, production: Production, chosen: RunChoice) -> int:
    """How many bytes a check of all checksums has to read."""
    condition, parameters = chosen.condition("r.run")
    row = db.row(
        f"""
        SELECT coalesce(sum(o.size), 0)
        FROM run r JOIN attempt a USING (production, run, attempt)
        JOIN output o ON o.attempt = a.id
        WHERE r.production = ? AND r.status = 'F' AND o.sha256 IS NOT NULL AND {condition}
        """,
        (production.id, *parameters),
    )
    return int(row[0]) if row else 0


def held(db: Database, production: Production) -> list[Held]:
    """The attempts of a production that go on."""
    rows = db.rows(
        """
        SELECT r.run, r.attempt, r.token, r.failures, a.spool
        FROM manager m JOIN run r ON r.manager = m.id
        JOIN attempt a USING (production, run, attempt) WHERE r.production = ?
        """,
        (production.id,),
    )
    return [
        Held(Claim(*row[:4]), None if row["spool"] is None else Path(row["spool"])) for row in rows
    ]


def outcome(db: Database, production: Production, run: int, attempt: int) -> str:
    """How that attempt ended, in a word; "" while it lasts, or when there is none."""
    row = db.row(
        "SELECT outcome FROM attempt WHERE production = ? AND run = ? AND attempt = ?",
        (production.id, run, attempt),
    )
    return str(row["outcome"] or "") if row is not None else ""


def in_vain(db: Database, production: Production) -> list[tuple[int, int]]:
    """Run and number of all attempts that are over and have not finished their run."""
    rows = db.rows(
        "SELECT run, attempt FROM attempt "
        "WHERE production = ? AND outcome IN ('failed', 'rolled back') ORDER BY run, attempt",
        (production.id,),
    )
    return [(row["run"], row["attempt"]) for row in rows]


def is_finished(db: Database, production: Production, run: int, attempt: int) -> bool:
    """Whether the run still is finished by that attempt."""
    row = db.row(
        "SELECT 1 FROM run WHERE production = ? AND run = ? AND attempt = ? AND status = 'F'",
        (production.id, run, attempt),
    )
    return row is not None


def recordings(db: Database, paths: Sequence[Path]) -> dict[Path, Recording]:
    """Who has recorded these paths, as far as anybody has; for each the one that counts, if any.

    Paths have no index, so this reads all of them once.
    """
    rows = db.rows(
        """
        SELECT o.path, p.type, p.version, r.run, r.status, a.attempt,
               r.status = 'F' AND r.attempt = a.attempt AS counts
        FROM output o JOIN attempt a ON a.id = o.attempt
        JOIN run r ON r.production = a.production AND r.run = a.run
        JOIN productions p ON p.id = a.production
        WHERE o.path IN (SELECT value FROM json_each(?)) ORDER BY counts, a.id
        """,
        (json.dumps([str(path) for path in paths]),),
    )
    return {Path(row["path"]): _recording(row) for row in rows}


def _recording(row: Row) -> Recording:
    label = f"{row['type']}_v{row['version']}"
    return Recording(label, row["run"], row["status"], row["attempt"], bool(row["counts"]))
