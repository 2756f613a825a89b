"""Write the runs of a production as CSV or JSON, with the columns of its view."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Iterable, Sequence
from typing import TextIO

from production.cli.choosing import open_one
from production.cli.parser import add_database, add_production, add_runs, path, word


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_runs(parser, "all")
    add_production(parser)
    parser.add_argument(
        "--columns",
        metavar="NAMES",
        type=word,
        help="such as run,status,tree (Default: all but modules)",
    )
    parser.add_argument(
        "--output",
        choices=("csv", "json"),
        default="csv",
        help="CSV with a line of headings, or a JSON list of objects. (Default: csv)",
    )
    parser.add_argument(
        "--file",
        metavar="FILE",
        type=path,
        help="Write to FILE. (Default: standard output)",
    )
    parser.add_argument("--force", action="store_true", help="Replace FILE if it exists.")
    add_database(parser)


def run(options: argparse.Namespace) -> int:
    """Do it."""
    from production.store import export
    from production.store.choice import check_there
    from production.store.newfile import new_file

    wanted = [name.strip() for name in options.columns.split(",")] if options.columns else []
    write = {"csv": _write_csv, "json": _write_json}[options.output]
    with open_one(options) as (db, production, chosen):
        check_there(db, chosen, [production])
        names = export.columns(db, production, wanted)
        rows = export.rows(db, production, chosen, names)
        if options.file is None:
            write(sys.stdout, names, rows)
        else:
            with (
                new_file(options.file.absolute(), replace=options.force) as new,
                new.open("w", encoding="utf-8", newline="") as out,
            ):
                write(out, names, rows)
    return 0


def _write_csv(out: TextIO, names: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(rows)


def _write_json(out: TextIO, names: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A list with one object a line, never all of them in memory."""
    out.write("[")
    separator = "\n"
    for row in rows:
        out.write(separator + json.dumps(dict(zip(names, row, strict=True))))
        separator = ",\n"
    out.write("\n]\n")
