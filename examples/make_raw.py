#!/usr/bin/env python3
"""Writes the raw data of the example experiment: MIDAS run files with published CMS events.

The events come from two ROOT files of the package scikit-hep-testdata.  Each run of runs.csv gets
a piece of one of them; no event is in two runs, so that all runs together are exactly these two
files.  The same files come out each time, byte for byte.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import skhep_testdata
import uproot
from midas import Array, Bank, Event, begin_of_run, end_of_run, odb_text, write_run

RUN_LIST = Path(__file__).resolve().parent / "runs.csv"
HZZ, ZMUMU = "uproot-HZZ.root", "uproot-Zmumu.root"

TRIGGER = 1  # the id of events that hold particles
RUN_2091_START = 1386720000  # 11 December 2013; the times are made up
RUN_SECONDS, EVENT_SECONDS = 600, 10

# bank name: branch of the ROOT file, or the two branches of the first and the second muon
HZZ_BANKS = {
    "MUPX": "Muon_Px",
    "MUPY": "Muon_Py",
    "MUPZ": "Muon_Pz",
    "MUEN": "Muon_E",
    "MUCH": "Muon_Charge",
    "MUIS": "Muon_Iso",
    "ELPX": "Electron_Px",
    "ELPY": "Electron_Py",
    "ELPZ": "Electron_Pz",
    "ELEN": "Electron_E",
    "ELCH": "Electron_Charge",
    "ELIS": "Electron_Iso",
    "JTPX": "Jet_Px",
    "JTPY": "Jet_Py",
    "JTPZ": "Jet_Pz",
    "JTEN": "Jet_E",
    "JTBT": "Jet_btag",
    "METX": "MET_px",
    "METY": "MET_py",
    "NPVX": "NPrimaryVertices",
    "WGHT": "EventWeight",
}
ZMUMU_BANKS = {
    "MUPX": ("px1", "px2"),
    "MUPY": ("py1", "py2"),
    "MUPZ": ("pz1", "pz2"),
    "MUEN": ("E1", "E2"),
    "MUCH": ("Q1", "Q2"),
}

Banks = tuple[Bank, ...]  # those of one event


@dataclass(frozen=True)
class Piece:
    """The part of a ROOT file that makes a run."""

    file: str
    first: int  # number of its first event among those that are taken from the file
    events: Sequence[Banks]


def read_run_list() -> list[int]:
    """The runs of the experiment, in order."""
    with RUN_LIST.open(newline="") as file:
        return [int(row["run"]) for row in csv.DictReader(file)]


def read_hzz(file: str) -> list[Banks]:
    """All events of the file: any number of muons, electrons and jets each."""
    branches = _read(file, HZZ_BANKS.values())
    return [
        tuple(
            Bank.of(name, np.atleast_1d(branches[branch][entry]))
            for name, branch in HZZ_BANKS.items()
        )
        for entry in range(len(branches["Muon_Px"]))
    ]


def read_zmumu(file: str) -> list[Banks]:
    """The pairs of muons that were measured best (both "global").

    The file holds each pair several times, once for each way to reconstruct it.
    """
    branches = _read(file, ["Type", *(name for two in ZMUMU_BANKS.values() for name in two)])
    return [
        tuple(
            Bank.of(name, np.array([branches[first][entry], branches[second][entry]]))
            for name, (first, second) in ZMUMU_BANKS.items()
        )
        for entry in np.flatnonzero(branches["Type"] == "GG")
    ]


def cut_into_runs(runs: Sequence[int], hzz: str = HZZ, zmumu: str = ZMUMU) -> dict[int, Piece]:
    """Which events each run gets: those of ``hzz`` go to five runs of six, it has more."""
    split = len(runs) * 5 // 6
    plan = {}
    for file, events, part in (
        (hzz, read_hzz(hzz), runs[:split]),
        (zmumu, read_zmumu(zmumu), runs[split:]),
    ):
        bounds = [len(events) * i // len(part) for i in range(len(part) + 1)]
        for run, start, stop in zip(part, bounds, bounds[1:], strict=False):
            plan[run] = Piece(file, start, events[start:stop])
    return plan


def write_piece(path: Path, run: int, piece: Piece) -> None:
    """The run file; it has its name only when it is complete."""
    start = RUN_2091_START + (run - 2091) * RUN_SECONDS
    stop = start + len(piece.events) * EVENT_SECONDS
    begin = begin_of_run(run, start, odb_of(run, piece, start))
    end = end_of_run(run, stop, odb_of(run, piece, start, stop))
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")
    with unfinished.open("wb") as stream:
        write_run(stream, begin, _events(piece, start), end)
    unfinished.replace(path)


def odb_of(run: int, piece: Piece, start: int, stop: int = 0) -> str:
    """What a shift would find in the online database; ``stop`` is 0 while the run goes on."""
    return odb_text(
        {
            "/Runinfo": {
                "State": 1 if stop else 3,
                "Run number": run,
                "Start time": time.asctime(time.gmtime(start)),
                "Start time binary": start,
                "Stop time": time.asctime(time.gmtime(stop)) if stop else "",
                "Stop time binary": stop,
            },
            "/Experiment/Run parameters": {
                "Comment": "CMS events from scikit-hep-testdata",
                "Source file": piece.file,
                "First event": piece.first,
            },
            "/Equipment/Trigger/Statistics": {"Events sent": len(piece.events) if stop else 0},
        }
    )


def select(known: Sequence[int], ranges: str) -> list[int]:
    """The runs that ``2091-2103,2119`` names; ValueError if one is not known."""
    chosen: list[int] = []
    for text in ranges.split(","):
        if not (bounds := re.fullmatch(r"(\d+)(?:-(\d+))?", text.strip())):
            raise ValueError(f"{text!r} is neither a run nor a range of runs")
        chosen += range(int(bounds[1]), int(bounds[2] or bounds[1]) + 1)
    if unknown := sorted(set(chosen) - set(known)):
        raise ValueError(f"not in {RUN_LIST.name}: {', '.join(map(str, unknown))}")
    return chosen


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description="Write MIDAS run files with published events.")
    parser.add_argument("directory", type=Path, help="where run02091.mid ... go")
    parser.add_argument("--runs", help="only these, for instance 2091-2103,2119 (default: all 67)")
    options = parser.parse_args(argv)
    known = read_run_list()
    try:
        runs = select(known, options.runs) if options.runs else known
    except ValueError as error:
        parser.error(f"--runs={options.runs}: {error}")
    paths = {run: options.directory / f"run{run:05d}.mid" for run in runs}
    missing = {run: path for run, path in paths.items() if not path.exists()}
    try:
        options.directory.mkdir(parents=True, exist_ok=True)
        if missing:
            plan = cut_into_runs(known)
        for run, path in missing.items():
            write_piece(path, run, plan[run])
    except OSError as error:
        print(f"make_raw: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    print(f"{len(missing)} run files written, {len(paths) - len(missing)} were there")
    return 0


def _read(file: str, branches: Iterable[str]) -> dict[str, Array]:
    with uproot.open(skhep_testdata.data_path(file)) as root:
        arrays: dict[str, Array] = root["events"].arrays(list(branches), library="np")
    return arrays


def _events(piece: Piece, start: int) -> Iterator[Event]:
    for number, banks in enumerate(piece.events):
        yield Event(TRIGGER, 1, number + 1, start + number * EVENT_SECONDS, banks)


if __name__ == "__main__":
    sys.exit(main())
