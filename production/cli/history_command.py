"""Show all attempts at runs, with what each came to: who, where, when, and why it failed.

A run that was tried in several productions is shown in all of them, unless you say otherwise.
"""

from __future__ import annotations

import argparse

from production.cli.choosing import check_named, open_choice
from production.cli.output import add_table_output, show
from production.cli.parser import add_database, add_production, add_runs


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_runs(parser, "those of --dataset")
    add_production(parser, required=False)
    add_table_output(parser, quiet="the run numbers alone")
    add_database(parser)


def run(options: argparse.Namespace) -> int:
    """Do it."""
    from dataclasses import astuple, fields

    from production.store import history
    from production.view.tables import to_the_second

    check_named(options)
    with open_choice(options) as (db, among, chosen):
        found = history.attempts(db, chosen, among)
    if options.output == "quiet":  # once each, however often it was tried
        print(*dict.fromkeys(tried.run for tried in found), sep="\n")
        return 0
    headers = [field.name for field in fields(history.Tried)]
    shown = dict.fromkeys(("claimed", "start", "stop"), to_the_second)
    show(headers, [astuple(tried) for tried in found], options.output, shown)
    return 0
