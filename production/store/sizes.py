"""How much space runs take, learnt from those that are finished."""

from __future__ import annotations

from production.store.connection import Database

SAMPLE = 200  # finished attempts that are looked at
DEPTH = 2000  # of the latest attempts of all productions, however many there are


def output_sizes(db: Database, production: int) -> list[int]:
    """Bytes of all outputs of each of the production's latest finished runs, in ascending order.

    Follows the order of the attempts' numbers and ends after ``DEPTH`` of them, so it costs the
    same in a production of a million runs.
    """
    rows = db.rows(
        # The plus keeps SQLite from collecting all attempts of the production and sorting them.
        """
        SELECT (SELECT total(o.size) FROM output o WHERE o.attempt = a.id) AS size
        FROM attempt a
        WHERE a.id > (SELECT max(id) FROM attempt) - ? AND +a.production = ?
          AND a.outcome = 'finished'
        ORDER BY a.id DESC LIMIT ?
        """,
        (DEPTH, production, SAMPLE),
    )
    return sorted(int(row["size"]) for row in rows)


def jobs_of_others(db: Database, user: str, besides: int) -> dict[int, int]:
    """How many jobs the user's other managers have, by production."""
    rows = db.rows(
        # CROSS: managers first, and then by the index of what each of them holds.
        """
        SELECT r.production, count(*) AS jobs FROM manager m CROSS JOIN run r ON r.manager = m.id
        WHERE m.user = ? AND m.id <> ? AND r.status = 'R' GROUP BY r.production
        """,
        (user, besides),
    )
    return {row["production"]: row["jobs"] for row in rows}


def expected(sizes: list[int]) -> int:
    """What one more may take: nine in ten take no more; 0 when nothing is known."""
    return sizes[min(len(sizes) * 9 // 10, len(sizes) - 1)] if sizes else 0
