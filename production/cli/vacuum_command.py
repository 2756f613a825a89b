"""Make the database's file as short as what is in it.

Nobody else can read or write meanwhile; managers wait, and go on by themselves.
"""

from __future__ import annotations

import argparse
import sys

from production.cli.parser import add_database, converter
from production.units import parse_duration


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--wait",
        metavar="TIME",
        type=converter(parse_duration),
        default=600.0,
        help="Wait so long for the lock, such as 90 (seconds) or 10m. (Default: 10m)",
    )
    add_database(parser)


def run(options: argparse.Namespace) -> int:
    """Do it."""
    from production.store.backup import size
    from production.store.connection import Database
    from production.store.vacuum import vacuum

    with Database(options.database) as db:
        db.patience = options.wait
        db.on_wait = _say_what_is_waited_for
        before = size(db)
        vacuum(db)
        print(f"{options.database}: {size(db)} bytes, {before} before")
    return 0


def _say_what_is_waited_for(cause: str) -> None:
    print(f"{cause}. Waiting for it", file=sys.stderr)
