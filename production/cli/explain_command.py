"""Tell why nothing goes on in a production, or why not a certain run, and what to do about it.

It asks the database, the probe of the space, and the batch system for the jobs in it.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from typing import TYPE_CHECKING

from production.cli.choosing import open_one
from production.cli.output import add_table_output, show
from production.cli.parser import (
    DATABASE,
    add_config,
    add_database,
    add_production,
    expanded,
    run_number,
)

if TYPE_CHECKING:
    from production.explain.causes import Finding
    from production.model import Production

HEADERS = ("cause", "production", "run", "what", "remedy")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "run",
        metavar="RUN",
        nargs="?",
        type=run_number,
        help="Why not this run? (Default: the production as a whole)",
    )
    add_production(parser)
    parser.add_argument(
        "--quick",
        action="store_true",
        help="Ask the database alone, neither the batch system nor for the space.",
    )
    add_config(parser)
    add_table_output(parser)
    add_database(parser)


def run(options: argparse.Namespace) -> int:
    """Do it."""
    from production.explain.causes import of_production
    from production.explain.gather import gather
    from production.explain.run_causes import of_run

    with open_one(options) as (db, production, _):
        usual = options.database == expanded(DATABASE)
        facts = gather(
            db,
            production,
            option="" if usual else f"--database={shlex.quote(str(options.database))}",
            run=options.run,
            config=options.config,
            ask=not options.quick,
        )
    if facts.around.config_trouble:
        print(f"WARNING: {facts.around.config_trouble}", file=sys.stderr)
    found = of_production(facts) if facts.run is None else of_run(facts, facts.run)
    if options.output == "table":
        _tell(found, production)
    else:
        rows = [[f.cause, production.label, options.run, f.what, f.remedy] for f in found]
        show(HEADERS, rows, options.output)
    return 0


def _tell(found: list[Finding], production: Production) -> None:
    """As sentences: they are too long for a table."""
    if not found:
        print(f"{production.label}: nothing is known to be in the way; ask again in a moment")
    for finding in found:
        print(f"{finding.cause}: {finding.what}")
        if finding.remedy:
            print(f"    -> {finding.remedy}")
