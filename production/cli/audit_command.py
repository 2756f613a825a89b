"""Check that the files are what the bookkeeping says, and change nothing.

Each finished run must have all its outputs, there and as long as recorded, and its logs; and
among the outputs there should be no file that nobody has recorded.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from production.cli.choosing import open_choice
from production.cli.output import add_table_output, show
from production.cli.parser import add_config, add_database, add_production, add_runs
from production.errors import FilesAmiss
from production.units import counted

if TYPE_CHECKING:
    from production.audit.check import Audit, Found
    from production.manager.paths import Paths
    from production.model import Production
    from production.store.choice import RunChoice
    from production.store.connection import Database


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_runs(parser, "all")
    add_production(parser, required=False)
    parser.add_argument(
        "--checksums",
        action="store_true",
        help="Read all outputs and compare their checksums, which takes its time.",
    )
    add_config(parser)
    add_table_output(parser, quiet="nothing but the error")
    add_database(parser)


def run(options: argparse.Namespace) -> int:
    """Do it."""
    from production import config as configuration
    from production.audit.check import Audit
    from production.manager.leftovers import of_all
    from production.store import recorded
    from production.store.choice import check_there
    from production.view.progress import Progress

    data = configuration.load(options.config, options.database).data.resolve()
    with open_choice(options) as (db, productions, chosen):
        check_there(db, chosen, productions)
        total = 0
        if options.checksums:
            total = sum(recorded.bytes_with_checksum(db, p, chosen) for p in productions)
        with Progress(total) as progress:
            audit = Audit(options.checksums, progress.add)
            found = [f for p in productions for f in _check(db, audit, p, chosen)]
        if not chosen:  # of a file that nobody has recorded it is not known of which run it is
            found += _strays(db, audit, of_all(db, productions, data))
    _show(found, audit, options)
    if found:
        raise FilesAmiss(what=counted(len(found), "thing"))
    return 0


def _check(
    db: Database, audit: Audit, production: Production, chosen: RunChoice
) -> Iterator[Found]:
    """What is amiss with finished runs; those that are done again meanwhile are passed over."""
    from production.store import recorded

    names = recorded.output_names(db, production)
    for finished in recorded.finished_runs(db, production, chosen):
        for found in audit.check(production.label, names, finished):
            if recorded.is_finished(db, production, finished.run, finished.attempt):
                yield found


def _strays(db: Database, audit: Audit, places: Sequence[Paths]) -> Iterator[Found]:
    """Files among the outputs that nobody has recorded, and nobody is about to record."""
    from production.model import Claim
    from production.store import recorded

    for paths in places:
        for plan in paths.outputs(Claim(0, 0, 0)):
            audit.expect(paths.production.label, str(plan.final.parent))
    strays = list(audit.strays())
    # In this order: a run that is held no more by then has recorded what it has made.
    awaited = {
        path
        for paths in places
        for held in recorded.held(db, paths.production)
        for plan in (paths.of_spool(held.spool) if held.spool else paths).outputs(held.claim)
        for path in (plan.temporary, plan.final)
    }
    recordings = recorded.recordings(db, [f.path for f in strays if f.path is not None])
    for found in strays:
        recording = recordings.get(found.path) if found.path is not None else None
        if found.detail:
            yield found
        elif recording is None:
            if found.path not in awaited:
                yield replace(found, detail="nobody has recorded it")
        elif not recording.counts:
            what = f"of attempt {recording.attempt}, but the run is {recording.status} now"
            yield replace(found, production=recording.production, run=recording.run, detail=what)


def _show(found: Sequence[Found], audit: Audit, options: argparse.Namespace) -> None:
    headers = ["finding", "production", "run", "path", "detail"]
    rows = [
        [f.finding, f.production, f.run, None if f.path is None else str(f.path), f.detail]
        for f in found
    ]
    if options.output != "quiet" and (rows or options.output != "table"):
        show(headers, rows, options.output)
    if options.output == "table":
        how = "with their content" if options.checksums else "by their size"
        runs = counted(audit.runs, "finished run")
        print(f"{runs}, {counted(audit.outputs, 'output')} checked {how}")
