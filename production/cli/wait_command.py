"""Wait until a production has come so far, reading only; the exit code tells what has happened.

0: it has; 50: not in time; 51: it cannot come any more.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from typing import TYPE_CHECKING

from production.cli.choosing import open_one
from production.cli.parser import add_database, add_production, converter, time_option
from production.errors import (
    DatabaseLocked,
    DatabaseMissing,
    DatabaseReadOnly,
    DatabaseTrouble,
    WaitedInVain,
    WaitedTooLong,
)
from production.model import Status
from production.store.reports.until import parse_condition
from production.view.stamp import stamped

if TYPE_CHECKING:
    from production.store.reports.standing import Standing


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_production(parser)
    parser.add_argument(
        "--until",
        metavar="WHAT",
        action="append",
        type=converter(parse_condition),
        help="done (no run is left at N, C or R), finished (all are at F), idle (no manager is at "
        "work), or a figure and a number: 'failed>5'. Given several times: whichever comes first. "
        "(Default: done)",
    )
    parser.add_argument(
        "--timeout",
        metavar="TIME",
        type=time_option(),
        help="Give up after so long, such as 90 (seconds) or 2h. (Default: never)",
    )
    parser.add_argument(
        "--pause",
        metavar="#",
        type=time_option(0.05, 3600),
        default=5.0,
        help="Look every # seconds. (Default: 5)",
    )
    add_database(parser)


def run(options: argparse.Namespace) -> int:
    """Do it."""
    from production.store.reports.standing import standing

    wanted = options.until or [parse_condition("done")]
    until = ", ".join(condition.text for condition in wanted)
    end = math.inf if options.timeout is None else time.monotonic() + options.timeout
    say = _Once()
    with open_one(options) as (db, production, _):
        label = production.label
        db.on_wait = lambda text: say("database", f"{text.rstrip('.')}. Waiting")
        while True:
            try:
                found = standing(db, production)
            except _PASSING as trouble:
                left = end - time.monotonic()
                if left <= 0:
                    raise
                db.on_wait(str(trouble))
                time.sleep(min(options.pause, left))
                continue
            say.again("database")
            reached = [condition for condition in wanted if condition.is_met(found)]
            if reached:
                print(f"{label}: {reached[0].text}; {_counts(found)}")
                return 0
            if not any(condition.can_come(found) for condition in wanted):
                raise WaitedInVain(label=label, until=until, counts=_counts(found))
            left = end - time.monotonic()
            if left <= 0:
                counts, seconds = _counts(found), options.timeout
                raise WaitedTooLong(label=label, until=until, seconds=seconds, counts=counts)
            if found.at_work:
                say.again("managers")
            else:
                say("managers", f"{label}: no manager is at work; waiting for one")
            time.sleep(min(options.pause, left))


# What managers survive as well: somebody else's transaction, a file server that is away.
_PASSING = (DatabaseLocked, DatabaseMissing, DatabaseReadOnly, DatabaseTrouble)


class _Once:
    """Tells on standard error what is waited for, once as long as it lasts."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def __call__(self, about: str, text: str) -> None:
        if about not in self._said:
            self._said.add(about)
            print(stamped(text), file=sys.stderr, flush=True)

    def again(self, about: str) -> None:
        """It is over: the next time is worth a word."""
        self._said.discard(about)


def _counts(standing: Standing) -> str:
    """``2 N, 67 F``."""
    return ", ".join(f"{standing.counts[s]} {s}" for s in Status if s in standing.counts)
