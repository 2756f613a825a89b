"""Show which managers hold runs and whether they live; take back what the dead have left.

Claims without a job return to N.  Jobs go on: the next manager of the production takes them over.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from production.cli.choosing import open_choice
from production.cli.output import add_table_output, show
from production.cli.parser import add_database, add_production, number, time_option
from production.errors import UsageError

if TYPE_CHECKING:
    from production.model import Orphan
    from production.store.holdings import Holding, TakenBack

State = bool | None


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_production(parser, required=False)
    parser.add_argument(
        "--manager",
        metavar="ID",
        type=number(int, "a manager's number", 1, 10**12),
        help="Only this manager: its number in the database. (Default: all)",
    )
    parser.add_argument(
        "--watch",
        metavar="TIME",
        type=time_option(),
        default=0.0,
        help="Watch so long for signs of life, such as 11m. (Default: look once)",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="Take back from the manager given by --manager although it is not dead.",
    )
    parser.add_argument("--dry-run", action="store_true", help="Only show; change nothing.")
    add_table_output(parser, quiet="nothing")
    add_database(parser)


def run(options: argparse.Namespace) -> int:
    """Do it."""
    from production.identity import this_process
    from production.store.holdings import take_back, take_by_force, watch

    if options.force and options.manager is None:
        raise UsageError(text="--force needs --manager=ID: whose runs are to be taken")
    with open_choice(options, write=not options.dry_run) as (db, productions, _):
        found, states = watch(db, productions, options.watch, options.manager)
        who = this_process()
        done: dict[int, TakenBack] = {}
        for index, holding in enumerate(found):
            if options.dry_run:
                continue
            if options.force:
                done[index] = take_by_force(db, holding, who, _is_within_reach)
            elif states[holding.holder.id] is False:
                done[index] = take_back(db, holding, who)
    if found or options.output != "table":
        _show(found, states, done, options.output)
    else:
        named = options.manager is not None
        print(f"Manager {options.manager} holds no runs." if named else "No manager holds runs.")
    return 0


def _is_within_reach(orphan: Orphan) -> bool:
    """Whether a manager of this account could go on with the run."""
    return orphan.spool is None or os.access(orphan.spool, os.R_OK | os.W_OK | os.X_OK)


def _show(
    found: Sequence[Holding], states: dict[int, State], done: dict[int, TakenBack], form: str
) -> None:
    from production.view.tables import to_the_second

    if form == "quiet":
        return
    words = {True: "alive", False: "dead", None: "unknown"}
    headers = [
        *("manager", "user", "host", "pid", "production", "started", "beat_at"),
        *("claims", "jobs", "state", "done"),
    ]
    rows = [
        [
            *(holding.holder.id, holding.holder.user, holding.holder.host, holding.holder.pid),
            *(holding.production.label, holding.started, holding.beat_at),
            *(holding.claims, holding.jobs, words[states[holding.holder.id]]),
            _told(done.get(index)),
        ]
        for index, holding in enumerate(found)
    ]
    show(headers, rows, form, dict.fromkeys(("started", "beat_at"), to_the_second))


def _told(done: TakenBack | None) -> str:
    if done is None:
        return ""
    parts = [
        (len(done.returned), "returned"),
        (len(done.left), "left for the next manager"),
        (len(done.kept), "kept, for their files are closed to you"),
    ]
    return ", ".join(f"{count} {what}" for count, what in parts if count)
