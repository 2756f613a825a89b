"""Show all productions: software tag, base, and how many runs stand where."""

from __future__ import annotations

import argparse

from production.cli.parser import add_database, add_output


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_output(parser)
    add_database(parser)


def run(options: argparse.Namespace) -> int:
    """Do it."""
    from production.model import Status
    from production.store import productions
    from production.store.connection import Database
    from production.view.tables import render

    headers = ["production", "software", "base", "start", "stop", *(str(s) for s in Status)]
    with Database(options.database, readonly=True) as db:
        rows = [
            [
                production.label,
                production.software,
                production.base,
                production.start,
                production.stop,
                *(counts.get(status, 0) for status in Status),
            ]
            for production, counts in productions.list_all(db)
        ]
    print(render(headers, rows, options.output))
    return 0
