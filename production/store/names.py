"""What a shell may complete: names and numbers that the database knows.

Nobody waits for a completion: nothing is written, a lock is waited for a moment only, and each
query takes some steps in an index, however many runs there are.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

PATIENCE = 0.1  # seconds; how long to wait for a lock
FEW = 20  # runs of one length that are named from either end
DIGITS = 10  # of the longest run numbers that are completed


class Names:
    """Asks an open database, which may be another program's: then sqlite3.Error is raised."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def datasets(self) -> list[str]:
        """All datasets; one step in the index for each."""
        return self._column(
            """
            WITH RECURSIVE d(name) AS (
                SELECT min(dataset) FROM datasets
                UNION ALL
                SELECT (SELECT min(dataset) FROM datasets WHERE dataset > d.name)
                FROM d WHERE d.name IS NOT NULL
            )
            SELECT name FROM d WHERE name IS NOT NULL LIMIT 1000
            """
        )

    def types(self) -> list[str]:
        """The types of all productions."""
        return self._column("SELECT DISTINCT type FROM productions ORDER BY type")

    def labels(self) -> list[str]:
        """All productions by type and version, such as ``alcapana_v4``."""
        return self._column(
            "SELECT type || '_v' || version FROM productions ORDER BY type, version DESC"
        )

    def versions(self, type_: str | None) -> dict[str, str]:
        """The versions of a type, or of all, the newest first; each with its software tag."""
        rows = self._connection.execute(
            "SELECT version, software FROM productions WHERE type = coalesce(?, type) "
            "ORDER BY version DESC",
            (type_,),
        )
        return {str(version): str(software) for version, software in rows}

    def columns(self, type_: str | None, version: int | None) -> list[str]:
        """The columns of a production's view, or of that of the type's newest version."""
        return self._column(
            """
            SELECT name FROM pragma_table_info((
                SELECT type || '_v' || version FROM productions
                WHERE type = ? AND version = coalesce(?, version) ORDER BY version DESC LIMIT 1
            ))
            """,
            (type_, version),
        )

    def users(self) -> list[str]:
        """Everybody who has had a manager."""
        return self._column("SELECT DISTINCT user FROM manager ORDER BY user")

    def managers(self, type_: str | None) -> dict[str, str]:
        """The managers at work on productions of a type, each with its user and host."""
        rows = self._connection.execute(
            "SELECT m.id, m.user || ' on ' || coalesce(m.host, 'an unknown host') "
            "FROM manager m JOIN productions p ON p.id = m.production "
            "WHERE m.stopped IS NULL AND p.type = coalesce(?, p.type) ORDER BY m.id",
            (type_,),
        )
        return {str(id_): place for id_, place in rows}

    def runs(self, prefix: str, type_: str | None, version: int | None) -> list[str]:
        """Run numbers that begin with ``prefix``: of a production, of all of a type, or of all.

        When there are many, some of each length from either end.  So what those have in common
        that are named, and a shell fills in, all have in common.
        """
        tables: list[tuple[str, tuple[object, ...]]] = [
            ("run WHERE production = ? AND", (id_,)) for id_ in self._productions(type_, version)
        ]
        if type_ is None:
            tables.append(("datasets WHERE", ()))
        found: set[int] = set()
        for low, high in ranges(prefix):
            for table, parameters in tables:
                for order in ("ASC", "DESC"):
                    rows = self._connection.execute(
                        f"SELECT run FROM {table} run BETWEEN ? AND ? ORDER BY run {order} LIMIT ?",
                        (*parameters, low, high, FEW),
                    )
                    found.update(row[0] for row in rows)
        return [str(run) for run in sorted(found)]

    def _productions(self, type_: str | None, version: int | None) -> Sequence[int]:
        rows = self._connection.execute(
            "SELECT id FROM productions WHERE type = coalesce(?, type) "
            "AND version = coalesce(?, version) ORDER BY id DESC LIMIT 50",
            (type_, version),
        )
        return [row[0] for row in rows]

    def _column(self, sql: str, parameters: Sequence[object] = ()) -> list[str]:
        return [str(row[0]) for row in self._connection.execute(sql, parameters)]


def ranges(prefix: str) -> Iterator[tuple[int, int]]:
    """The numbers that begin with ``prefix``, by their length: the first and the last of each."""
    if not prefix:
        yield 0, 0
        for length in range(1, DIGITS + 1):
            yield 10 ** (length - 1), 10**length - 1
    elif prefix.isascii() and prefix.isdigit() and (prefix == "0" or prefix[0] != "0"):
        start = int(prefix)
        yield start, start
        for more in range(1, DIGITS + 1 - len(prefix) if start else 0):
            yield start * 10**more, (start + 1) * 10**more - 1


def open_names(path: Path) -> closing[sqlite3.Connection]:
    """The database as it is, to read only: not even a dead writer's journal is played back."""
    return closing(
        sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=PATIENCE)
    )
