"""What managers that were killed have left on disk, and nobody needs any more.

A manager removes what its attempts leave, and the next one of the production what it finds of dead
ones; this is for who does not want to start one, and it finds what they pass over.  Needed is all
that belongs to an attempt that lasts: whether its manager lives or not, its job may still run, or
the next manager goes on with it.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from production.errors import RecipeError
from production.job import clean
from production.manager.paths import Paths
from production.model import Claim, Production
from production.recipe.load import parse_recipe
from production.store import recorded
from production.store.connection import Database
from production.store.productions import database_id, recipe_text


@dataclass(frozen=True)
class Leftover:
    """Something that can be removed."""

    production: str
    run: int
    attempt: int
    what: str  # raw, spool, mark, temporary output
    path: Path
    size: int  # bytes that removing it frees
    why: str  # how the attempt ended


def of_all(db: Database, productions: Sequence[Production], data: Path) -> list[Paths]:
    """The names of files of each production, as the recipe says that it was started with."""
    places = []
    for production in productions:
        if text := recipe_text(db, production):
            with contextlib.suppress(RecipeError):  # of another version of this program
                recipe = parse_recipe(text, Path(f"{production.type}.toml"), recorded=True)
                places.append(Paths(data, production, recipe, database_id(db)))
    return places


def find(db: Database, paths: Paths, given_up: Collection[tuple[int, int]] = ()) -> list[Leftover]:
    """All of this account's leftovers of a production, below one data directory.

    ``given_up``: run and attempt of claims that count as over, although they are not yet.
    """
    over = _Attempts(db, paths.production, given_up)
    return [
        Leftover(paths.production.label, run, attempt, what, path, size_of(path), why)
        for run, attempt, what, path in _candidates(paths, over)
        if _is_own(path) and (why := over.outcome(run, attempt))
    ]


def remove(paths: Paths, leftover: Leftover) -> None:
    """Remove it; harmless when it is gone.  Raises SpoolTrouble."""
    if leftover.what == "spool":
        clean.discard_spool(leftover.path, paths.done)
    elif leftover.path.is_dir():
        clean.remove_tree(leftover.path)
    else:
        clean.unlink(leftover.path)


class _Attempts:
    """How attempts at a production's runs ended."""

    def __init__(
        self, db: Database, production: Production, given_up: Collection[tuple[int, int]]
    ) -> None:
        self._db = db
        self._production = production
        self._given_up = given_up

    def outcome(self, run: int, attempt: int) -> str:
        """In words; "" while it lasts, or when there is no such attempt in this database."""
        if (run, attempt) in self._given_up:
            return "its manager is dead"
        return recorded.outcome(self._db, self._production, run, attempt)

    def in_vain(self) -> Iterator[tuple[int, int]]:
        """Run and number of all that have not finished a run."""
        yield from recorded.in_vain(self._db, self._production)
        yield from self._given_up


def _candidates(paths: Paths, attempts: _Attempts) -> Iterator[tuple[int, int, str, Path]]:
    """Run, attempt, kind and path of all that may be left."""
    for run, attempt in attempts.in_vain():
        claim = Claim(run, attempt, 0)
        for plan in paths.outputs(claim):
            if os.path.lexists(plan.temporary):
                yield run, attempt, "temporary output", plan.temporary
    for run, attempt, directory in paths.leftovers():
        yield run, attempt, directory.parent.parent.name, directory
    with contextlib.suppress(OSError):
        for run, attempt, mark in paths.stale_marks():
            yield run, attempt, "mark", mark


def _is_own(path: Path) -> bool:
    try:
        return path.lstat().st_uid == os.geteuid()
    except OSError:
        return False  # gone in the meantime


def size_of(path: Path) -> int:
    """The bytes that removing it frees: on disk, without files that have another name elsewhere."""
    total = 0
    places = [path]
    while places:
        place = places.pop()
        try:
            found = place.lstat()
            if stat.S_ISDIR(found.st_mode):
                places += place.iterdir()
        except OSError:
            continue
        if stat.S_ISDIR(found.st_mode) or found.st_nlink == 1:
            total += found.st_blocks * 512  # whatever the filesystem's own blocks are: stat(2)
    return total
