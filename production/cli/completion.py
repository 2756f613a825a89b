"""Completes command lines for the shell, which starts the program anew for each TAB.

argcomplete asks the parser of the command that is being typed, and that one only.  What it cannot
know (datasets, runs, versions, ...) is asked of the database, for a fraction of a second at most:
a file server that is away must not hold anybody's prompt.
"""

from __future__ import annotations

import argparse
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import argcomplete
from argcomplete.completers import FilesCompleter, SuppressCompleter
from argcomplete.lexers import split_line

from production.cli import COMMANDS, command_parser
from production.cli.parser import DATABASE, Parser, expanded, path
from production.cli.steer_command import SETTINGS
from production.errors import ProductionError
from production.store.names import Names, open_names

PATIENCE = 0.4  # seconds; for all that the database is asked

Found = Iterable[str] | Mapping[str, str]  # with descriptions, where there are some
Question = Callable[[Names, argparse.Namespace, str], Found]


def complete(program: str) -> NoReturn:
    """Print what may stand at the cursor, as the environment's COMP_LINE says, and exit."""
    line, point = os.environ["COMP_LINE"], int(os.environ["COMP_POINT"])
    words = split_line(line, point)[3]  # those before the cursor
    if program != "production":
        parser = command_parser("run", program)[0]
    elif len(words) == 1:
        parser = _overview()
    elif words[1] in COMMANDS:
        parser = command_parser(words[1], words[1])[0]
        os.environ["_ARGCOMPLETE"] = "2"  # the arguments begin after the second word
    else:
        os._exit(0)
    has_arguments = any(not action.option_strings for action in parser._actions)
    _equip(parser)
    argcomplete.autocomplete(
        parser,
        # Options that nobody has begun to type would hide the arguments.
        always_complete_options=False if has_arguments else "long",
        default_completer=SuppressCompleter(),
    )
    os._exit(1)  # not reached: autocomplete exits


def _overview() -> Parser:
    """A parser that knows the commands' names, and nothing of the commands."""
    parser = Parser(prog="production")
    actions = parser.add_subparsers(parser_class=argparse.ArgumentParser)
    for name, what in COMMANDS.items():
        actions.add_parser(name, help=what, add_help=False)
    return parser


def _equip(parser: argparse.ArgumentParser) -> None:
    """Tell argcomplete, for each argument, whom to ask."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                _equip(below)
        elif action.choices is not None:
            action.completer = _one_of(action.choices)  # type: ignore[attr-defined]
        elif action.type is path:
            action.completer = FilesCompleter()  # type: ignore[attr-defined]
        elif action.metavar == "SETTING":
            settings = [f"{name}=" for name in SETTINGS]
            action.completer = _one_of(settings)  # type: ignore[attr-defined]
        elif action.metavar == "NAMES" and parser.prog.endswith("runs"):
            action.completer = _columns_of_runs  # type: ignore[attr-defined]
        elif question := _question(action):
            action.completer = _Ask(question)  # type: ignore[attr-defined]


def _one_of(words: Iterable[object]) -> Callable[..., list[str]]:
    """These words; argcomplete by itself would show the option's help beside each of them."""
    return lambda **_: [str(word) for word in words]


def _question(action: argparse.Action) -> Question | None:
    if action.dest == "version":
        return lambda names, given, _: names.versions(_type(given))
    if action.dest == "name":  # of a dataset to which runs are added
        return _QUESTIONS["SET"]
    if action.dest == "runs" and action.required:  # which are new
        return None
    return _QUESTIONS.get(str(action.metavar))


class _Ask:
    """Asks the database for what may complete an argument; no answer in time is none."""

    def __init__(self, question: Question) -> None:
        self._question = question

    def __call__(
        self, prefix: str, parsed_args: argparse.Namespace, **_: object
    ) -> Iterable[str] | Mapping[str, str]:
        answers: list[Found] = []

        def ask() -> None:
            # Whatever is wrong: who types must not be bothered with it.
            with suppress(Exception), open_names(_database(parsed_args)) as connection:
                answers.append(self._question(Names(connection), parsed_args, prefix))

        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        asking.join(PATIENCE)
        return answers[0] if answers else ()


def _database(given: argparse.Namespace) -> Path:
    found = getattr(given, "database", None)
    return found if isinstance(found, Path) else expanded(DATABASE)


def _type(given: argparse.Namespace) -> str | None:
    return getattr(given, "production", None)


def _types(names: Names, given: argparse.Namespace, _: str) -> Found:
    """Those of the database, and where it is one that can be started, those of the recipes."""
    known = set(names.types())
    if hasattr(given, "new"):
        from production import config as configuration
        from production.recipe import known_recipes

        with suppress(ProductionError, OSError):
            database = _database(given)
            config = configuration.load(given.config, database)
            known.update(known_recipes(config.recipe_directories(database)))
    return sorted(known)


def _runs(names: Names, given: argparse.Namespace, prefix: str) -> Found:
    """The last number of a list such as 2091-2103,21."""
    begun = prefix[max(prefix.rfind(","), prefix.rfind("-")) + 1 :]
    before = prefix[: len(prefix) - len(begun)]
    version = getattr(given, "version", None)
    return [f"{before}{run}" for run in names.runs(begun, _type(given), version)]


def _columns_of_runs(prefix: str, **_: object) -> list[str]:
    """Those of `production runs`, which no database need be asked for."""
    from production.store.reports.runs import COLUMNS

    return _one_more(prefix, COLUMNS)


def _one_more(prefix: str, columns: Iterable[str]) -> list[str]:
    """The last name of a list such as status,-run: one that does not stand there already."""
    *before, last = prefix.split(",")
    sign = "-" if last.startswith("-") else ""
    taken = {name.removeprefix("-") for name in before}
    return [",".join([*before, sign + name]) for name in columns if name not in taken]


# By what the arguments are called in the help.
_QUESTIONS: Mapping[str, Question] = {
    "SET": lambda names, _, __: names.datasets(),
    "PROD_TYPE": _types,
    "PRODUCTION": lambda names, _, __: names.labels(),
    "RUN": _runs,
    "RUNS": _runs,
    "NAMES": lambda names, given, prefix: _one_more(
        prefix, names.columns(_type(given), getattr(given, "version", None))
    ),
    "USER": lambda names, _, __: names.users(),
    "ID": lambda names, given, _: names.managers(_type(given)),
}
