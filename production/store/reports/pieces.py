"""Reading much in pieces, each a short query, so that managers need not wait for the whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from production.model import Production
from production.store.choice import RunChoice
from production.store.connection import Database

PIECE = 20_000  # rows that one statement looks at


@dataclass(frozen=True)
class Piece:
    """Runs of one production, by number: after ``last``, up to ``end``."""

    production: int
    last: int
    end: int

    @property
    def parameters(self) -> dict[str, object]:
        """For WITHIN."""
        return {"one": self.production, "last": self.last, "end": self.end}


WITHIN = "r.production = :one AND r.run > :last AND r.run <= :end"
# The attempts a of the runs r.  Without the sign SQLite concludes that a.run is in the same range,
# and reads the attempts of the whole piece for each run of it.
TRIED = "a.production = r.production AND a.run = +r.run"


def pieces(
    db: Database,
    productions: Iterable[Production],
    index: str = "",
    which: str = "true",
) -> Iterator[Piece]:
    """All runs of each production, by number; or those that ``which`` says, by an ``index``."""
    for production in productions:
        last = -1
        for size in sizes():
            row = db.row(
                f"SELECT max(run) FROM (SELECT run FROM run {index} WHERE {which} "
                "AND production = ? AND run > ? ORDER BY run LIMIT ?)",
                (production.id, last, size),
            )
            if row is None or row[0] is None:
                break
            yield Piece(production.id, last, row[0])
            last = row[0]


def latest_attempts(db: Database) -> Iterator[tuple[int, int]]:
    """Ranges of the attempts' ids, the first excluded: the latest first."""
    row = db.row("SELECT max(id) FROM attempt")
    end = (row[0] if row else None) or 0
    for size in sizes():
        if end <= 0:
            return
        yield end - size, end
        end -= size


def named(chosen: RunChoice) -> tuple[str, dict[str, object]]:
    """SQL that is true for the chosen runs of r, and its parameters, by names."""
    condition, values = chosen.condition("r.run", in_pieces=True)
    names = [f"chosen{number}" for number in range(len(values))]
    for name in names:
        condition = condition.replace("?", f":{name}", 1)
    return condition, dict(zip(names, values, strict=True))


def sizes() -> Iterator[int]:
    """How many rows to look at next: mostly the first few are enough."""
    size = 500
    while True:
        yield size
        size = min(2 * size, PIECE)
