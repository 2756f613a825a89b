"""Make a database from a backup: a copy, or a text.

An existing database is never touched: move it away first, when no manager works with it.
"""

from __future__ import annotations

import argparse
import shlex

from production.cli.parser import add_database, path


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("backup", metavar="BACKUP", type=path, help="the copy or text to read")
    add_database(parser)


def run(options: argparse.Namespace) -> int:
    """Do it."""
    from production import toml
    from production.store import backup
    from production.store.connection import SCHEMA_VERSION
    from production.view.progress import Progress

    total = options.backup.stat().st_size if toml.is_file(options.backup) else 0
    with Progress(total) as progress:
        version = backup.restore(options.backup, options.database, progress.reach)
    print(f"{options.database}: restored from {options.backup}")
    where = f"--database={shlex.quote(str(options.database))}"
    if version < SCHEMA_VERSION:
        print(f"It has schema version {version}. Next: production migrate {where}")
    else:
        print(f"What happened since the backup is not in it. Next: production audit {where}")
    return 0
