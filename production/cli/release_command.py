"""Give claims back that have no job yet: those of your own managers, and of managers that are gone.

A manager that is at work notices, says so, and lets go of the run.
"""

from __future__ import annotations

import argparse

from production.cli.choosing import check_named, open_one
from production.cli.output import add_table_output, show
from production.cli.parser import add_database, add_production, add_runs
from production.errors import ChangeRefused


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_runs(parser, "those of --dataset")
    add_production(parser)
    add_table_output(parser, quiet="nothing but the error")
    add_database(parser)


def run(options: argparse.Namespace) -> int:
    """Do it."""
    from production.identity import this_process
    from production.store import interventions

    check_named(options)
    with open_one(options, write=True) as (db, production, chosen):
        asked = interventions.release(db, production, chosen, this_process())
    if options.output != "quiet":
        rows = [[answer.run, answer.released, answer.why] for answer in asked]
        show(["run", "released", "why"], rows, options.output)
    if refused := [answer for answer in asked if not answer.released]:
        first = f"run {refused[0].run} {refused[0].why}"
        raise ChangeRefused(what=f"Not released ({len(refused)} of {len(asked)}): {first}")
    return 0
