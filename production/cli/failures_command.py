"""Show what has failed, grouped by reason, each with an example and the last line of its log.

Of the runs that have failed and are not done since; with --all, of everything that ever failed.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from production.cli.choosing import open_choice
from production.cli.output import add_table_output, show
from production.cli.parser import add_database, add_production, add_runs

if TYPE_CHECKING:
    from production.store.reports.failures import Kind

HEADERS = (
    *("reason", "production", "runs", "attempts", "at_error", "first", "last"),
    *("run", "attempt", "log", "line"),
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_runs(parser, "all")
    add_production(parser, required=False)
    parser.add_argument(
        "--all",
        action="store_true",
        help="Count every attempt that has ever failed, also of runs that are finished since.",
    )
    add_table_output(parser)
    add_database(parser)


def run(options: argparse.Namespace) -> int:
    """Do it."""
    from production.store.reports.failures import all_failures, grouped, open_failures
    from production.view.tables import to_the_second

    with open_choice(options) as (db, among, chosen):
        kinds = grouped((all_failures if options.all else open_failures)(db, among, chosen))
    shown = dict.fromkeys(("first", "last"), to_the_second)
    show(HEADERS, [_row(kind) for kind in kinds], options.output, shown)
    return 0


def _row(kind: Kind) -> list[object]:
    log, line = _last_words(kind)
    return [
        *(kind.reason, kind.production, kind.runs, kind.attempts, kind.at_error),
        *(kind.first, kind.last, kind.example.run, kind.example.attempt, log, line),
    ]


def _last_words(kind: Kind) -> tuple[str | None, str | None]:
    """The log to look at, and its last line: of standard error, else of standard output."""
    from pathlib import Path

    from production.job.verdict import last_line

    logs = [log for log in (kind.example.elog, kind.example.olog) if log]
    for log in logs:
        if line := last_line(Path(log)):
            return log, line
    return (logs[0] if logs else None), None
