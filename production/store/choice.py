"""Which runs and which productions a bookkeeper means."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from production.errors import NotRecorded, UsageError
from production.model import Production
from production.store import datasets, productions
from production.store.connection import Database


@dataclass(frozen=True)
class RunChoice:
    """Runs by number, by dataset, or both; what is empty does not restrict."""

    runs: Sequence[int] = ()
    datasets: Sequence[str] = ()

    def check(self, db: Database) -> None:
        """Raise UnknownDataset unless the datasets exist."""
        datasets.check_known(db, self.datasets)

    def condition(self, column: str, *, in_pieces: bool = False) -> tuple[str, list[object]]:
        """SQL that is true where ``column`` is one of these runs, and its parameters.

        ``in_pieces``: for one of many statements, of which each looks at a few runs only.  Lists
        are passed as JSON, for SQLite limits the number of parameters.
        """
        conditions, parameters = ["true"], list[object]()
        if self.runs:
            conditions.append(f"{column} IN (SELECT value FROM json_each(?))")
            parameters.append(json.dumps(list(self.runs)))
        if self.datasets:
            # SQLite collects what follows IN, here all runs of the datasets, for each statement.
            conditions.append(
                f"EXISTS (SELECT 1 FROM datasets c WHERE c.run = {column} "
                "AND c.dataset IN (SELECT value FROM json_each(?)))"
                if in_pieces
                else f"{column} IN (SELECT run FROM datasets "
                "WHERE dataset IN (SELECT value FROM json_each(?)))"
            )
            parameters.append(json.dumps(list(self.datasets)))
        return " AND ".join(conditions), parameters

    def __bool__(self) -> bool:
        return bool(self.runs or self.datasets)

    def __str__(self) -> str:
        """``run 5``, ``runs 5, 7, …``, with the datasets."""
        words = []
        if self.runs:
            shown = ", ".join(map(str, self.runs[:5]))
            words.append(f"run{'s' * (len(self.runs) > 1)} {shown}{', …' * (len(self.runs) > 5)}")
        if self.datasets:
            words.append(f"dataset {', '.join(self.datasets)}")
        return " of ".join(words) or "run"


EVERY_RUN = RunChoice()


def nothing_there(chosen: RunChoice, of: Sequence[Production]) -> NotRecorded:
    """What is to be said when none of the chosen runs is in those productions."""
    place = of[0].label if len(of) == 1 else "any of these productions"
    return NotRecorded(what=f"Nothing is known of {chosen} in {place}. See: production status")


def check_there(db: Database, chosen: RunChoice, of: Sequence[Production]) -> None:
    """Raise NotRecorded when runs are named and none is there: a number may be mistyped.

    Some may be missing, for ranges have gaps; and a dataset may have no run in a production.
    """
    if chosen.datasets or not chosen.runs:
        return
    ids = [production.id for production in of]
    found = db.row(
        "SELECT 1 FROM json_each(?) p JOIN run r ON r.production = p.value "
        "WHERE r.run IN (SELECT value FROM json_each(?)) LIMIT 1",
        (json.dumps(ids), json.dumps(list(chosen.runs))),
    )
    if found is None:
        raise nothing_there(chosen, of)


def choose_productions(db: Database, type_: str | None, version: int | None) -> list[Production]:
    """All productions, those of a type, or one.  Raises UnknownProduction or UsageError."""
    if type_ is None:
        if version is not None:
            raise UsageError(text="--version is of a production: give --production=PROD_TYPE, too")
        return [production for production, _ in productions.list_all(db)]
    found = [
        production
        for production, _ in productions.list_all(db)
        if production.type == type_ and version in {None, production.version}
    ]
    return found or [productions.find(db, type_, version)]
