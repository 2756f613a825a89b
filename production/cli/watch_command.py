"""Show a production that others run, as their --display does; nothing is written.

PRODUCTION is such as alcapana_v4, or alcapana for its newest version.  Without it, the production
on which managers are at work is shown, or the one that was started last.  The key ? tells the
keys; q ends it.  Where there is no terminal to draw on, it is printed once.
"""

from __future__ import annotations

import argparse
import re
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from production.cli.parser import add_config, add_database, add_production, time_option
from production.errors import UsageError

if TYPE_CHECKING:
    from production.config import Configuration
    from production.manager.survey import Survey
    from production.model import Production, Usage
    from production.store.connection import Database
    from production.view.display import Display

USAGE_EVERY = 60.0  # seconds between two looks at the space


class _Quit(Exception):  # noqa: N818 - nothing is wrong
    """Whoever looked has had enough."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "label",
        metavar="PRODUCTION",
        nargs="?",
        help="such as alcapana_v4 or alcapana (Default: where managers are at work)",
    )
    add_production(parser, required=False, one=True)
    parser.add_argument(
        "--pause",
        metavar="#",
        type=time_option(0.1, 3600),
        default=2.0,
        help="Look again after # seconds. (Default: 2)",
    )
    add_config(parser)
    add_database(parser)


def run(options: argparse.Namespace) -> int:
    """Do it."""
    from production import config as configuration
    from production.cli.choosing import open_to_read
    from production.errors import DisplayUnavailable
    from production.job.fence import started_on
    from production.manager.survey import Survey
    from production.view.base import tell_of_waits

    config = configuration.load(options.config, options.database)
    with open_to_read(options.database) as db:
        production = _find(db, *_wanted(options))
        survey = Survey(db, production, every=options.pause, host_of=started_on)
        usage = _UsedSpace(config)
        limit = config.defaults.spacelim
        try:
            view = _display(options.database, options.config)
        except DisplayUnavailable as error:
            if sys.stdout.isatty():
                print(str(error).replace("Run without --display", "It is printed once"))
            usage.wait()
            _print(survey, usage, limit)
            return 0
        db.on_wait = tell_of_waits(view)
        db.check = lambda: _check(view)
        try:
            _watch(view, survey, usage, limit, options.pause)
        except (_Quit, KeyboardInterrupt):
            return 0
        finally:
            view.close()
    return 0


def _display(database: Path, config: Path | None) -> Display:
    from production.cli.door import open_door
    from production.view.display import Display

    return Display(open_door(database, config), onlooker=True)


def _wanted(options: argparse.Namespace) -> tuple[str | None, int | None]:
    """Type and version, however they were given.  Raises UsageError."""
    given: str | None = options.label
    if given is None:
        if options.version is not None and options.production is None:
            raise UsageError(text="--version is of a production: give --production=PROD_TYPE, too")
        return options.production, options.version
    if options.production is not None or options.version is not None:
        raise UsageError(text=f"{given} or --production and --version: one of the two is enough")
    label = re.fullmatch(r"(.+)_v(\d{1,7})", given)
    return (label[1], int(label[2])) if label else (given, None)


def _find(db: Database, type_: str | None, version: int | None) -> Production:
    from production.errors import UnknownProduction
    from production.store import productions
    from production.store.reports.standing import standings

    if type_ is not None:
        return productions.find(db, type_, version)
    found = standings(db)
    if not found:
        raise UnknownProduction(what=f"There is no production in {db.path}")
    newest = max(found, key=lambda s: (bool(s.at_work), s.production.start or "", s.production.id))
    return newest.production


def _watch(view: Display, survey: Survey, usage: _UsedSpace, limit: float, pause: float) -> None:
    """Look again and again; trouble with the database is told, and may pass."""
    from production.errors import StoreError

    told = ""
    while True:
        _check(view)
        usage.refresh()
        try:
            view.update(survey.snapshot(usage=usage.known, spacelim=limit))
            told = ""
        except StoreError as error:
            if str(error) != told:
                told = str(error)
                view.message(f"{told.rstrip('.')}. Will try again", level="warning")
        view.quitting.wait(pause)


def _check(view: Display) -> None:
    if view.quitting.is_set() or not view.live:
        raise _Quit


class _UsedSpace:
    """Asks how much space is used, beside everything else: a quota command may take long."""

    def __init__(self, config: Configuration) -> None:
        self.known: Usage | None = None
        self._config = config
        self._thread: threading.Thread | None = None
        self._asked = 0.0  # monotonic
        self.refresh()

    def refresh(self) -> None:
        """Ask again when it is time."""
        busy = self._thread is not None and self._thread.is_alive()
        if not busy and (not self._asked or time.monotonic() - self._asked > USAGE_EVERY):
            self._asked = time.monotonic()
            self._thread = threading.Thread(target=self._ask, daemon=True)
            self._thread.start()

    def wait(self) -> None:
        """Give the first answer some time."""
        if self._thread is not None:
            self._thread.join(5.0)

    def _ask(self) -> None:
        from production.errors import ProductionError
        from production.space.probe import open_probe

        try:
            self.known = open_probe(self._config.space, self._config.data).probe().fullest
        except ProductionError:  # an onlooker cannot do anything about it
            self.known = None


def _print(survey: Survey, usage: _UsedSpace, limit: float) -> None:
    from production.view.layout import plain

    snapshot = survey.snapshot(usage=usage.known, spacelim=limit)
    print("\n".join(plain(snapshot)))
