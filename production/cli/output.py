"""Printing tables: the option, and doing it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from production.view.tables import FORMS, Shown, render


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
