"""Draw how productions went, as PNG or SVG; needs matplotlib, the extra `plots`.

`progress`: runs finished over time. `throughput`: runs finished an hour. `failures`: failed
attempts by reason, all that there ever were. `walltime`: time on the node of finished attempts, by
dataset. `occupancy`: runs that were claimed, and jobs, over time.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from production.cli.parser import add_database, add_production, converter, path
from production.errors import ExtraMissing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from production.model import Production
    from production.store.connection import Database

SUFFIXES = (".png", ".svg")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "what", metavar="WHAT", choices=tuple(PICTURES), help=f"{', '.join(PICTURES)}: see above"
    )
    add_production(parser, required=False)
    parser.add_argument(
        "--file",
        metavar="FILE",
        required=True,
        type=converter(_picture),
        help="Where to draw: FILE.png or FILE.svg.",
    )
    parser.add_argument("--force", action="store_true", help="Replace FILE if it exists.")
    add_database(parser)


def run(options: argparse.Namespace) -> int:
    """Do it."""
    from production.cli.choosing import open_choice
    from production.store.newfile import new_file

    # Of its caches: they are none of the user's concern.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    try:
        import matplotlib as mpl  # noqa: F401
    except ImportError:
        raise ExtraMissing(what="production plot", package="matplotlib", extra="plots") from None
    from production.view.plots import save

    with open_choice(options) as (db, among, _):
        figure = PICTURES[options.what](db, among)
    with new_file(options.file.absolute(), replace=options.force) as new:
        save(figure, new, options.file.suffix[1:])
    return 0


def _picture(text: str) -> Path:
    file = path(text)
    if file.suffix not in SUFFIXES:
        raise ValueError(f"'{text}' does not end in {' or '.join(SUFFIXES)}")
    return file


# --------------------------------------------------------------------------- what is drawn


def _progress(db: Database, of: Sequence[Production]) -> Figure:
    from production.store.reports import standing, timeline
    from production.view import plots

    lines = [(c.name, c.moments, c.values) for c in timeline.progress(db, of)]
    totals = {s.production.label: float(s.total) for s in standing.standings(db, of)}
    return plots.curves("Progress", "runs finished (dashed: all)", lines, totals)


def _throughput(db: Database, of: Sequence[Production]) -> Figure:
    from production.store.reports import timeline
    from production.view import plots

    found = timeline.throughput(db, of)
    width = found[0].width if found else 3600.0
    series = [(b.name, b.begins, b.values) for b in found]
    hours = round(width / 3600)
    mean = "" if hours == 1 else f", means of {hours} hours"
    return plots.bars("Throughput", f"runs finished an hour{mean}", series, width)


def _failures(db: Database, of: Sequence[Production]) -> Figure:
    from production.store.choice import EVERY_RUN
    from production.store.reports import failures
    from production.view import plots

    kinds = failures.grouped(failures.all_failures(db, of, EVERY_RUN))
    several = len({kind.production for kind in kinds}) > 1
    counts = [
        (f"{kind.production}: {kind.reason}" if several else kind.reason, kind.attempts)
        for kind in sorted(kinds, key=lambda kind: -kind.attempts)
    ]
    return plots.reasons("Failures by reason", "failed attempts", counts)


def _walltime(db: Database, of: Sequence[Production]) -> Figure:
    from production.store.reports import timeline
    from production.view import plots

    found = timeline.wall_times(db, of)
    several = len({production for production, _ in found}) > 1
    groups = {
        f"{production}: {dataset or '-'}" if several else dataset or "-": values
        for (production, dataset), values in found.items()
    }
    what = "seconds on the node, finished attempts (in parentheses: how many)"
    return plots.boxes("Wall time by dataset", what, groups)


def _occupancy(db: Database, of: Sequence[Production]) -> Figure:
    from production.store.reports import timeline
    from production.view import plots

    lines = [(c.name, c.moments, c.values) for c in timeline.occupancy(db, of)]
    return plots.curves("Occupancy", "runs", lines)


PICTURES = {
    "progress": _progress,
    "throughput": _throughput,
    "failures": _failures,
    "walltime": _walltime,
    "occupancy": _occupancy,
}
