"""Make the database's file as short as what is in it.

Nobody else can read or write meanwhile; managers wait, and go on by themselves.
"""

from __future__ import annotations

import argparse

from production.cli.choosing import open_to_write
from production.cli.parser import add_database, time_option


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--wait",
        metavar="TIME",
        type=time_option(),
        default=600.0,
        help="Wait so long for the lock, such as 90 (seconds) or 10m. (Default: 10m)",
    )
    add_database(parser)


def run(options: argparse.Namespace) -> int:
    """Do it."""
    from production.store.backup import size
    from production.store.vacuum import vacuum

    with open_to_write(options.database) as db:
        db.patience = options.wait
        before = size(db)
        vacuum(db)
        print(f"{options.database}: {size(db)} bytes, {before} before")
    return 0
