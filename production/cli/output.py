"""What commands that print tables have in common: the option, choosing, reading, printing."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from production.errors import UsageError
from production.store.connection import Database
from production.view.stamp import stamped
from production.view.tables import FORMS, Shown, render

if TYPE_CHECKING:
    from production.model import Production
    from production.store.choice import RunChoice


def add_table_output(
    parser: argparse.ArgumentParser, *, quiet: str = "the first column alone"
) -> None:
    """How tables are printed; ``quiet``: what of them, when that is asked for."""
    parser.add_argument(
        "--output",
        choices=FORMS,
        default="table",
        help="Print a table for the terminal, for GitHub or LaTeX, CSV or JSON for programs, or "
        f"{quiet}. (Default: table)",
    )


def show(
    headers: Sequence[str], rows: Sequence[Sequence[object]], form: str, shown: Shown | None = None
) -> None:
    """Print what ``render`` makes of them; ``quiet`` of no rows is nothing."""
    if rows or form != "quiet":
        print(render(headers, rows, form, shown))


def open_to_read(path: Path) -> Database:
    """The database, which is never written to; waits for a lock as managers do, and says so."""
    return Database(path, readonly=True, on_wait=tell)


@contextmanager
def open_choice(
    options: argparse.Namespace,
) -> Iterator[tuple[Database, list[Production], RunChoice]]:
    """The database, to read, with the productions and runs that the options choose.

    The options are those of ``add_production`` and ``add_runs``.  Raises UnknownProduction,
    UnknownDataset or UsageError.
    """
    from production.store.choice import RunChoice, choose_productions

    chosen = RunChoice(options.runs, options.dataset)
    with open_to_read(options.database) as db:
        chosen.check(db)
        yield db, choose_productions(db, options.production, options.version), chosen


def check_named(options: argparse.Namespace) -> None:
    """Raise UsageError unless runs are named, where all of them would be too many."""
    if not (options.runs or options.dataset):
        raise UsageError(text="which runs? Name them, such as 2091-2103,2119, or --dataset=SET")


def tell(text: str) -> None:
    """A word beside the table, on standard error."""
    print(stamped(f"{text.rstrip('.')}. Waiting"), file=sys.stderr, flush=True)
