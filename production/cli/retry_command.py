"""Have runs that stand at E tried again: all of a production, or those named."""

from __future__ import annotations

import argparse

from production.cli.parser import add_database, converter, number


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from production.store.datasets import parse_runs

    parser.add_argument(
        "runs",
        metavar="RUNS",
        nargs="?",
        type=converter(parse_runs),
        help="such as 2091-2103,2119 (Default: all runs at E)",
    )
    parser.add_argument(
        "--production", metavar="PROD_TYPE", required=True, help="The production type."
    )
    parser.add_argument(
        "--version",
        metavar="#",
        type=number(int, "a version number", 0, 10**6),
        help="Version of the production. (Default: the highest of that type)",
    )
    add_database(parser)


def run(options: argparse.Namespace) -> int:
    """Do it."""
    from production.store import productions
    from production.store.connection import Database

    with Database(options.database) as db:
        production = productions.find(db, options.production, options.version)
        sent_back = productions.retry(db, production, options.runs or ())
    print(f"{production.label}: {len(sent_back)} runs will be tried again: {sent_back}")
    if others := sorted(set(options.runs or ()) - set(sent_back)):
        print(f"{production.label}: these do not stand at E and stay as they are: {others}")
    return 0
