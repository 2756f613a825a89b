"""The commands.  Each is a module: ``arguments`` declares its options, ``run`` does it.

Only the module of the command that was asked for is imported: ``--help`` must answer at once on
a busy login node.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from importlib import import_module
from io import TextIOWrapper
from types import ModuleType
from typing import TextIO

from production.cli.examples import epilog
from production.cli.parser import Parser
from production.errors import FileUnwritable, Interrupted, ProductionError, UsageError
from production.signals import INTERRUPTED, Stoppable, Stopped, end_by_exception
from production.units import is_utf8

COMMANDS = {
    "run": "process the runs of a production (the same as run_production.py)",
    "init": "create a database",
    "datasets": "import, add or list the runs of datasets",
    "import": "take over a database of the 2014 or 2016 layout",
    "status": "show all productions and where their runs stand",
    "watch": "show a production live, as --display does, without taking part",
    "runs": "show runs, with what became of the latest attempt at each",
    "failures": "show what has failed, grouped by reason, each with an example",
    "stats": "show times, memory, waiting, throughput and sizes, by dataset or otherwise",
    "plot": "draw progress, throughput, failures, wall times or occupancy",
    "logs": "print the logs of a run, and follow them while its job runs",
    "wait": "wait until a production has come so far",
    "explain": "tell why nothing goes on, or why not a certain run, and what to do",
    "retry": "have failed runs (status E) tried again",
    "pause": "have managers begin nothing new for a while; running jobs go on",
    "resume": "end a pause",
    "queue": "move jobs that wait, and those to come, to another queue of the batch system",
    "set": "change how many jobs or runs, or how much space, managers use",
    "stop": "have managers begin nothing more, and end when their jobs have ended",
    "leave": "have managers end, and leave their jobs to the next one that starts",
    "kill": "have managers cancel their jobs, return their runs, and end",
    "history": "show all attempts at runs, in all productions",
    "trace": "tell what an output was made from: the whole way back",
    "audit": "check that the files are what the bookkeeping says",
    "doctor": "check all that the work depends on, and tell what to do",
    "backup": "make a consistent copy, or a text for git, while managers work",
    "restore": "make a database from a backup",
    "release": "give claims back that have no job yet",
    "recover": "show who holds runs, and take back what the dead have left",
    "clean": "remove what dead managers have left on disk",
    "export": "write a production's runs as CSV or JSON",
    "vacuum": "give space in the database's file back",
    "migrate": "bring a database of an older version of this program up to date",
    "man": "print the manual page of a command, or write all of them",
    "completion": "print what bash, zsh or fish must read to complete command lines",
}

# Those that have something to undo when they are stopped.  The others end at once, by the system's
# hand: a program that answers signals itself cannot be ended while a file server does not answer.
UNDOING = frozenset(
    ["init", "import", "watch", "plot", "doctor", "backup", "restore", "recover", "export", "man"]
)

# One module for all of them.
STEERING = ("pause", "resume", "queue", "set", "stop", "leave", "kill")


def command_parser(name: str, prog: str) -> tuple[Parser, ModuleType]:
    """The parser of a command, and its module."""
    command = import_module(f"production.cli.{'steer' if name in STEERING else name}_command")
    parser = Parser(prog=prog, description=command.__doc__, epilog=epilog(name))
    parser.set_defaults(command=name)
    command.arguments(parser)
    return parser, command


def main(argv: Sequence[str] | None = None, program: str = "production") -> int:
    """Run a command; returns the exit code.  Every foreseen failure ends as one line."""
    _open_standard_files()
    if "_ARGCOMPLETE" in os.environ:  # started by a shell, for a TAB
        from production.cli.completion import complete

        complete(program)
    arguments = list(sys.argv[1:] if argv is None else argv)
    if isinstance(sys.stdout, TextIOWrapper):
        # A reason or a file name that the terminal cannot show must not end a production.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            return _dispatch(arguments, program)
        finally:
            sys.stdout.flush()  # here, where it is known what to do when the reader has gone
    except Interrupted as error:
        return error.exit_code
    except ProductionError as error:
        return _end(error)
    except KeyboardInterrupt:
        return INTERRUPTED
    except Stopped as stopped:
        return stopped.exit_code
    except BrokenPipeError:  # the reader (head, less) has gone
        _silence(sys.stdout)
        return 141
    except OSError as error:
        if error.filename is not None or error.errno not in _UNWRITABLE:
            raise
        _silence(sys.stdout)
        return _end(FileUnwritable(path="standard output", what=error.strerror))


def _open_standard_files() -> None:
    """Where some are closed (``>&-``, a daemon), no other file may get their numbers."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)  # the lowest that is free
            setattr(sys, name, os.fdopen(null, "w" if number else "r", closefd=False))


# What writing to an open file fails with: a full disk, a terminal that has gone.
_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def _end(error: ProductionError) -> int:
    """Tell the user, where that can be done; the exit code."""
    try:
        print(f"ERROR: {error}", file=sys.stderr, flush=True)
    except OSError:
        _silence(sys.stderr)
    return error.exit_code


def _silence(stream: TextIO) -> None:
    """Nothing more can be printed there; what is in its buffer would fail again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def run_production(argv: Sequence[str] | None = None) -> int:
    """``run_production.py``: the command ``run`` under the name that users know."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    return main(["run", *arguments], program="run_production.py")


def _dispatch(arguments: list[str], program: str) -> int:
    if not arguments or arguments[0] in {"-h", "--help", "--usage", "help"}:
        print(_overview())
        return 0
    if arguments[0] == "--version":
        from production import __version__

        print(f"production {__version__}")
        return 0
    for argument in arguments:
        if not is_utf8(argument):
            raise UsageError(text=f"{argument!r} is not valid UTF-8 text")
    name, *rest = arguments
    if name not in COMMANDS:
        raise UsageError(text=f"there is no command '{name}'. Commands: {', '.join(COMMANDS)}")
    prog = program if program != "production" else f"production {name}"
    parser, command = command_parser(name, prog)
    if name == "run" and not rest:
        parser.print_help()
        return 0
    options = parser.parse_args(rest)
    if name == "run":  # which says itself when something begins that has to be undone
        return int(command.run(options))
    end_by_exception()
    with Stoppable() if name in UNDOING else nullcontext():
        return int(command.run(options))


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {what}" for name, what in COMMANDS.items()]
    return "\n".join(
        [
            "Usage: production COMMAND [arguments...]",
            "",
            *lines,
            "",
            "production COMMAND --help tells more about one of them.",
        ]
    )
