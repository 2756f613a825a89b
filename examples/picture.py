#!/usr/bin/env python3
"""Adds up the dimuon mass of all finished runs and draws it.

The runs are found in the way that everybody finds them: with SQL, in the production database.
"""

from __future__ import annotations

import argparse
import re
import sqlite3
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import matplotlib as mpl
import numpy as np
import uproot
from midas import Array

Z_MASS = 91.19  # GeV


def finished_outputs(database: Path, table: str) -> list[Path]:
    """The ``out`` files of all finished runs of a production, in the order of the runs."""
    if not re.fullmatch(r"\w+", table):
        raise ValueError(f"{table!r} is not the name of a production, like rootana_v1")
    with closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)) as db:
        rows = db.execute(f"SELECT out FROM {table} WHERE status='F' ORDER BY run").fetchall()
    return [Path(out) for (out,) in rows]


def add_up(files: Sequence[Path], histogram: str) -> tuple[Array, Array]:
    """The sum of one histogram over the files, and the edges of its bins."""
    total: Array = np.zeros(0)
    edges: Array = np.zeros(0)
    for file in files:
        with uproot.open(file) as root:
            counts, file_edges = root[histogram].to_numpy()
        if not len(edges):
            total, edges = np.zeros_like(counts), file_edges
        if not np.array_equal(edges, file_edges):
            raise ValueError(f"{file}: {histogram} has other bins than in {files[0]}")
        total = total + counts
    return total, edges


def draw(counts: Array, edges: Array, runs: int, source: str, output: Path) -> None:
    """The picture, as PNG."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    width = edges[1] - edges[0]
    figure, axes = plt.subplots(figsize=(8, 5), dpi=120, layout="constrained")
    axes.stairs(counts, edges, fill=True, color="#9ecae1")
    axes.stairs(counts, edges, color="#08519c", linewidth=1.2)
    axes.errorbar(
        (edges[:-1] + edges[1:]) / 2, counts, np.sqrt(counts), fmt="none", ecolor="#08519c", lw=1
    )
    axes.axvline(Z_MASS, color="#a50f15", linestyle="--", linewidth=1)
    top = 1.12 * float((counts + np.sqrt(counts)).max(initial=1))
    axes.text(Z_MASS - 1.5, 0.96 * top, "Z  91.19 GeV", color="#a50f15", ha="right", va="top")
    summary = f"{runs} runs\n{counts.sum():,.0f} pairs of muons".replace(",", "\N{THIN SPACE}")
    axes.text(0.03, 0.95, summary, transform=axes.transAxes, va="top", linespacing=1.6)
    axes.set(
        xlabel="mass of two muons of opposite charge (GeV)",
        ylabel=f"pairs / {width:g} GeV",
        title=f"Dimuon mass, {source}",
        xlim=(edges[0], edges[-1]),
        ylim=(0, top),
    )
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(output, format="png")
    plt.close(figure)


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description="Draw the dimuon mass of all finished runs.")
    parser.add_argument("files", nargs="*", type=Path, help="output files of rootana, or:")
    parser.add_argument("--database", type=Path, help="the production database")
    parser.add_argument("--table", default="rootana_v1", help="the production (%(default)s)")
    parser.add_argument("--histogram", default="mass", help="its name (%(default)s)")
    parser.add_argument("--output", type=Path, default=Path("mass.png"), help="(%(default)s)")
    options = parser.parse_args(argv)
    if bool(options.files) == bool(options.database):
        parser.error("name either files or --database")
    try:
        if options.database:
            source, files = options.table, finished_outputs(options.database, options.table)
        else:
            source, files = "rootana", options.files
        if not files:
            raise ValueError(f"{source}: no run is finished")
        counts, edges = add_up(files, options.histogram)
        draw(counts, edges, len(files), source, options.output)
    except (OSError, ValueError, KeyError, sqlite3.Error) as error:
        print(f"picture: {str(error).splitlines()[0]}", file=sys.stderr)
        return 1
    print(f"{options.output}: {len(files)} runs, {counts.sum():.0f} entries")
    return 0


if __name__ == "__main__":
    sys.exit(main())
