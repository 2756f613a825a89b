"""Show what the work has cost and brought: times, memory, waiting, throughput, sizes.

For each production, by dataset or otherwise.
"""

from __future__ import annotations

import argparse

from production.cli.choosing import open_choice
from production.cli.output import add_table_output, show
from production.cli.parser import add_database, add_production, add_runs


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from production.store.reports.stats import GROUPS

    add_runs(parser, "all")
    add_production(parser, required=False)
    parser.add_argument(
        "--by",
        choices=tuple(GROUPS),
        default="dataset",
        help="What to group by besides the production. (Default: dataset)",
    )
    add_table_output(parser)
    add_database(parser)


def run(options: argparse.Namespace) -> int:
    """Do it."""
    from dataclasses import astuple, fields

    from production.store.reports.stats import Stats, stats
    from production.view.tables import duration, figure, percentage, size, to_the_second

    with open_choice(options) as (db, among, chosen):
        found = stats(db, among, chosen, options.by)
    headers = [field.name for field in fields(Stats)]
    times = ("wall_seconds", "wall_max", "cpu_seconds", "waiting_seconds", "waiting_max")
    shown = {
        **dict.fromkeys(times, duration),
        **dict.fromkeys(("efficiency", "useful"), percentage),
        **dict.fromkeys(("memory", "memory_max", "output_bytes"), size),
        **dict.fromkeys(("first", "last"), to_the_second),
        "per_hour": figure,
    }
    show(headers, [astuple(row) for row in found], options.output, shown)
    return 0
