"""Take over a database of the old program.

It has the layout of 2014 (datasets, productions, alcapana_vN, rootana_vN) or of 2016 (R15bdatasets
with tranche and geometry).  The old file is only read.
"""

from __future__ import annotations

import argparse

from production.cli.choosing import open_to_write
from production.cli.parser import add_database, path


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("old", metavar="OLD.db", type=path, help="the database to read")
    add_database(parser)


def run(options: argparse.Namespace) -> int:
    """Do it."""
    from production.store import legacy

    old = legacy.read(options.old)
    with open_to_write(options.database) as db:
        for line in legacy.take_over(db, old):
            print(line)
    return 0
