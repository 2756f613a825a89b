"""Have runs tried again that stand at E, or, with --status=F, done again that are finished.

All of a production's runs at E, or those that are named, of a dataset, or failed for a reason.
"""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from production.cli.choosing import open_one
from production.cli.parser import add_database, add_production, add_runs, word
from production.errors import ChangeRefused, UsageError
from production.units import counted

if TYPE_CHECKING:
    from production.model import Production
    from production.store.connection import Database


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_runs(parser, "all that stand there")
    parser.add_argument(
        "--status",
        choices=("E", "F"),
        default="E",
        help="E: failed runs. F: finished ones, which needs --again. (Default: E)",
    )
    parser.add_argument(
        "--reason",
        metavar="TEXT",
        type=word,
        help="Only runs whose latest failure has TEXT in its reason.",
    )
    parser.add_argument(
        "--again",
        action="store_true",
        help="Do finished runs again: their outputs must have been moved away or removed.",
    )
    add_production(parser)
    add_database(parser)


def run(options: argparse.Namespace) -> int:
    """Do it."""
    from production.model import Status
    from production.store import interventions
    from production.store.choice import RunChoice, check_there
    from production.store.datasets import written_runs

    status, reason = Status(options.status), options.reason or ""
    if status is Status.FINISHED and not (options.again and (options.runs or options.dataset)):
        raise UsageError(
            text="finished runs are done again only when they are named (RUNS or --dataset) and "
            "--again is given"
        )
    if options.again and status is not Status.FINISHED:
        raise UsageError(text="--again is for finished runs: --status=F")
    runs: list[int] = []
    with open_one(options, write=True) as (db, production, chosen):
        check_there(db, chosen, [production])
        if status is Status.FINISHED:
            runs = interventions.standing_at(db, production, chosen, status, reason)
            _check_no_outputs(db, production, runs)
            chosen = RunChoice(runs)  # those that were looked at, whatever is finished meanwhile
        if status is Status.ERROR or runs:
            runs = interventions.retry(db, production, chosen, status, reason)
    again = "tried" if status is Status.ERROR else "done"
    named = f": {written_runs(runs)}" if runs else ""
    print(f"{production.label}: {counted(len(runs), 'run')} will be {again} again{named}")
    if others := set(options.runs) - set(runs):
        where = f"at {status}{' in that dataset' if options.dataset else ''}"
        because = " with that reason" if reason else ""
        print(
            f"{production.label}: these do not stand {where}{because} and stay as they are: "
            f"{written_runs(others)}"
        )
    return 0


def _check_no_outputs(db: Database, production: Production, runs: list[int]) -> None:
    """Refuse while an output is there: no job overwrites one, so the new attempts would fail."""
    from production.store import recorded
    from production.store.choice import RunChoice

    if not runs:
        return
    there = [
        output.path
        for finished in recorded.finished_runs(db, production, RunChoice(runs))
        for output in finished.outputs
        if os.path.lexists(output.path)
    ]
    if there:
        raise ChangeRefused(
            what=f"Outputs of these runs are still there ({len(there)}), the first is {there[0]}. "
            "No job overwrites an output: move them away or remove them, then try again. Nothing "
            "was changed"
        )
