"""Show all attempts at runs, with what each came to: who, where, when, and why it failed.

A run that was tried in several productions is shown in all of them, unless you say otherwise.
"""

from __future__ import annotations

import argparse

from production.cli.parser import add_database, add_output, add_production, add_runs
from production.errors import UsageError


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_runs(parser, "those of --dataset")
    add_production(parser, required=False)
    add_output(parser)
    add_database(parser)


def run(options: argparse.Namespace) -> int:
    """Do it."""
    from dataclasses import astuple, fields

    from production.store import history
    from production.store.choice import RunChoice, choose_productions
    from production.store.connection import Database
    from production.view.tables import render

    chosen = RunChoice(options.runs, options.dataset)
    if not chosen:
        raise UsageError(text="which runs? Name them, such as 2091-2103,2119, or --dataset=SET")
    with Database(options.database, readonly=True) as db:
        chosen.check(db)
        among = choose_productions(db, options.production, options.version)
        found = history.attempts(db, chosen, among)
    headers = [field.name for field in fields(history.Tried)]
    print(render(headers, [astuple(tried) for tried in found], options.output))
    return 0
