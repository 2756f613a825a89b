"""Print the manual page of the program, or of a command; or write all of them into a directory.

To read one: production man status | man -l -
"""

from __future__ import annotations

import argparse
from pathlib import Path

from production.cli.parser import DATABASE, path


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from production.cli import COMMANDS

    parser.add_argument(
        "page",
        metavar="COMMAND",
        nargs="?",
        choices=tuple(COMMANDS),
        help="of which command (Default: of the program as a whole)",
    )
    parser.add_argument(
        "--directory",
        metavar="DIR",
        type=path,
        help="Write all pages into DIR/man1, such as ~/.local/share/man, where man finds them.",
    )


def run(options: argparse.Namespace) -> int:
    """Do it."""
    from production.cli import COMMANDS, command_parser
    from production.view.manual import pages

    one = [options.page] if options.page else []
    names = one if options.directory is None else [*COMMANDS]
    parsers = {
        name: command_parser(name, "run_production.py" if name == "run" else f"production {name}")[
            0
        ]
        for name in names
    }
    found = pages(parsers, COMMANDS, DATABASE)
    if options.directory is None:
        print(found[f"production-{options.page}" if options.page else "production"], end="")
        return 0
    written = _write(found, options.directory / "man1")
    print(f"{len(found)} pages are in {written}")
    return 0


def _write(pages: dict[str, str], directory: Path) -> Path:
    from production.errors import FileUnwritable

    try:
        directory.mkdir(parents=True, exist_ok=True)
        for title, text in pages.items():
            (directory / f"{title}.1").write_text(text, encoding="utf-8")
    except OSError as error:
        where = error.filename or directory
        raise FileUnwritable(path=where, what=error.strerror) from None
    return directory
