"""Make a consistent copy of the database while managers work, or a text of it for git.

Whoever wants to write waits as long as the file is being read, which takes a moment.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

from production.cli.choosing import open_to_read
from production.cli.parser import add_database, path
from production.errors import FileUnwritable, UsageError


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "file",
        metavar="FILE",
        nargs="?",
        type=path,
        help="the copy (Default: beside the database, with today's date in its name)",
    )
    parser.add_argument(
        "--text",
        action="store_true",
        help="Write SQL text, sorted and with one row a line, which git can compare.",
    )
    parser.add_argument(
        "--commit",
        metavar="REPOSITORY",
        type=path,
        help="Write the text into this git repository (FILE counts from there; default: the "
        "database's name with .sql) and commit it if it has changed. Nothing is pushed.",
    )
    parser.add_argument("--force", action="store_true", help="Replace FILE if it exists.")
    add_database(parser)


def run(options: argparse.Namespace) -> int:
    """Do it."""
    from production.store import backup, repository
    from production.view.progress import Progress

    if options.commit:
        repository.check(options.commit)
    file = _file(options)
    with open_to_read(options.database) as db, Progress(backup.size(db)) as progress:
        if options.text or options.commit:
            replace = options.force or _is_ours(options, file)
            changed = backup.write_text(db, file, replace=replace, progress=progress.reach)
        else:
            backup.copy(db, file, replace=options.force, progress=progress.reach)
            changed = True
    if options.commit:
        message = f"{options.database.name} on {time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC"
        if repository.commit(options.commit, file, message):
            print(f"{file}: committed")
        else:
            print(f"{file}: nothing has changed since the last commit")
    elif changed:
        print(f"{file}: {file.stat().st_size} bytes")
    else:
        print(f"{file}: has not changed")
    return 0


def _file(options: argparse.Namespace) -> Path:
    database: Path = options.database.absolute()
    given: Path | None = options.file
    if options.commit:
        repository: Path = options.commit.absolute()
        file = repository / (given or f"{database.stem}.sql")
        # Path.resolve raises where links lead in a circle.
        if Path(os.path.realpath(repository)) not in Path(os.path.realpath(file)).parents:
            raise UsageError(text=f"{file} is not in the repository {repository}")
        return file
    today = time.strftime("%Y-%m-%d", time.gmtime())
    suffix = ".sql" if options.text else ".db"
    return (given or database.with_name(f"{database.stem}-{today}{suffix}")).absolute()


def _is_ours(options: argparse.Namespace, file: Path) -> bool:
    """Whether the file is the text of an earlier commit: git keeps what it was."""
    from production import toml
    from production.store.backup import is_text

    if options.commit is None or not toml.is_file(file):
        return False
    try:
        return is_text(file)
    except OSError as error:
        what = f"it cannot be read, to see whether it is such a text: {error.strerror}"
        raise FileUnwritable(path=file, what=what) from None
