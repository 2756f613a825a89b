"""Remove what dead managers have left on disk: your own files, and nothing that is needed still.

Raw files, spools and temporary outputs of attempts that are over; claims of your dead managers
that have no job go back to N before.  Runs with a job are left to the next manager.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from production.cli.choosing import open_choice
from production.cli.output import add_table_output, show
from production.cli.parser import add_config, add_database, add_production, time_option
from production.errors import SpoolTrouble
from production.units import counted

if TYPE_CHECKING:
    from production.manager.leftovers import Leftover
    from production.manager.paths import Paths
    from production.model import Production
    from production.store.connection import Database


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--dry-run", action="store_true", help="Only show; change nothing.")
    what.add_argument("--yes", action="store_true", help="Remove it.")
    add_production(parser, required=False)
    parser.add_argument(
        "--watch",
        metavar="TIME",
        type=time_option(),
        default=0.0,
        help="Watch managers on other hosts so long for signs of life, such as 11m. (Default: "
        "look once)",
    )
    add_config(parser)
    add_table_output(parser, quiet="nothing")
    add_database(parser)


def run(options: argparse.Namespace) -> int:
    """Do it."""
    from production import config as configuration
    from production.manager import leftovers
    from production.staging.one_fetch import Fetching

    data = configuration.load(options.config, options.database).data.resolve()
    with open_choice(options, write=not options.dry_run) as (db, productions, _):
        given_up = _give_up(db, productions, options)
        places = leftovers.of_all(db, productions, data)
        found = [
            (paths, leftover)
            for paths in places
            for leftover in leftovers.find(db, paths, given_up.get(paths.production.id, ()))
        ]
    troubles = {} if options.dry_run else _remove(found)
    if places and not options.dry_run:
        Fetching(places[0].fetching).sweep()  # notes, which take no space
    _show([leftover for _, leftover in found], troubles, options)
    for trouble in troubles.values():
        raise trouble
    return 0


def _give_up(
    db: Database, productions: Sequence[Production], options: argparse.Namespace
) -> dict[int, set[tuple[int, int]]]:
    """Return the claims of this user's dead managers; those that would be, in a dry run."""
    from production.identity import current_user, this_process
    from production.store import holdings
    from production.store.runs import RunStore

    found, states = holdings.watch(db, productions, options.watch)
    given_up: dict[int, set[tuple[int, int]]] = {}
    for holding in found:
        if states[holding.holder.id] is not False or holding.holder.user != current_user():
            continue
        if not options.dry_run:
            holdings.take_back(db, holding, this_process())
            continue
        store = RunStore(db, holding.production, manager=0)
        given_up.setdefault(holding.production.id, set()).update(
            (orphan.claim.run, orphan.claim.attempt)
            for orphan in store.orphans(holding.holder.id)
            if orphan.job_name is None
        )
    return given_up


def _remove(found: Sequence[tuple[Paths, Leftover]]) -> dict[Leftover, SpoolTrouble]:
    """Remove all; what went wrong with which."""
    from production.manager import leftovers

    troubles = {}
    for paths, leftover in found:
        try:
            leftovers.remove(paths, leftover)
        except SpoolTrouble as trouble:
            troubles[leftover] = trouble
    return troubles


def _show(
    found: Sequence[Leftover],
    troubles: dict[Leftover, SpoolTrouble],
    options: argparse.Namespace,
) -> None:
    headers = ["production", "run", "attempt", "what", "bytes", "attempt_was", "path", "done"]
    rows = []
    for left in found:
        done = "" if options.dry_run else "left" if left in troubles else "removed"
        rows.append(
            [
                *(left.production, left.run, left.attempt, left.what, left.size, left.why),
                *(str(left.path), done),
            ]
        )
    if options.output != "quiet" and (rows or options.output != "table"):
        show(headers, rows, options.output)
    if options.output == "table":
        removed = [left for left in found if left not in troubles]
        total = sum(left.size for left in removed)
        verb = "would be freed" if options.dry_run else "freed"
        files, size = counted(len(removed), "leftover"), counted(total, "byte")
        print(f"{files}, {size} ({total / 1e6:.1f} MB) {verb}")
