"""Ask managers that are at work on a production to do something, and print what they answer.

They take requests up once a cycle (their --pause).  Your own managers are asked, on whatever
host they run, unless you say otherwise.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from production.cli.choosing import open_one
from production.cli.parser import (
    add_database,
    add_output,
    add_production,
    number,
    time_option,
    word,
)
from production.errors import RequestUnheeded, UsageError
from production.units import counted

if TYPE_CHECKING:
    from production.model import Production
    from production.store.reports.standing import Worker
    from production.store.requests import Answer

SETTINGS = ("nproc", "nprep", "spacelim")
GLANCE = 0.3  # seconds between two looks for answers


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command in question."""
    verb = parser.get_default("command")
    if verb == "queue":
        parser.add_argument("argument", metavar="QUEUE", type=word, help="where jobs are to wait")
    elif verb == "set":
        parser.add_argument(
            "argument",
            metavar="SETTING",
            nargs="+",
            type=word,
            help=f"NAME=VALUE, one of {', '.join(SETTINGS)}: see run_production.py --help",
        )
    add_production(parser)
    whom = parser.add_mutually_exclusive_group()
    whom.add_argument(
        "--manager",
        metavar="ID",
        type=number(int, "a manager's number", 1, 10**12),
        help="Only this manager: its number in the database. (Default: all of your own)",
    )
    whom.add_argument(
        "--everybody", action="store_true", help="All managers of the production, whoever's."
    )
    parser.add_argument(
        "--wait",
        metavar="#",
        type=time_option(0, 86400),
        default=60.0,
        help="Wait # seconds for answers. (Default: 60)",
    )
    add_database(parser)
    add_output(parser)


def run(options: argparse.Namespace) -> int:
    """Do it."""
    from production.identity import this_process
    from production.store import requests
    from production.store.reports.standing import workers

    wanted = _wanted(options)
    who = this_process()
    with open_one(options, write=True) as (db, production, _):
        chosen = _chosen(options, workers(db, production), who.user, production)
        asked: dict[int, Worker] = {}
        for verb, argument in wanted:
            ids = requests.ask(db, list(chosen), verb, argument, who)
            asked |= {request: chosen[manager] for request, manager in ids.items()}
        deadline = time.monotonic() + options.wait
        answers = requests.answers(db, list(asked))
        while len(answers) < len(asked) and time.monotonic() < deadline:
            time.sleep(GLANCE)
            answers = requests.answers(db, list(asked))
    _show(options.output, asked, answers)
    unheeded = [asked[id_] for id_ in asked if id_ not in answers or not answers[id_].done]
    if unheeded:
        silent = len(asked) - len(answers)
        what = f"Not done: {len(unheeded)} of {counted(len(asked), 'request')}"
        later = f"; not answered yet, and may still be done: {silent}" if silent else ""
        raise RequestUnheeded(what=f"{what}{later}.")
    return 0


def _wanted(options: argparse.Namespace) -> list[tuple[str, str]]:
    """What managers are asked: verbs and their arguments."""
    if options.command != "set":
        return [(options.command, getattr(options, "argument", ""))]
    wanted = []
    for text in options.argument:
        name, equals, value = text.partition("=")
        if name not in SETTINGS or not equals:
            known = ", ".join(f"{name}=VALUE" for name in SETTINGS)
            raise UsageError(text=f"'{text}' cannot be set; what can be is {known}")
        wanted.append((name, value))
    return wanted


def _chosen(
    options: argparse.Namespace, workers: Sequence[Worker], user: str, production: Production
) -> dict[int, Worker]:
    """Whom to ask, by number: those at work, or the one that is named unless it is surely gone."""
    at_work = [worker for worker in workers if worker.at_work]
    if options.manager is not None:
        chosen = [w for w in workers if w.id == options.manager and w.alive is not False]
    elif options.everybody:
        chosen = at_work
    else:
        chosen = [worker for worker in at_work if worker.user == user]
    if not chosen:
        others = ", ".join(f"manager {w.id} ({w.place})" for w in at_work)
        hint = f" At work: {others}: see --manager and --everybody." if others else ""
        whose = "" if options.everybody or options.manager else "of yours "
        raise RequestUnheeded(
            what=f"No such manager {whose}is at work on {production.label}.{hint}"
        )
    return {worker.id: worker for worker in chosen}


def _show(output: str, asked: dict[int, Worker], answers: dict[int, Answer]) -> None:
    if output == "json":
        import json

        rows = [
            {
                "manager": manager.id,
                "user": manager.user,
                "host": manager.host,
                "done": answers[id_].done if id_ in answers else None,
                "answer": answers[id_].text if id_ in answers else None,
            }
            for id_, manager in asked.items()
        ]
        print(json.dumps(rows, indent=2))
    elif output == "table":
        for id_, manager in asked.items():
            said = answers[id_].text if id_ in answers else "no answer yet"
            print(f"Manager {manager.id} ({manager.place}): {said}")
