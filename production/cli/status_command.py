"""Show all productions: how many runs stand where, the rate, the expected end, who is at work.

The rate is that of the last hour, or of longer when little was finished, in runs an hour.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from production.cli.choosing import open_choice
from production.cli.output import add_table_output, show
from production.cli.parser import add_database, add_production

if TYPE_CHECKING:
    from production.store.reports.standing import Standing


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_production(parser, required=False)
    add_table_output(parser)
    add_database(parser)


def run(options: argparse.Namespace) -> int:
    """Do it."""
    from production.model import Status
    from production.store.reports.standing import standings
    from production.view.tables import figure, to_the_second

    with open_choice(options) as (db, among, _):
        found = standings(db, among)
    headers = [
        *("production", "software", "base", "start", "stop", *map(str, Status)),
        *("percent", "rate", "expected_end", "user", "at_work"),
    ]
    shown = {
        **dict.fromkeys(("start", "stop", "expected_end"), to_the_second),
        "percent": lambda value: f"{value:.1f}",
        "rate": figure,
    }
    show(headers, [_row(standing) for standing in found], options.output, shown)
    return 0


def _row(standing: Standing) -> list[object]:
    from production.model import Status

    production = standing.production
    return [
        *(production.label, production.software, production.base),
        *(production.start, production.stop),
        *(standing.count(status) for status in Status),
        _percent(standing),
        standing.rate,
        standing.expected_end,
        standing.user,
        ", ".join(worker.place for worker in standing.at_work),
    ]


def _percent(standing: Standing) -> float:
    """Of the runs that are finished; 100 when all are, and not before."""
    part = round(standing.finished * 100, 1)
    return min(part, 99.9) if standing.finished < 1 else part
