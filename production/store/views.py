"""The view ``<type>_v<version>`` of each production, as people have queried it since 2014.

Reading shows one row a run.  Writing by hand does what is lawful or refuses with a reason:
``UPDATE alcapana_v4 SET status='N' WHERE run=2091`` gives a claimed run back (as long as no job was
submitted for it), has a failed run tried again or a finished one done again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from production.model import Outcome

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")

# Columns that every view has besides the recipe's outputs, in this order.  `a` is the attempt
# that counts: there is none while a run waits to be claimed.  `last` is the latest attempt, so
# that a run that waits for its next try still shows why the one before failed.
LEADING = ("r.run", "r.status", "m.user", "a.start", "a.stop")
TRAILING = (
    "a.olog",
    "a.elog",
    "t.text AS modules",
    "a.host",
    "a.job",
    "r.attempt",
    "last.exit_code",
    "last.reason",
    "a.cpu_seconds",
    "a.peak_memory",
)
FIXED_COLUMNS = tuple(
    column.rsplit(" ", 1)[-1].rsplit(".", 1)[-1] for column in (*LEADING, *TRAILING)
)


def view_statements(label: str, production: int, outputs: Sequence[str]) -> Iterator[str]:
    """The SQL that makes the view ``label`` with a column for each of ``outputs``."""
    for name in (label, *outputs):
        if not NAME.fullmatch(name):
            raise ValueError(name)
    columns = [*LEADING, *(f"o_{name}.path AS {name}" for name in outputs), *TRAILING]
    joins = [
        f"LEFT JOIN output o_{name} ON o_{name}.attempt = a.id AND o_{name}.name = '{name}'"
        for name in outputs
    ]
    yield f"""
        CREATE VIEW {label} AS
        SELECT {", ".join(columns)}
        FROM run r
        LEFT JOIN attempt last
               ON last.production = r.production AND last.run = r.run AND last.attempt = r.attempt
        LEFT JOIN attempt a ON a.id = last.id AND r.status <> 'N'
        LEFT JOIN manager m ON m.id = a.manager
        LEFT JOIN modules t ON t.id = a.modules
        {" ".join(joins)}
        WHERE r.production = {production}"""
    recorded = [*outputs, *(c for c in FIXED_COLUMNS if c not in {"run", "status"})]
    key = f"production = {production} AND run = OLD.run"
    yield f"""
        CREATE TRIGGER {label}_by_hand INSTEAD OF UPDATE ON {label}
        BEGIN
            SELECT RAISE(ABORT, 'only status can be set by hand: the rest is recorded by managers')
            WHERE {" OR ".join(f"NEW.{c} IS NOT OLD.{c}" for c in ("run", *recorded))};
            SELECT RAISE(ABORT, 'only status N can be set by hand: managers set the others')
            WHERE NEW.status <> OLD.status AND NEW.status <> 'N' OR NEW.status IS NULL;
            SELECT RAISE(ABORT, 'a job of this run is in the batch system: stop its manager first')
            WHERE NEW.status = 'N' AND OLD.status = 'R';
            SELECT RAISE(ABORT, 'a job of this run is being submitted: stop its manager first')
            WHERE NEW.status = 'N' AND OLD.status = 'C' AND EXISTS
                (SELECT 1 FROM attempt
                 WHERE {key} AND outcome IS NULL AND spool IS NOT NULL);
            UPDATE attempt
            SET outcome_code = {Outcome.ROLLED_BACK:d}, reason = 'given back by hand',
                stop_us = CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)
            WHERE {key} AND outcome IS NULL AND NEW.status = 'N' AND OLD.status = 'C';
            UPDATE run SET status = 'N', token = token + 1, failures = 0, not_before = NULL,
                   manager = NULL
            WHERE {key} AND NEW.status = 'N';
            UPDATE productions SET stop = NULL WHERE id = {production} AND NEW.status = 'N';
        END"""
    yield f"""
        CREATE TRIGGER {label}_add INSTEAD OF INSERT ON {label}
        BEGIN
            SELECT RAISE(ABORT, 'a run is added with its number only: it starts as N')
            WHERE NEW.run IS NULL OR coalesce(NEW.status, 'N') <> 'N'
               OR {" OR ".join(f"NEW.{c} IS NOT NULL" for c in recorded)};
            INSERT INTO run (production, run) VALUES ({production}, NEW.run);
            UPDATE productions SET stop = NULL WHERE id = {production};
        END"""
    yield f"""
        CREATE TRIGGER {label}_remove INSTEAD OF DELETE ON {label}
        BEGIN
            SELECT RAISE(ABORT, 'this run has a history: only untouched runs can be removed')
            WHERE EXISTS (SELECT 1 FROM attempt WHERE {key});
            DELETE FROM run WHERE {key};
        END"""
