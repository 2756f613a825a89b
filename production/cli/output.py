"""What commands that print tables have in common: the option, reading, printing."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from production.store.connection import Database
from production.view.stamp import stamped
from production.view.tables import FORMS, Shown, render


def add_table_output(parser: argparse.ArgumentParser) -> None:
    """How tables are printed."""
    parser.add_argument(
        "--output",
        choices=FORMS,
        default="table",
        help="Print a table for the terminal, for GitHub or LaTeX, CSV or JSON for programs, or "
        "the first column alone. (Default: table)",
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


def tell(text: str) -> None:
    """A word beside the table, on standard error."""
    print(stamped(f"{text.rstrip('.')}. Waiting"), file=sys.stderr, flush=True)
