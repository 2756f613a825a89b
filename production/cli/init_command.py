"""Create an empty database for productions."""

from __future__ import annotations

import argparse
import shlex

from production.cli.parser import add_database


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_database(parser)


def run(options: argparse.Namespace) -> int:
    """Do it."""
    from production.store.migrations import create

    create(options.database)
    print(
        f"Created {options.database}. Next: production datasets import FILE.csv "
        f"--database={shlex.quote(str(options.database))}"
    )
    return 0
