"""Print what the job of a run has written to its standard output and standard error.

Of the latest attempt.  With -f also what is still being written, until the attempt ends.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from production.cli.choosing import open_one
from production.cli.parser import (
    DATABASE,
    add_database,
    add_production,
    expanded,
    number,
    run_number,
)
from production.errors import NotRecorded

if TYPE_CHECKING:
    from production.model import Production
    from production.store.connection import Database
    from production.store.reports.logs import Logged
    from production.view.follow import Growing

GLANCE = 0.5  # seconds between two looks at files that grow
ASK_EVERY = 2.0  # seconds between two questions whether the attempt has ended
STREAMS = {"out": ("olog",), "err": ("elog",), "both": ("olog", "elog")}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("run", metavar="RUN", type=run_number, help="whose logs")
    add_production(parser)
    parser.add_argument(
        "--attempt",
        metavar="#",
        type=number(int, "the number of an attempt", 1, 10**9),
        help="Of which attempt. (Default: the latest)",
    )
    parser.add_argument(
        "--stream",
        choices=tuple(STREAMS),
        default="both",
        help="Standard output, standard error, or one after the other. (Default: both)",
    )
    parser.add_argument(
        "--lines",
        metavar="#",
        type=number(int, "a number of lines", 0, 10**9),
        help="Begin with the last # lines of each. (Default: all)",
    )
    parser.add_argument(
        "-f",
        "--follow",
        action="store_true",
        help="Go on with what is being written, until the attempt ends.",
    )
    add_database(parser)


def run(options: argparse.Namespace) -> int:
    """Do it."""
    from production.store.reports.logs import logged

    with open_one(options) as (db, production, _):
        found = logged(db, production, options.run, options.attempt)
        if found.attempt is None:
            raise NotRecorded(
                what=f"Run {found.run} of {production.label} was never tried. See: production "
                f"explain {found.run} {_which(production, options)}"
            )
        if options.follow and found.lasts:
            _follow(db, production, found, options)
        else:
            _print(production, found, options)
    return 0


def _which(production: Production, options: argparse.Namespace) -> str:
    """The options for another command about the same production."""
    database = ""
    if options.database != expanded(DATABASE):
        database = f" --database={shlex.quote(str(options.database))}"
    return f"--production={production.type} --version={production.version}{database}"


def _print(production: Production, found: Logged, options: argparse.Namespace) -> None:
    files = _files(found, options)
    there = [file for file in files if file.opens()]
    closed = [file for file in files if file.trouble]
    if not there and not closed:
        names = " and ".join(str(file.path) for file in files)
        what = f"they are not there: {names}" if names else "no job was prepared for it yet"
        raise NotRecorded(
            what=f"There are no logs of attempt {found.attempt} of run {found.run} of "
            f"{production.label}: {what}. See: production history {found.run} "
            f"{_which(production, options)}"
        )
    _emit(there, len(files) > 1, None)
    for file in files:
        file.close()
    if closed:
        raise NotRecorded(
            what=f"The log {closed[0].path} of attempt {found.attempt} of run {found.run} of "
            f"{production.label} cannot be read: {closed[0].trouble}"
        )


def _follow(
    db: Database, production: Production, found: Logged, options: argparse.Namespace
) -> None:
    """Until the attempt has its outcome; what is written before that is printed."""
    from production.store.reports.logs import logged

    if found.olog is None:
        _note(f"run {found.run} stands at {found.status}: no job was prepared for it yet; waiting")
    files = _files(found, options)
    last: Path | None = None
    asked = time.monotonic()
    while True:
        last = _emit(files, options.stream == "both", last)
        if not found.lasts:
            break
        time.sleep(GLANCE)
        if time.monotonic() - asked < ASK_EVERY:
            continue
        asked = time.monotonic()
        found = logged(db, production, found.run, found.attempt)
        paths = _paths(found, options)
        if not files:
            files = _files(found, options)
        for file, path in zip(files, paths, strict=False):
            file.move(path)
    for file in files:
        file.close()
    why = f": {found.reason}" if found.reason else ""
    _note(f"attempt {found.attempt} of run {found.run} {_ENDS[str(found.outcome)]}{why}")


_ENDS = {"finished": "has finished", "failed": "has failed", "rolled back": "was rolled back"}


def _paths(found: Logged, options: argparse.Namespace) -> list[Path]:
    paths = [getattr(found, name) for name in STREAMS[options.stream]]
    return [path for path in paths if path is not None]


def _files(found: Logged, options: argparse.Namespace) -> list[Growing]:
    from production.view.follow import Growing

    files = [Growing(path) for path in _paths(found, options)]
    if options.lines is not None:
        for file in files:
            file.skip_to_last(options.lines)
    return files


def _emit(files: Sequence[Growing], named: bool, last: Path | None) -> Path | None:
    """Print what has come, as it is; whose it was last.  Where there are two, with their names."""
    for file in files:
        while text := file.more():
            if named and file.path != last:
                _write(f"{os.linesep if last else ''}==> {file.path} <==\n".encode())
            last = file.path
            _write(text)
    return last


def _write(text: bytes) -> None:
    sys.stdout.flush()
    sys.stdout.buffer.write(text)
    sys.stdout.buffer.flush()


def _note(text: str) -> None:
    from production.view.stamp import stamped

    print(stamped(text), file=sys.stderr, flush=True)
