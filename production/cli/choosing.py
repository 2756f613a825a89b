"""The database, and what in it a command's options choose: productions, and runs of theirs.

The options are those of ``add_database``, ``add_production`` and ``add_runs``.  While the database
is locked a command waits as managers do, and says so on standard error.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from production.errors import UsageError

if TYPE_CHECKING:
    from production.model import Production
    from production.store.choice import RunChoice
    from production.store.connection import Database


def open_to_read(path: Path) -> Database:
    """The database, which is never written to."""
    from production.store.connection import Database

    return Database(path, readonly=True, on_wait=tell)


def open_to_write(path: Path) -> Database:
    """The database, to change something in it."""
    from production.store.connection import Database

    return Database(path, on_wait=tell)


@contextmanager
def open_choice(
    options: argparse.Namespace, *, write: bool = False
) -> Iterator[tuple[Database, list[Production], RunChoice]]:
    """All productions, or those that the options name.

    Raises UnknownProduction, UnknownDataset or UsageError.
    """
    from production.store.choice import choose_productions

    with _open(options, write) as (db, chosen):
        yield db, choose_productions(db, options.production, options.version), chosen


@contextmanager
def open_one(
    options: argparse.Namespace, *, write: bool = False
) -> Iterator[tuple[Database, Production, RunChoice]]:
    """The production that the options name, its newest version unless they name another.

    Raises UnknownProduction or UnknownDataset.
    """
    from production.store import productions

    with _open(options, write) as (db, chosen):
        yield db, productions.find(db, options.production, options.version), chosen


@contextmanager
def _open(options: argparse.Namespace, write: bool) -> Iterator[tuple[Database, RunChoice]]:
    from production.store.choice import EVERY_RUN, RunChoice

    chosen = RunChoice(options.runs, options.dataset) if "dataset" in options else EVERY_RUN
    with (open_to_write if write else open_to_read)(options.database) as db:
        chosen.check(db)
        yield db, chosen


def check_named(options: argparse.Namespace) -> None:
    """Raise UsageError unless runs are named, where all of them would be too many."""
    if not (options.runs or options.dataset):
        raise UsageError(text="which runs? Name them, such as 2091-2103,2119, or --dataset=SET")


def tell(text: str) -> None:
    """A word beside what is printed, on standard error: what is being waited for."""
    from production.view.stamp import stamped

    print(stamped(f"{text.rstrip('.')}. Waiting"), file=sys.stderr, flush=True)
