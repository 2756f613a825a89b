"""Bring a database of an older version of this program up to date, in one transaction."""

from __future__ import annotations

import argparse

from production.cli.parser import add_database


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_database(parser)


def run(options: argparse.Namespace) -> int:
    """Do it."""
    from production.store.migrations import migrate

    before, after = migrate(options.database)
    if before == after:
        print(f"{options.database} is up to date (schema version {after})")
    else:
        print(f"{options.database}: schema version {before} -> {after}")
    return 0
