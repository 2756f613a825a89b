"""argparse with our manners: errors as one line, help under all three names, shared options."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TypeVar

from production.errors import UsageError
from production.units import parse_duration

T = TypeVar("T")
DATABASE = "~/data/production.db"


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Shows an option as people write it: ``--nproc=#``."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        value = self._format_args(action, action.dest.upper())
        return "=".join([", ".join(action.option_strings), value])


class Parser(argparse.ArgumentParser):
    """Raises UsageError instead of printing the usage and exiting."""

    def __init__(
        self, prog: str | None = None, description: str | None = None, epilog: str | None = None
    ) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=epilog,
            allow_abbrev=False,
            add_help=False,
            formatter_class=_Formatter,
        )
        self.add_argument(
            "-h", "--help", "--usage", action="help", help="Print this help, then exit."
        )

    def error(self, message: str) -> NoReturn:
        """What argparse calls for wrong arguments."""
        raise UsageError(text=f"{message}. See {self.prog} --help")


def add_database(parser: argparse.ArgumentParser) -> None:
    """The option that every command has."""
    parser.add_argument(
        "--database",
        metavar="DB",
        type=path,
        default=expanded(DATABASE),
        help=f"SQLite database of the productions. It is never created implicitly: see "
        f"`production init`. (Default: {DATABASE})",
    )


def add_production(
    parser: argparse.ArgumentParser, *, required: bool = True, one: bool | None = None
) -> None:
    """The options that name a production; ``one``: no more than one, as where it is required."""
    one = required if one is None else one
    parser.add_argument(
        "--production",
        metavar="PROD_TYPE",
        required=required,
        help="The production type." if one else "Only productions of this type.",
    )
    newest = "(Default: the highest of that type)" if one else "(Default: all)"
    parser.add_argument(
        "--version",
        metavar="#",
        type=number(int, "a version number", 0, 10**6),
        help=f"Version of the production. {newest}",
    )


def add_runs(parser: argparse.ArgumentParser, otherwise: str) -> None:
    """Runs by number or by dataset; ``otherwise``: which are meant when neither is given."""
    from production.store.datasets import parse_runs

    parser.add_argument(
        "runs",
        metavar="RUNS",
        nargs="?",
        type=converter(parse_runs),
        default=[],
        help=f"such as 2091-2103,2119 (Default: {otherwise})",
    )
    parser.add_argument(
        "--dataset",
        metavar="SET",
        action="append",
        default=[],
        help="Only runs of dataset SET; may be given several times.",
    )


def add_config(parser: argparse.ArgumentParser) -> None:
    """Where the configuration is."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        type=path,
        help="The configuration. (Default: production.toml beside the database)",
    )


def add_output(parser: argparse.ArgumentParser) -> None:
    """How results are printed."""
    parser.add_argument(
        "--output",
        choices=("table", "json", "quiet"),
        default="table",
        help="Print for people, as JSON for programs, or the least. (Default: table)",
    )


def path(text: str) -> Path:
    """A file name with ~ expanded."""
    if not text:
        raise argparse.ArgumentTypeError("a file name must not be empty")
    return expanded(text)


def word(text: str) -> str:
    """A text for another command's command line."""
    if not text or "\0" in text or "\n" in text:
        raise argparse.ArgumentTypeError("it must be a text of one line")
    return text


def expanded(text: str) -> Path:
    """``text`` with ~ expanded; without a home for it, as it stands, to be missed there."""
    return Path(os.path.expanduser(text))  # noqa: PTH111 - Path.expanduser raises


def converter(parse: Callable[[str], T]) -> Callable[[str], T]:
    """An argparse type from a function that raises ValueError or UsageError with a good text."""

    def convert(text: str) -> T:
        try:
            return parse(text)
        except (ValueError, UsageError) as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


def number(
    kind: type[int] | type[float], name: str, low: float, high: float
) -> Callable[[str], float]:
    """A number within limits."""

    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = kind(low - 1)
        if not low <= value <= high:
            raise ValueError(f"'{text}' is not {name} from {low} to {high}")
        return value

    return converter(parse)


def time_option(low: float = 0, high: float = math.inf) -> Callable[[str], float]:
    """Seconds in ``5``, ``0`` or what ``parse_duration`` takes, within limits."""

    def parse(text: str) -> float:
        try:
            seconds = float(text)
        except ValueError:
            seconds = parse_duration(text)
        if not low <= seconds <= high or math.isinf(seconds):
            most = f" to {high:g} s" if high < math.inf else " on"
            raise ValueError(f"'{text}' is not a time from {low:g} s{most}")
        return seconds

    return converter(parse)


run_number = number(int, "a run number", 0, 10**18)  # SQLite's integers end a little above
