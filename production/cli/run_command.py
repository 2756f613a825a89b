"""Process the runs of a production.

This program checks the production database and takes care of fetching, submitting,
watching and cleanup, and updates the database accordingly, so multiple people can process at
the same time.  Ctrl-C rolls back what this manager has begun; finished runs stay.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from production.cli.parser import (
    add_config,
    add_database,
    add_output,
    converter,
    number,
    path,
    time_option,
    word,
)
from production.errors import DisplayUnavailable, ProductionError, RunsFailed, UsageError
from production.model import DEFAULT_QUALITY, Status
from production.signals import end_by_exception
from production.units import (
    counted,
    parse_duration,
    parse_failures,
    parse_fraction,
    parse_lease,
    parse_memory,
    parse_rate,
)

if TYPE_CHECKING:
    from production.config import Log
    from production.manager.desk import Desk
    from production.manager.loop import Manager
    from production.view.base import View

# Seconds within which a second signal is the same request: timeout(1) sends it to the process and
# to its group, a closing terminal sends SIGHUP and SIGTERM.
SAME_SIGNAL = 0.5
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
NOTICE_PATIENCE = 10.0  # seconds for the notice of the end: no signal ends the program meanwhile


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options: those of 2014 and 2016 with their spelling, then the new ones."""
    parser.usage = "%(prog)s --production=PROD_TYPE [optional arguments...]"
    parser.add_argument(
        "--production",
        metavar="PROD_TYPE",
        required=True,
        help="The production type: alcapana, rootana, or one of your own recipes.",
    )
    parser.add_argument(
        "--version",
        metavar="#",
        type=number(int, "a version number", 0, 10**6),
        help="Version number to produce. Default is the highest version of this type. With --new "
        "and a derived type such as rootana, this is the version of the base to produce from "
        "(default: its newest). With --new and a primary type such as alcapana it is refused.",
    )
    parser.add_argument(
        "--new",
        metavar="TAG",
        help="Start a new production, with the next free version number. TAG is the software tag, "
        "recorded for bookkeeping.",
    )
    parser.add_argument(
        "--pause",
        metavar="#",
        type=time_option(0.1, 3600),
        help="Wait # seconds between the event loop's checks for finished jobs. (Default: 5)",
    )
    parser.add_argument(
        "--nproc",
        metavar="#",
        type=number(int, "a number of jobs", 1, 100_000),
        help="Maximum number of jobs in the batch system at a time. (Default: 10)",
    )
    parser.add_argument(
        "--nprep",
        metavar="#",
        type=number(int, "a number of runs", 0, 100_000),
        help="Maximum number of runs to have ready besides: at most NPROC + NPREP raw files are "
        "on disk at once. (Default: 5)",
    )
    parser.add_argument(
        "--spacelim",
        metavar="#",
        type=converter(parse_fraction),
        help="The maximum share of the available space to use up: 90, 90%% or 0.9. (Default: 90)",
    )
    parser.add_argument(
        "--transfers",
        metavar="#",
        type=number(int, "a number of transfers", 1, 100),
        help="Maximum number of files to download at a time. (Default: 2)",
    )
    parser.add_argument(
        "--rate-limit",
        metavar="SIZE",
        type=converter(parse_memory),
        help="Download at most so many bytes a second in all, such as 50M. (Default: no limit)",
    )
    parser.add_argument(
        "--stage-timeout",
        metavar="TIME",
        type=converter(parse_duration),
        help="A file that does not come from tape within that time is asked for again, and after "
        "as long again the attempt has failed: 90m, 12h. (Default: 2h)",
    )
    parser.add_argument("--display", action="store_true", help="Use a ncurses display.")
    loudness = parser.add_mutually_exclusive_group()
    loudness.add_argument(
        "--quiet",
        action="store_true",
        help="Say no more than warnings, errors and the closing report.",
    )
    loudness.add_argument(
        "--verbose",
        action="store_true",
        help="Say also what is recorded, and what batch system, archive and filesystem answer.",
    )
    parser.add_argument(
        "--modules",
        metavar="FILE",
        type=path,
        help="The program's modules file; its text is recorded with every run. (Default: as the "
        "configuration or the recipe names it, production.cfg for rootana)",
    )
    parser.add_argument(
        "--dataset",
        metavar="SET",
        action="append",
        help="Only process runs of dataset SET; may be given several times. (Default: all)",
    )
    parser.add_argument(
        "--tranche",
        metavar="#",
        action="append",
        type=number(int, "a tranche", 1, 10**6),
        help="Only process runs of this tranche; may be given several times. (Default: all)",
    )
    parser.add_argument(
        "--quality",
        metavar="Q",
        action="append",
        help="Only runs of this quality; may be given several times; `any` takes all. "
        f"(Default: {DEFAULT_QUALITY})",
    )
    add_database(parser)
    parser.add_argument(
        "--calib", action="store_true", help="Have rootana use the calibration (its option -c)."
    )
    parser.add_argument(
        "--calibdatabase",
        metavar="DB",
        type=path,
        help="The calibration database (rootana's option -d). (Default: ~/data/calibration.db, "
        "when --calib is given and it exists)",
    )
    parser.add_argument(
        "--option",
        metavar="NAME[=VALUE]",
        action="append",
        default=[],
        help="An option that your own recipe defines under [job.options].",
    )
    _batch_arguments(parser)
    parser.add_argument(
        "--max-attempts",
        metavar="#",
        type=number(int, "a number of attempts", 1, 1000),
        help="How often a run is tried before it stands at E. (Default: 3)",
    )
    parser.add_argument(
        "--lease",
        metavar="TIME",
        type=converter(parse_lease),
        help="Without a sign of life for so long, this manager counts as dead and its runs are "
        "taken over: 10m. (Default: 10m)",
    )
    add_config(parser)
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="Print the job script and the submission command that would be used; change nothing.",
    )
    parser.add_argument(
        "--log-file",
        metavar="FILE",
        type=path,
        help="Append all messages as JSON lines. At 10 MB, or what the configuration says, it is "
        "renamed to FILE.1.",
    )
    add_output(parser)


def _batch_arguments(parser: argparse.ArgumentParser) -> None:
    """Which batch system, and what it is told; the recipe's and the configuration's come before."""
    parser.add_argument(
        "--batch",
        metavar="SYSTEM",
        help="The batch system: local, slurm, sge, lsf, htcondor, pbs, or auto for the one whose "
        "commands this host has. (Default: local)",
    )
    parser.add_argument(
        "--queue", metavar="QUEUE", type=word, help="The queue (SLURM's partition) of all jobs."
    )
    parser.add_argument(
        "--project", metavar="PROJECT", type=word, help="The project (SLURM's account) to charge."
    )
    parser.add_argument(
        "--time",
        metavar="TIME",
        type=converter(lambda text: math.ceil(parse_duration(text))),
        help="The longest time that a job may run: 90, 1h4m, 2d12h. (Default: the recipe's)",
    )
    parser.add_argument(
        "--memory",
        metavar="SIZE",
        type=converter(parse_memory),
        help="The memory of a job: 500M, 2G. (Default: the recipe's)",
    )
    parser.add_argument(
        "--cores",
        metavar="#",
        type=number(int, "a number of cores", 1, 100_000),
        help="The cores of a job, on one node. (Default: the recipe's)",
    )
    parser.add_argument(
        "--submit-option",
        metavar="WORD",
        action="append",
        default=[],
        type=word,
        help="A further word for the submission command, as it is; may be given several times.",
    )
    parser.add_argument(
        "--no-arrays", action="store_true", help="Submit each job alone, not in job arrays."
    )
    parser.add_argument(
        "--condorname", metavar="NAME", type=word, help="HTCondor: the schedd to submit to."
    )
    parser.add_argument(
        "--condorpool", metavar="HOST", type=word, help="HTCondor: the pool's central manager."
    )
    parser.add_argument(
        "--max-submit-rate",
        metavar="RATE",
        type=converter(parse_rate),
        help="Submit no more jobs than that: 5 (a second), 30/m, 1000/h. (Default: no limit)",
    )
    parser.add_argument(
        "--max-failures",
        metavar="#",
        type=converter(parse_failures),
        help="Submit nothing more after # failed jobs in a row, or after # percent of at least "
        "20 jobs have failed: 50 or 25%%. (Default: 20)",
    )


def run(options: argparse.Namespace) -> int:
    """Do it."""
    from production.cli.session import open_session
    from production.view.base import tell_of_waits
    from production.view.console import Console

    if options.display and options.quiet:
        raise UsageError(text="--quiet is for messages: a display shows all of them")
    with open_session(options, tell_of_waits(Console(options.output))) as session:
        end_by_exception()
        if options.dry_run:
            print(session.dry_run())
            return 0
        view = _view(options, session.config.log)
        session.db.on_wait = tell_of_waits(view)
        try:
            manager = session.start(view)
            with _end_is_told(manager.desk), _signals_to(manager, view):
                manager.run()
        finally:
            view.close()
        _report(manager.desk)
    return 0


@contextmanager
def _end_is_told(desk: Desk) -> Iterator[None]:
    """Those who do not look are told how the manager ended."""
    try:
        yield
    except BaseException as error:
        how = str(error) if isinstance(error, ProductionError) else type(error).__name__
        _tell(desk, f"Ended: {how}")
        raise
    _tell(desk, _standing(desk))


def _tell(desk: Desk, how: str) -> None:
    from production.manager.lanes import Lane, Results

    notice = desk.notices.ended(how)
    if notice is None:
        return
    results, troubles = Results(), list[object]()
    lane = Lane("end", results)  # of its own: an earlier notice may hang in the other one
    lane.do(lambda: desk.rooms.herald.send(notice), troubles.append)
    results.deliver(NOTICE_PATIENCE)
    if lane.busy:
        what = f"The notice of the end took longer than {NOTICE_PATIENCE:g} s and was given up"
        desk.say(what, level="warning")
    elif troubles[0] is not None:
        desk.say(str(troubles[0]), level="warning")


def _view(options: argparse.Namespace, log: Log) -> View:
    from production.view.console import Console
    from production.view.logfile import LogFile

    def shown() -> View:
        console = Console(options.output, quiet=options.quiet)
        if not options.display:
            return console
        from production.cli.door import open_door
        from production.view.display import Display

        try:
            return Display(open_door(options.database, options.config))
        except DisplayUnavailable as error:
            console.message(str(error), level="warning")
            return console

    if options.log_file is None:
        return shown()
    return LogFile(options.log_file, shown, log.size, log.keep)


@contextmanager
def _signals_to(manager: Manager, view: View) -> Iterator[None]:
    """A first signal has the manager roll back; a second one ends the program at once."""
    # Started under nohup it is to outlive the terminal.
    nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    signals = [signum for signum in SIGNALS if not (nohup and signum == signal.SIGHUP)]

    first = math.inf  # when the first signal came

    def handle(signum: int, _frame: object) -> None:
        nonlocal first
        now = time.monotonic()
        if first == math.inf:
            first = now
            manager.interrupt(signum)
        elif now - first > SAME_SIGNAL:
            with contextlib.suppress(Exception):  # perhaps in the middle of a line
                view.close()
            with contextlib.suppress(OSError):
                os.write(2, b"Stopped at once; the next start repairs what is left behind\n")
            os._exit(128 + signum)

    before: dict[int, Callable[..., object] | int | None] = {
        signum: signal.signal(signum, handle) for signum in signals
    }
    try:
        yield
    finally:
        for signum, handler in before.items():
            # After a roll-back nothing is left that a signal could do but spoil the exit code.
            signal.signal(signum, handler if first == math.inf else signal.SIG_IGN)


def _standing(desk: Desk) -> str:
    counts = desk.counts()
    stand = ", ".join(f"{counts[status]} {status}" for status in Status if status in counts)
    why = f"Ended: {desk.closing}" if desk.closing else "Nothing left to do here"
    return f"{why}. {desk.production.label}: {stand}"


def _report(desk: Desk) -> None:
    """The closing line, and an error when runs of the production stand at E."""
    counts = desk.counts()
    desk.say(_standing(desk), level="report")
    if desk.trouble:
        raise desk.trouble
    if desk.closing:
        return
    if waiting := desk.store.waiting_for_base():
        what = f"{counted(waiting, 'run')} still to be finished by the base production"
        desk.say(what, level="report")
    if counts.get(Status.NEW, 0) > waiting:
        what = "The runs at N are outside of the chosen datasets, tranches and qualities"
        desk.say(what, level="report")
    if failed := counts.get(Status.ERROR, 0):
        production = desk.production
        raise RunsFailed(
            count=failed,
            runs=", ".join(map(str, desk.store.at_error(limit=10))),
            database=desk.db.path,
            table=production.label,
            type=production.type,
            version=production.version,
        )
