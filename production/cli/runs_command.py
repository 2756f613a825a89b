"""Show runs, with what became of the latest attempt at each.

First come those that managers hold, then those that have failed for good, then the others, the
latest claims first.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from production.cli.choosing import open_choice
from production.cli.output import add_table_output, show
from production.cli.parser import (
    add_database,
    add_production,
    add_runs,
    converter,
    number,
    word,
)
from production.errors import UsageError
from production.model import Status
from production.units import parse_moment

if TYPE_CHECKING:
    from production.view.tables import Shown

FIRST = 40  # rows of a table, unless the user wants more or all
ALL = "all"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_runs(parser, "all")
    add_production(parser, required=False)
    parser.add_argument(
        "--status",
        action="append",
        choices=[str(status) for status in Status],
        help="Only runs at this status; may be given several times.",
    )
    parser.add_argument(
        "--user", metavar="USER", type=word, help="Only runs whose latest attempt is USER's."
    )
    parser.add_argument(
        "--reason",
        metavar="TEXT",
        type=word,
        help="Only runs whose latest attempt has TEXT in its reason.",
    )
    moment = converter(lambda text: parse_moment(text, datetime.now(UTC)))
    parser.add_argument(
        "--since",
        metavar="TIME",
        type=moment,
        help="Only runs of which something was recorded since: 2h (ago), 2026-11-21 or "
        "'2026-11-21 06:36' (UTC).",
    )
    parser.add_argument(
        "--until", metavar="TIME", type=moment, help="Only runs of which nothing was since."
    )
    parser.add_argument(
        "--columns",
        metavar="NAMES",
        type=converter(_columns),
        help="What to show, such as run,reason,elog; `all`: everything there is.",
    )
    parser.add_argument(
        "--sort",
        metavar="NAMES",
        type=_names,
        default=(),
        help="Columns to sort by, such as -cpu_seconds,run; - for the largest first. "
        "(Default: what goes on first)",
    )
    parser.add_argument(
        "--limit",
        metavar="#",
        type=converter(_limit),
        help=f"So many rows, or `all`. (Default: {FIRST} in tables, all for programs)",
    )
    add_table_output(parser)
    add_database(parser)


def run(options: argparse.Namespace) -> int:
    """Do it."""
    from production.store.reports import runs
    from production.view.tables import is_for_people

    limit = options.limit
    if limit is None:
        limit = FIRST if is_for_people(options.output) else ALL
    with open_choice(options) as (db, productions, chosen):
        query = runs.RunQuery(
            productions=productions,
            chosen=chosen,
            statuses=frozenset(map(Status, options.status or Status)),
            user=options.user,
            reason=options.reason or "",
            since=options.since,
            until=options.until,
            columns=options.columns or runs.USUAL,
            order=options.sort,
            limit=None if limit == ALL else limit,
        )
        found = runs.find(db, query)
    show(query.columns, found.rows, options.output, _shown())
    if found.more:
        print(
            f"There are more runs than the {limit} shown; --limit={ALL} shows all", file=sys.stderr
        )
    return 0


def _columns(text: str) -> tuple[str, ...]:
    from production.store.reports.runs import COLUMNS

    names = tuple(COLUMNS) if text == ALL else _names(text)
    if len(set(names)) < len(names):
        raise UsageError(text="a column stands there twice")
    return names


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


def _limit(text: str) -> int | str:
    count: Callable[[str], float] = number(int, f"'{ALL}' or a number", 1, 10**9)
    return text if text == ALL else int(count(text))


def _shown() -> Shown:
    from production.view.tables import duration, size, to_the_second

    times = ("not_before", "claimed", "start", "stop", "job_start", "job_stop")
    return {
        **dict.fromkeys(times, to_the_second),
        **dict.fromkeys(("wall_seconds", "cpu_seconds"), duration),
        "peak_memory": size,
    }
