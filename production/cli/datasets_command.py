"""Tell the database which runs exist and to which datasets they belong."""

from __future__ import annotations

import argparse

from production.cli.choosing import open_to_read, open_to_write
from production.cli.examples import epilog
from production.cli.output import add_table_output, show
from production.cli.parser import add_database, converter, number, path


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    import_ = actions.add_parser(
        "import",
        help="read a run list",
        description="Read a run list: CSV with a header line; columns run and dataset, and as "
        "they exist tranche, quality, geometry, campaign. May be done again with a newer list.",
        epilog=epilog("datasets import"),
    )
    import_.add_argument("file", metavar="FILE.csv", type=path, help="the run list")
    add = actions.add_parser(
        "add",
        help="add runs by number",
        description="Add runs to a dataset by number.",
        epilog=epilog("datasets add"),
    )
    add.add_argument("name", metavar="NAME", type=converter(_name), help="the dataset")
    from production.store.datasets import parse_runs

    add.add_argument(
        "runs", metavar="RUNS", type=converter(parse_runs), help="such as 2091-2103,2119"
    )
    add.add_argument("--quality", metavar="Q", help="gold, silver, … (Default: none)")
    add.add_argument(
        "--tranche",
        metavar="#",
        type=number(int, "a tranche", 1, 10**6),
        help="part of the dataset, from 1",
    )
    add.add_argument("--geometry", metavar="G", help="of the apparatus")
    list_ = actions.add_parser(
        "list",
        help="show the datasets",
        description="Show the datasets and what they hold.",
        epilog=epilog("datasets list"),
    )
    add_table_output(list_, quiet="the names alone")
    for action in (import_, add, list_):
        add_database(action)


def run(options: argparse.Namespace) -> int:
    """Do it."""
    from dataclasses import astuple, fields

    from production.store import datasets

    if options.action == "list":
        with open_to_read(options.database) as db:
            found = datasets.summaries(db)
        headers = [field.name for field in fields(datasets.DatasetSummary)]
        show(headers, [astuple(summary) for summary in found], options.output)
        return 0
    if options.action == "import":
        labels = datasets.read_csv(options.file)
    else:
        labels = [
            datasets.Label(run, options.name, options.tranche, options.quality, options.geometry)
            for run in options.runs
        ]
    with open_to_write(options.database) as db:
        new, changed = datasets.add(db, labels)
    same = len(set(labels)) - new - changed
    print(f"{new} new, {changed} changed, {same} as before")
    return 0


def _name(text: str) -> str:
    if not text.strip():
        raise ValueError("a dataset needs a name")
    return text.strip()
