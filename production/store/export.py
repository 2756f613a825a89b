"""The runs of a production as rows of its view, read piece by piece.

Each piece is a query of its own that is read to its end, so that managers never wait for an export
and a million runs need no more memory than a few.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from production.errors import UsageError
from production.model import Production
from production.store.choice import RunChoice
from production.store.connection import Database

LARGE = "modules"  # a text of many lines
PIECE = 1000  # runs read at once
PIECE_WITH_TEXT = 50


def columns(db: Database, production: Production, wanted: Sequence[str] = ()) -> list[str]:
    """The wanted columns of the production's view, by default all but the large one.

    Raises UsageError for one that it does not have.
    """
    rows = db.rows("SELECT name FROM pragma_table_info(?)", (production.label,))
    known = [str(row[0]) for row in rows]
    for name in wanted:
        if name not in known:
            raise UsageError(
                text=f"{production.label} has no column {name}; its columns: {', '.join(known)}"
            )
    return list(wanted) or [name for name in known if name != LARGE]


def rows(
    db: Database, production: Production, chosen: RunChoice, names: Sequence[str]
) -> Iterator[tuple[object, ...]]:
    """The chosen runs, by number, with the columns ``names``."""
    condition, parameters = chosen.condition("run")
    sql = (
        f"SELECT {', '.join(names)}, run AS _run FROM {production.label} "
        f"WHERE run > ? AND {condition} ORDER BY run LIMIT ?"
    )
    piece = PIECE_WITH_TEXT if LARGE in names else PIECE
    last = -1
    while found := db.rows(sql, (last, *parameters, piece)):
        for row in found:
            yield tuple(row)[:-1]
        last = found[-1]["_run"]
